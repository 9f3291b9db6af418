/** What a cluster costs that has nothing to do, with and without a worker that waits for tasks. */
import type { Bench } from "../bench.ts";
import { watchCpu } from "../processes.ts";
import { spread } from "../statistics.ts";
import { OutsideWorkers } from "../workers.ts";

const LOOK_MS = 20_000;
const WORKER_CONCURRENCY = 50;

export async function idle(bench: Bench): Promise<void> {
  await bench.clear();
  await look(bench, "idle");
  const workers = await OutsideWorkers.start(bench.cluster.urls, WORKER_CONCURRENCY);
  await look(bench, "idle, a worker waiting");
  await workers.stop();
}

async function look(bench: Bench, what: string): Promise<void> {
  const { cluster } = bench;
  await Bun.sleep(2_000);
  const [first] = cluster.members;
  if (first === undefined) return;
  const before = { index: (await cluster.view()).commit_index, bytes: await cluster.bytes(first) };
  const stop = watchCpu(cluster.pids);
  await Bun.sleep(LOOK_MS);
  const { byMember, others } = stop();
  const entries = (await cluster.view()).commit_index - before.index;
  const grown = (await cluster.bytes(first)) - before.bytes;
  bench.record({
    measure: `${what}: CPU of a member`,
    unit: "%",
    value: spread(Object.values(byMember).map((cores) => cores * 100)),
    note: `over ${LOOK_MS / 1_000} s ${entries} log entries and ${grown} bytes more in ${first.id}'s files; others used ${others.toFixed(2)} cores`,
  });
}
