/** From the first submit until the cluster has accepted the last completion, all of it running at the same time. */
import { FlotillaClient } from "../../../src/client/index.ts";
import { type Bench, closeAll } from "../bench.ts";
import { eventually } from "../../cluster/harness.ts";
import { Histogram } from "../histogram.ts";
import type { Load } from "../load.ts";
import { now } from "../statistics.ts";
import { payload, submitMany } from "../tasks.ts";
import { OutsideWorkers } from "../workers.ts";
import { batchOf } from "./submits.ts";

const WORKER_CONCURRENCY = 50;
const BATCH_CALLERS = 8;
const SINGLE_CALLERS = 64;
const FINISH_MS = 120_000;

/** Submits `tasks` in batches; resolves when all are acknowledged. */
async function submitAll(bench: Bench, tasks: number): Promise<void> {
  const connections = await bench.connections(BATCH_CALLERS);
  let left = tasks;
  const caller = async (connection: (typeof connections)[number]): Promise<void> => {
    while (left > 0) {
      const count = Math.min(batchOf(bench.setup.payload), left);
      left -= count;
      while (!(await submitMany(connection, count, bench.setup.payload))) await Bun.sleep(20);
    }
  };
  await Promise.all(connections.map(caller));
  closeAll(connections);
}

export async function endToEndOutside(bench: Bench): Promise<void> {
  const { cluster, sizes, setup } = bench;
  // What other measures left behind would be executed, too.
  await bench.between();
  const leader = await cluster.leader();
  const workers = await OutsideWorkers.start([leader.url], WORKER_CONCURRENCY);
  const client = new FlotillaClient({ urls: leader.url });
  const timed = async (submit: () => Promise<void>): Promise<Load> => {
    await workers.arm(sizes.tasks);
    const from = now();
    await submit();
    const reachedAt = await workers.reached(FINISH_MS);
    return whole(sizes.tasks, reachedAt - from);
  };
  try {
    const own = [workers.pid];
    await timed(() => submitAll(bench, sizes.tasks));
    await bench.repeat(
      `end to end, outside worker, batches of ${batchOf(bench.setup.payload)}, ${BATCH_CALLERS} callers`,
      { own },
      () => timed(() => submitAll(bench, sizes.tasks)),
    );
    await bench.repeat(
      `end to end, outside worker, client library, ${SINGLE_CALLERS} callers`,
      { own },
      () =>
        timed(async () => {
          let left = sizes.tasks;
          const caller = async (): Promise<void> => {
            while (left-- > 0) {
              await client.enqueue("bench", payload(setup.payload));
            }
          };
          await Promise.all(Array.from({ length: SINGLE_CALLERS }, caller));
        }),
    );
  } finally {
    client.close();
    await workers.stop();
  }
}

/** Run by the members' own executors. The end is seen in the leader's counts, looked at every few milliseconds. */
export async function endToEndOwn(bench: Bench): Promise<void> {
  const { cluster, sizes } = bench;
  const run = async (): Promise<Load> => {
    const before = await cluster.completed();
    const from = now();
    await submitAll(bench, sizes.tasks);
    await eventually(
      "the last completion",
      async () => (await cluster.completed()) >= before + sizes.tasks,
      FINISH_MS,
    );
    return whole(sizes.tasks, now() - from);
  };
  await run();
  await bench.repeat(
    `end to end, members' own executors, batches of ${batchOf(bench.setup.payload)}, ${BATCH_CALLERS} callers`,
    {},
    run,
  );
}

function whole(tasks: number, ms: number): Load {
  return { ok: tasks, failed: 0, seconds: ms / 1_000, latencies: new Histogram() };
}
