/**
 * What the consistency check costs (docs/consistency.md): fills three members with tasks, lets them rest, and measures each
 * one's main thread and process while rows are read, and a cluster without a task beside it.
 *
 *     bun run test/cluster/audit-cost.ts [--tasks 1000000] [--seconds 60]
 *
 * CPU time, so that other work on the machine hardly matters. Always ends with code 0: it judges nothing.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { eventually, type Member, RealCluster } from "./harness.ts";

const { values } = parseArgs({
  options: {
    tasks: { type: "string", default: "1000000" },
    seconds: { type: "string", default: "60" },
  },
});
const tasks = Number(values.tasks);
const seconds = Number(values.seconds);
const TASKS_PER_BULK = 1_000;
/** What is written after the last task, and read for the first time: over by then. */
const REST_MS = 5_000;

interface Sample {
  readonly at: number;
  /** Milliseconds of CPU so far. */
  readonly mainMs: number;
  readonly processMs: number;
  readonly rows: number;
  readonly rounds: number;
  readonly pausedSeconds: number;
}

for (const count of [0, tasks]) {
  const cluster = await RealCluster.start({ args: ["--concurrency", "0"] });
  try {
    await fill(await cluster.leader(), count);
    await eventually("all to have read something", async () => {
      const all = await Promise.all(cluster.members.map(sample));
      return all.every(({ rounds }) => rounds > 1);
    });
    await Bun.sleep(REST_MS);
    const before = await Promise.all(cluster.members.map(sample));
    await Bun.sleep(seconds * 1_000);
    const after = await Promise.all(cluster.members.map(sample));
    console.log(`${count} tasks, ${seconds} s of rest:`);
    cluster.members.forEach(({ id }, i) => {
      const [from, to] = [before[i], after[i]];
      if (from !== undefined && to !== undefined) console.log(`  ${id}: ${told(from, to)}`);
    });
  } finally {
    await cluster.stop();
  }
}

async function fill(member: Member, count: number): Promise<void> {
  const body = JSON.stringify({
    tasks: Array.from({ length: TASKS_PER_BULK }, () => ({ name: "t", payload: "x".repeat(198) })),
  });
  let left = count;
  const one = async (): Promise<void> => {
    while (left > 0) {
      left -= TASKS_PER_BULK;
      for (;;) {
        const headers = { "content-type": "application/json" };
        const answer = await member.fetch("/api/tasks/bulk", { method: "POST", headers, body });
        await answer.arrayBuffer();
        if (answer.ok) break;
        await Bun.sleep(200);
      }
    }
  };
  await Promise.all([one(), one(), one(), one()]);
}

async function sample(member: Member): Promise<Sample> {
  const pid = member.process?.pid ?? 0;
  const text = await (await member.fetch("/metrics")).text();
  const figure = (name: string): number =>
    Number(new RegExp(`^flotilla_consistency_${name}_total (.*)$`, "m").exec(text)?.[1]);
  const [ran] = readFileSync(`/proc/${pid}/task/${pid}/schedstat`, "utf8").split(" ");
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  const TICK_MS = 10;
  return {
    at: performance.now(),
    mainMs: Number(ran) / 1e6,
    processMs: (Number(stat[11]) + Number(stat[12])) * TICK_MS,
    rows: figure("rows"),
    rounds: figure("rounds"),
    pausedSeconds: figure("pause_seconds"),
  };
}

function told(from: Sample, to: Sample): string {
  const ms = to.at - from.at;
  const rounds = to.rounds - from.rounds;
  const rows = to.rows - from.rows;
  const share = (busy: number): string => `${((busy * 100) / ms).toFixed(2)} %`;
  const pause = ((to.pausedSeconds - from.pausedSeconds) * 1_000) / Math.max(1, rounds);
  return [
    `main thread ${share(to.mainMs - from.mainMs)} of a processor`,
    `whole process ${share(to.processMs - from.processMs)}`,
    `${rounds} rounds`,
    `${Math.round((rows * 1_000) / ms)} rows/s`,
    `applies held ${pause.toFixed(2)} ms a round`,
  ].join(", ");
}
