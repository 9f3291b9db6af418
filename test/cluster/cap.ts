/**
 * Measures how well three members of four slots keep all twelve busy: `bun run test/cluster/cap.ts [MS…]`
 * submits 40 tasks of each length in milliseconds (default: 1000 300 100) and prints, for each, the share of
 * samples in which all slots worked while tasks waited, from a warm start and the first time from a cold one.
 */
import { join } from "node:path";
import { readCap } from "./cap-trace.ts";
import { eventually, RealCluster, type TaskJson } from "./harness.ts";

const given = process.argv.slice(2).map(Number);
const lengths = given.length > 0 ? given : [1_000, 1_000, 300, 100];
if (!lengths.every((ms) => ms > 0)) throw new Error("give lengths in milliseconds");
const SLOTS = 12;
const TASKS = 40;

const cluster = await RealCluster.start({
  args: ["--concurrency", "4", "--handlers", join(import.meta.dir, "handlers.ts")],
});
try {
  for (const [round, ms] of lengths.entries()) {
    const trace = join(cluster.folder, `trace-${round}.txt`);
    const tasks = Array.from({ length: TASKS }, () => ({ name: "traced", payload: { trace, ms } }));
    const member = cluster.member(0);
    const { items } = await member.post<{ items: { id: string }[] }>("/api/tasks/bulk", { tasks });
    for (const { id } of items) {
      await eventually(
        "the end",
        async () => {
          const { status } = await member.json<TaskJson>(`/api/tasks/${id}?wait=20`);
          return status === "Completed" ? true : null;
        },
        120_000,
      );
    }
    const { most, samples, full, rampMs } = await readCap(trace, SLOTS);
    const share = ((100 * full) / Math.max(1, samples)).toFixed(1);
    console.log(
      `${TASKS} tasks of ${ms} ms, ${round === 0 ? "cold" : "warm"}: at most ${most} at once; all ${SLOTS} in ` +
        `${full} of ${samples} samples (${share} %); all busy ${rampMs.toFixed(1)} ms after the first`,
    );
  }
} finally {
  await cluster.stop();
}
