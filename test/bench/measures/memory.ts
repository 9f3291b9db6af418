/** What members hold after all that was measured before, the queue emptied. */
import { type Bench, memoryNote } from "../bench.ts";
import { memoryOf } from "../processes.ts";
import { spread } from "../statistics.ts";

/** A member collects two to three seconds after a load (src/system/memory-return.ts), and gives back for some tenths more. */
const REST_MS = 5_000;

export async function memory(bench: Bench): Promise<void> {
  await bench.clear();
  await Bun.sleep(REST_MS);
  const { pids } = bench.cluster;
  const all = Object.fromEntries(Object.entries(pids).map(([id, pid]) => [id, memoryOf(pid)]));
  bench.record({
    measure: "memory of a member after the run",
    unit: "MiB",
    value: spread(Object.values(all).map(({ rss }) => rss)),
    note: `resident; proportional: ${memoryNote(all)}`,
  });
}
