/**
 * What one commit costs on three members: CPU, frames and bytes between members, messages to their threads, and how
 * often a thread had to be woken, for each acknowledged submit.
 *
 *     bun run test/bench/commit.ts [--seconds N] [--against CHECKOUT] [--callers 1,64] [--to leader|follower]
 *
 * `--against`: another checkout of this project, asked by turns with this one, so that whatever disturbs the machine
 * disturbs both. `--gap MS`: a pause between two submits of a caller.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";

import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { BenchCluster } from "./cluster.ts";
import type { CommitCounts } from "./commit-counts.ts";
import { openConnections } from "./http-connection.ts";
import { closedLoop } from "./load.ts";
import { submitOne } from "./tasks.ts";

const SLICE_MS = 500;
const WARM_MS = 2_000;
const BYTES = 200;

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "4" },
    against: { type: "string" },
    callers: { type: "string", default: "1,64" },
    gap: { type: "string", default: "0" },
    to: { type: "string", default: "leader" },
    members: { type: "string", default: "3" },
  },
});

/** What is summed up for one member; all but `cpu` (µs) are counts. */
interface Sums {
  cpu: number;
  mainCpu: number;
  wakeUps: number;
  mainWakeUps: number;
  frames: number;
  bytes: number;
  posts: number;
}

const KEYS: readonly (keyof Sums)[] = [
  "cpu",
  "mainCpu",
  "wakeUps",
  "mainWakeUps",
  "frames",
  "bytes",
  "posts",
];

const folder = mkdtempSync(join(tmpdir(), "flotilla-commit-"));
process.env.BENCH_COUNTS = folder;
process.env.BUN_OPTIONS = `--preload=${join(import.meta.dir, "commit-counts.ts")}`;
const sides = [await start("here", import.meta.dir)];
if (values.against !== undefined)
  sides.push(await start("there", join(values.against, "test/bench")));
delete process.env.BUN_OPTIONS;
try {
  for (const callers of values.callers.split(",").map(Number)) await compare(callers);
} finally {
  for (const { cluster } of sides) await cluster.stop();
  rmSync(folder, { recursive: true, force: true });
}

async function start(name: string, bench: string) {
  const module = (await import(join(bench, "cluster.ts"))) as {
    BenchCluster: typeof BenchCluster;
  };
  const cluster = await module.BenchCluster.start({
    members: Number(values.members),
    concurrency: 0,
  });
  return { name, cluster };
}

async function compare(callers: number): Promise<void> {
  const loads = [];
  for (const side of sides) {
    const leader = await side.cluster.leader();
    const follower = (await side.cluster.follower()) ?? leader;
    const { url } = values.to === "leader" ? leader : follower;
    const connections = await openConnections(url, callers);
    const one = async (caller: number): Promise<boolean> => {
      const connection = connections[caller];
      if (connection === undefined) return false;
      if (Number(values.gap) > 0) await Bun.sleep(Number(values.gap));
      return submitOne(connection, BYTES);
    };
    await closedLoop(callers, WARM_MS, one);
    const sums = new Map(Object.keys(side.cluster.pids).map((id) => [id, zero()]));
    loads.push({ side, leader, connections, one, sums, ok: 0, seconds: 0, p50s: [] as number[] });
  }
  const slices = Math.ceil((Number(values.seconds) * 1_000) / SLICE_MS);
  for (let i = 0; i < slices; i++) {
    for (const load of loads) {
      const before = await look(load.side.cluster);
      const { ok, seconds, latencies } = await closedLoop(callers, SLICE_MS, load.one);
      const after = await look(load.side.cluster);
      load.ok += ok;
      load.seconds += seconds;
      load.p50s.push(latencies.percentile(50));
      for (const [id, sums] of load.sums)
        for (const key of KEYS) sums[key] += (after[id]?.[key] ?? 0) - (before[id]?.[key] ?? 0);
    }
  }
  for (const { side, leader, sums, ok, seconds, p50s, connections } of loads) {
    for (const connection of connections) connection.close();
    const p50 = p50s.sort((a, b) => a - b)[Math.floor(p50s.length / 2)] ?? 0;
    console.log(
      `\n${side.name}, ${callers} callers: ${(ok / seconds).toFixed(0)} submits/s, p50 ${p50.toFixed(2)} ms; per submit:`,
    );
    console.log(`${"".padEnd(12)}${KEYS.map((key) => key.padStart(12)).join("")}`);
    const total = zero();
    for (const [id, own] of sums) {
      for (const key of KEYS) total[key] += own[key];
      row(id === leader.id ? `${id} leader` : id, own, ok);
    }
    row("all", total, ok);
  }
}

function row(name: string, sums: Sums, per: number): void {
  const cells = KEYS.map((key) => {
    const value = sums[key] / per;
    return (value >= 100 ? value.toFixed(0) : value.toFixed(2)).padStart(12);
  });
  console.log(`${name.padEnd(12)}${cells.join("")}`);
}

function zero(): Sums {
  return {
    cpu: 0,
    mainCpu: 0,
    wakeUps: 0,
    mainWakeUps: 0,
    frames: 0,
    bytes: 0,
    posts: 0,
  };
}

async function look(cluster: BenchCluster): Promise<Record<string, Sums>> {
  const entries = Object.entries(cluster.pids);
  for (const [, pid] of entries) process.kill(pid, "SIGUSR2");
  await Bun.sleep(20);
  return Object.fromEntries(entries.map(([id, pid]) => [id, sumsOf(pid)]));
}

function sumsOf(pid: number): Sums {
  const sums = zero();
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const ns = Number(text(`/proc/${pid}/task/${thread}/schedstat`).split(" ")[0]);
    const status = text(`/proc/${pid}/task/${thread}/status`);
    const woken = Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)?.[1] ?? 0);
    sums.cpu += ns / 1e3;
    sums.wakeUps += woken;
    if (Number(thread) !== pid) continue;
    sums.mainCpu += ns / 1e3;
    sums.mainWakeUps += woken;
  }
  const counts = JSON.parse(text(join(folder, `${pid}.json`)) || "{}") as Partial<CommitCounts>;
  sums.frames = counts.frames ?? 0;
  sums.bytes = counts.bytes ?? 0;
  sums.posts = counts.posts ?? 0;
  return sums;
}

function text(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
