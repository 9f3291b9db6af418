/** Light load: how long a task waits for its start, from before it is submitted until a worker has it. */
import { FlotillaClient } from "../../../src/client/index.ts";
import type { Bench } from "../bench.ts";
import { type OpenLoad, openLoop } from "../load.ts";
import { now, percentile, spread } from "../statistics.ts";
import { payload } from "../tasks.ts";
import { OutsideWorkers } from "../workers.ts";

const RATE = 50;
const WARM_MS = 1_500;
const WORKER_CONCURRENCY = 50;
const LIST_MAX = 1_000;

async function light(bench: Bench, client: FlotillaClient, ms: number): Promise<OpenLoad> {
  return openLoop(RATE, ms, async () => {
    await client.enqueue("bench", payload(bench.setup.payload, now()));
    return true;
  });
}

export async function latencyOutside(bench: Bench): Promise<void> {
  const { cluster, sizes } = bench;
  await bench.between();
  const leader = await cluster.leader();
  const client = new FlotillaClient({ urls: leader.url });
  const workers = await OutsideWorkers.start([leader.url], WORKER_CONCURRENCY);
  const starts: { p50: number; p99: number; max: number }[] = [];
  const acks: OpenLoad[] = [];
  try {
    for (let rep = 0; rep < sizes.reps; rep++) {
      await bench.between();
      await light(bench, client, WARM_MS);
      await workers.arm(Infinity);
      acks.push(await light(bench, client, sizes.latencySeconds * 1_000));
      await Bun.sleep(500);
      starts.push((await workers.seen()).startMs);
    }
  } finally {
    client.close();
    await workers.stop();
  }
  const p50 = spread(starts.map((start) => start.p50));
  const p99 = spread(starts.map((start) => start.p99));
  const measure = `submit to start at ${RATE}/s, outside worker`;
  record(bench, measure, p50, p99, Math.max(...starts.map(({ max }) => max)));
  bench.record({
    measure: `submit to acknowledgement at ${RATE}/s, client library`,
    unit: "ms",
    value: spread(acks.map(({ latencies }) => latencies.percentile(50))),
    p99: spread(acks.map(({ latencies }) => latencies.percentile(99))).median,
    failed: acks.reduce((sum, { failed }) => sum + failed, 0),
  });
}

/** The handler answers when it ran; the results are read afterwards. */
export async function latencyOwn(bench: Bench): Promise<void> {
  const { cluster, sizes } = bench;
  const client = new FlotillaClient({ urls: (await cluster.leader()).url });
  const p50s: number[] = [];
  const p99s: number[] = [];
  let max = 0;
  for (let rep = 0; rep < sizes.reps; rep++) {
    await light(bench, client, WARM_MS);
    await bench.clear();
    await light(bench, client, sizes.latencySeconds * 1_000);
    await Bun.sleep(500);
    const waits: number[] = [];
    for await (const task of client.list({ page_size: LIST_MAX })) {
      const { t } = task.payload as { t: number };
      if (task.status === "Completed") waits.push((task.result as number) - t);
    }
    p50s.push(percentile(waits, 50));
    p99s.push(percentile(waits, 99));
    max = Math.max(max, ...waits);
  }
  client.close();
  const measure = `submit to start at ${RATE}/s, members' own executors`;
  record(bench, measure, spread(p50s), spread(p99s), max);
}

function record(
  bench: Bench,
  measure: string,
  p50: ReturnType<typeof spread>,
  p99: ReturnType<typeof spread>,
  max: number,
): void {
  const note = `p99 of each repetition ${p99.min.toFixed(2)} to ${p99.max.toFixed(2)}; longest ${max.toFixed(2)} ms`;
  bench.record({ measure, unit: "ms", value: p50, p50: p50.median, p99: p99.median, note });
}
