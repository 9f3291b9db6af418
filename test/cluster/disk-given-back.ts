/**
 * Runs many tasks through a cluster, lets retention pass, and measures log and state of every member before, at
 * the fullest and in the end: an emptied queue gives its disk back.
 *
 *     bun run test/cluster/disk-given-back.ts [--tasks 100000] [--members 3] [--payload 200] [--wait 90]
 *
 * Ends with code 1 if a file stays larger than what is kept by rule, a minute after the last task: a log no longer
 * than the state, a state that holds next to nothing, and of each the WAL in its working size.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { eventually, type Member, RealCluster } from "./harness.ts";

const { values } = parseArgs({
  options: {
    tasks: { type: "string", default: "100000" },
    members: { type: "string", default: "3" },
    payload: { type: "string", default: "200" },
    wait: { type: "string", default: "90" },
  },
});
const tasks = Number(values.tasks);
const size = Number(values.members);
const payload = "x".repeat(Number(values.payload));
const waitSeconds = Number(values.wait);

const MIB = 1024 * 1024;
const LOG_BYTES_MAX = 12 * MIB;
const STATE_BYTES_MAX = 12 * MIB;

interface Sizes {
  log: number;
  state: number;
}

function sizesOf(folder: string): Sizes {
  const sizes = { log: 0, state: 0 };
  for (const name of readdirSync(folder)) {
    const bytes = statSync(join(folder, name)).size;
    if (name.startsWith("log.db")) sizes.log += bytes;
    if (name.startsWith("state-")) sizes.state += bytes;
  }
  return sizes;
}

function mib(bytes: number): string {
  return (bytes / MIB).toFixed(1).padStart(7);
}

const cluster = await RealCluster.start({
  size,
  args: ["--retention", "completed=5s,cancelled=5s,failed=5s", "--concurrency", "10"],
});
let code = 0;
let watcher: Timer | undefined;
try {
  const folders = cluster.members.map(({ id }) => join(cluster.folder, id));
  const fullest = folders.map(() => ({ log: 0, state: 0 }));
  const look = (): void => {
    folders.forEach((folder, i) => {
      const now = sizesOf(folder);
      const most = fullest[i];
      if (most === undefined) return;
      most.log = Math.max(most.log, now.log);
      most.state = Math.max(most.state, now.state);
    });
  };
  watcher = setInterval(look, 200);
  const startedAt = performance.now();
  await submitAll(cluster.members);
  const submittedAt = performance.now();
  const first = cluster.member(0);
  await eventually(
    "the end of the last task",
    async () => (await whenAnswered(() => unfinished(first))) === 0,
    600_000,
  );
  const finishedAt = performance.now();
  console.log(
    `${tasks} tasks: submitted in ${seconds(submittedAt - startedAt)}, through in ${seconds(finishedAt - startedAt)}`,
  );
  await eventually(
    "retention",
    async () => (await whenAnswered(() => total(first))) === 0,
    600_000,
  );
  console.log(`retention has deleted them ${seconds(performance.now() - finishedAt)} later`);
  const deadline = performance.now() + waitSeconds * 1_000;
  let settledAt: number | null = null;
  while (performance.now() < deadline) {
    const now = folders.map(sizesOf);
    const done = now.every(({ log, state }) => log <= LOG_BYTES_MAX && state <= STATE_BYTES_MAX);
    if (done) {
      settledAt ??= performance.now();
      if (performance.now() - settledAt > 10_000) break;
    }
    await Bun.sleep(500);
  }
  console.log("member      log MiB: fullest, in the end    state MiB: fullest, in the end");
  folders.forEach((folder, i) => {
    const now = sizesOf(folder);
    const most = fullest[i] ?? { log: 0, state: 0 };
    const right = now.log <= LOG_BYTES_MAX && now.state <= STATE_BYTES_MAX;
    if (!right) code = 1;
    console.log(
      `n${i + 1}              ${mib(most.log)} ${mib(now.log)}                ${mib(most.state)} ${mib(now.state)}  ${right ? "right" : "TOO MUCH"}`,
    );
  });
} finally {
  clearInterval(watcher);
  await cluster.stop();
}
process.exit(code);

/** Null while the cluster has no leader: a machine that is busy with other work is slow, not wrong. */
function whenAnswered(count: () => Promise<number>): Promise<number | null> {
  return count().catch(() => null);
}

async function submitAll(members: readonly Member[]): Promise<void> {
  let left = tasks;
  const one = async (member: Member): Promise<void> => {
    while (left > 0) {
      const count = Math.min(1_000, left);
      left -= count;
      const batch = Array.from({ length: count }, () => ({ name: "echo", payload }));
      for (;;) {
        const response = await member.fetch("/api/tasks/bulk", {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ tasks: batch }),
        });
        await response.arrayBuffer();
        if (response.ok) break;
        await Bun.sleep(200);
      }
    }
  };
  await Promise.all(members.map(one));
}

async function counts(
  member: Member,
): Promise<{ stats: Record<string, number>; total_tasks: number }> {
  return member.json("/api/stats");
}

async function unfinished(member: Member): Promise<number> {
  const { stats } = await counts(member);
  return (stats.Pending ?? 0) + (stats.Running ?? 0);
}

async function total(member: Member): Promise<number> {
  return (await counts(member)).total_tasks;
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`;
}
