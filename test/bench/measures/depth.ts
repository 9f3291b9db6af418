/** The main figures once more with a full table: so many tasks waiting (for a worker that never comes), or finished. */
import { FlotillaClient } from "../../../src/client/index.ts";
import { type Bench, closeAll } from "../bench.ts";
import { OutsideWorkers } from "../workers.ts";
import { memoryOf } from "../processes.ts";
import { spread } from "../statistics.ts";
import { payload, submitMany } from "../tasks.ts";
import { endToEndOutside } from "./end-to-end.ts";
import { latencyOutside } from "./latency.ts";
import { linearizableReads } from "./reads.ts";
import { submitsByHttp, submitsInBatches } from "./submits.ts";

const BULK = 500;
const FILLERS = 4;
const FINISH_MS = 600_000;
const WORKER_CONCURRENCY = 500;

export async function depth(bench: Bench, tasks: number): Promise<void> {
  await bench.clear();
  bench.keeping = true;
  await mainFigures(bench, "empty table");
  for (const kind of ["waiting", "finished"] as const) {
    await bench.clear();
    await fill(bench, kind, tasks);
    await bench.settle();
    const sizes = await Promise.all(bench.cluster.members.map((m) => bench.cluster.bytes(m)));
    bench.label = "";
    const rss = Object.values(bench.cluster.pids).map((pid) => memoryOf(pid).rss);
    bench.record({
      measure: `memory with ${tasks.toLocaleString("en-US")} tasks ${kind}`,
      unit: "MiB",
      value: spread(rss),
      note: `files of a member: ${spread(sizes.map((size) => size / 2 ** 20)).median.toFixed(0)} MiB`,
    });
    await mainFigures(bench, `${tasks.toLocaleString("en-US")} ${kind}`);
  }
  bench.keeping = false;
  bench.label = "";
}

async function mainFigures(bench: Bench, label: string): Promise<void> {
  bench.label = `, ${label}`;
  await submitsByHttp(bench, [64]);
  await submitsInBatches(bench, [8]);
  await drain(bench);
  await endToEndOutside(bench);
  await latencyOutside(bench);
  await linearizableReads(bench);
}

/** Waiting ones are `parked`, which nobody claims; finished ones are executed. */
async function fill(bench: Bench, kind: "waiting" | "finished", tasks: number): Promise<void> {
  const connections = await bench.connections(FILLERS);
  const name = kind === "waiting" ? "parked" : "bench";
  const workers =
    kind === "waiting"
      ? null
      : await OutsideWorkers.start([(await bench.cluster.leader()).url], WORKER_CONCURRENCY);
  await workers?.arm(tasks);
  let left = tasks;
  await Promise.all(
    connections.map(async (connection) => {
      while (left > 0) {
        const count = Math.min(BULK, left);
        left -= count;
        while (!(await submitMany(connection, count, bench.setup.payload, name)))
          await Bun.sleep(50);
      }
    }),
  );
  closeAll(connections);
  await workers?.reached(FINISH_MS);
  await workers?.stop();
}

/** What the submits left behind is executed, so that nobody's figure is held up by it. */
async function drain(bench: Bench): Promise<void> {
  const url = (await bench.cluster.leader()).url;
  const workers = await OutsideWorkers.start([url], WORKER_CONCURRENCY);
  const client = new FlotillaClient({ urls: url });
  // In the order of their submits, so that the last one ends last, or nearly so.
  const last = await client.enqueue("bench", payload(bench.setup.payload));
  await last.result({ timeoutMs: FINISH_MS });
  await Bun.sleep(500);
  client.close();
  await workers.stop();
}
