/**
 * Steady load below the maximum, run to its end by workers outside: what a caller waits for an acknowledgement and a task for
 * its start. Latencies run from the moment a submit was due.
 */
import { FlotillaClient } from "../../../src/client/index.ts";
import type { Bench } from "../bench.ts";
import { closedLoop, openLoop } from "../load.ts";
import { memoryOf, watchCpu } from "../processes.ts";
import { spread } from "../statistics.ts";
import { payload } from "../tasks.ts";
import { OutsideWorkers } from "../workers.ts";

const CALLERS = 64;
const SHARES = [25, 50, 75];
const MAXIMUM_MS = 5_000;
const WORKER_CONCURRENCY = 50;

export async function steadyLoad(bench: Bench): Promise<void> {
  const { cluster, sizes, setup } = bench;
  await bench.clear();
  const client = new FlotillaClient({ urls: (await cluster.leader()).url });
  const workers = await OutsideWorkers.start(cluster.urls.slice(0, 1), WORKER_CONCURRENCY);
  const one = async (_: number, dueAt?: number): Promise<boolean> => {
    await client.enqueue("bench", payload(setup.payload, dueAt));
    return true;
  };
  try {
    // The most that callers who wait get through while the workers keep up.
    const run = (): ReturnType<typeof closedLoop> => closedLoop(CALLERS, MAXIMUM_MS, one);
    await run();
    const maximum = await bench.repeat(
      `steady load: the maximum, ${CALLERS} callers, executed outside`,
      { own: [workers.pid], keep: true },
      run,
    );
    for (const share of SHARES) {
      await drained(bench);
      await workers.arm(Infinity);
      const rate = Math.round((maximum * share) / 100);
      const before = Object.values(cluster.pids).map((pid) => memoryOf(pid).rss);
      const stop = watchCpu(cluster.pids, [workers.pid]);
      const load = await openLoop(rate, sizes.steadySeconds * 1_000, one);
      const cpu = stop();
      await drained(bench);
      const { startMs } = await workers.seen();
      const after = Object.values(cluster.pids).map((pid) => memoryOf(pid).rss);
      const { latencies } = load;
      const grew = after.map((rss, i) => (rss - (before[i] ?? 0)).toFixed(0)).join(", ");
      bench.record({
        measure: `steady load at ${share} %, ${sizes.steadySeconds} s: submit to acknowledgement`,
        unit: "ms",
        value: spread([latencies.percentile(50)]),
        p50: latencies.percentile(50),
        p99: latencies.percentile(99),
        failed: load.failed + load.unanswered,
        cpu,
        note: `${rate} tasks/s asked for, ${Math.round(load.ok / load.seconds)} acknowledged; p99.9 ${latencies.percentile(99.9).toFixed(1)}, longest ${latencies.maxMs.toFixed(0)} ms; members grew by ${grew} MiB`,
      });
      bench.record({
        measure: `steady load at ${share} %, ${sizes.steadySeconds} s: submit to start`,
        unit: "ms",
        value: spread([startMs.p50]),
        p50: startMs.p50,
        p99: startMs.p99,
        note: `longest ${startMs.max.toFixed(0)} ms`,
      });
    }
  } finally {
    client.close();
    await workers.stop();
  }
}

async function drained(bench: Bench): Promise<void> {
  for (;;) {
    const { Pending, Running } = await bench.cluster.counts();
    if (Pending + Running === 0) return;
    await Bun.sleep(50);
  }
}
