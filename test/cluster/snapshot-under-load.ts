/**
 * A member comes back long after the log was compacted beyond it, and gets the state as a snapshot while the cluster
 * takes more writes than the log's tail is long, over a link of limited speed that breaks twice. Prints what it took.
 *
 *     bun run test/cluster/snapshot-under-load.ts [--tasks 1000000] [--link-mib 8] [--write-mib 10]
 *         [--election-timeout 300ms]
 *
 * Ends with code 1 if there was an election, if the tail was not outrun, if what had arrived was sent again, if memory
 * grew without measure, or if the member that came back holds anything else than the others.
 */
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BreakableLink } from "./breakable-link.ts";
import { type ClusterView, eventually, freePorts, Member } from "./harness.ts";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";

const { values } = parseArgs({
  options: {
    tasks: { type: "string", default: "1000000" },
    "link-mib": { type: "string", default: "8" },
    "write-mib": { type: "string", default: "10" },
    "election-timeout": { type: "string", default: "300ms" },
  },
});
const MIB = 1024 * 1024;
const tasks = Number(values.tasks);
const linkBytes = Number(values["link-mib"]) * MIB;
/** In a second, as tasks of so much payload. */
const writeBytes = Number(values["write-mib"]) * MIB;
const PAYLOAD_BYTES = 32 * 1024;
const TASKS_PER_BULK = 16;
/** What a log keeps at most when nobody fetches a snapshot (log-compaction.ts). */
const TAIL_BYTES_MAX = 256 * MIB;
/**
 * Beyond what the leader held before: the send queue (32 MiB at most), what is under way to each member (8 MiB), the log's
 * cache filled anew (24 MB), and garbage that the collector lets be.
 */
const MEMORY_GROWTH_MAX = 200 * MIB;
/** Of the member that comes back, in all: what an idle one needs, the log's cache, and garbage. */
const RECEIVER_MEMORY_MAX = 400 * MIB;

const folder = await mkdtemp(join(tmpdir(), "flotilla-snapshot-"));
const ports = freePorts(3);
const portOf = (i: number): number => ports[i] ?? 0;
const links: BreakableLink[] = [];
for (let i = 0; i < 2; i++) links.push(await BreakableLink.listen(portOf(2), linkBytes));
const members = ports.map((port, i) => {
  const third = links[i % 2]?.port ?? portOf(2);
  // All addresses that are known of n3 lead through a link: peers are dialled by turns at each of them.
  const told = i === 2 ? [`--advertise=http://127.0.0.1:${third}`] : [];
  const peers = `n1=http://127.0.0.1:${portOf(0)},n2=http://127.0.0.1:${portOf(1)},n3=http://127.0.0.1:${third}`;
  return new Member(`n${i + 1}`, port, [
    `--id=n${i + 1}`,
    `--port=${port}`,
    `--data=${join(folder, `n${i + 1}`)}`,
    `--peers=${peers}`,
    "--concurrency=0",
    ...told,
    `--election-timeout=${values["election-timeout"]}`,
  ]);
});
const [n1, n2, n3] = members as [Member, Member, Member];

let code = 0;
function demand(right: boolean, sentence: string): void {
  if (!right) code = 1;
  console.log(`${right ? "right" : "WRONG"}  ${sentence}`);
}

try {
  await Promise.all(members.map((member) => member.start()));
  await leaderOf([n1, n2, n3]);
  await n3.kill();
  const leader = await leaderOf([n1, n2]);
  const startedAt = performance.now();
  await submit(leader, tasks, "x".repeat(198));
  // Some more: only what was logged while n3 was away matters, and it must not be in the tail.
  await eventually(
    "a log that begins behind n3",
    async () =>
      (await compacted(leader)) || (await submit(leader, 2_000, "y".repeat(8_000)), false),
    300_000,
  );
  console.log(
    `${tasks} tasks of 200 bytes submitted in ${seconds(performance.now() - startedAt)}; state ${mib(sizeOf(leader, "state-"))}, log ${mib(sizeOf(leader, "log.db"))}`,
  );
  await Bun.sleep(3_000);

  const before = await leader.json<ClusterView>("/api/cluster");
  for (const member of [n1, n2]) resetPeak(member);
  const memoryBefore = memory(leader);
  const quiet = await writeFor(leader, 5_000);
  console.log(
    `writes without a transfer: ${mib(quiet.bytesPerSecond)}/s, a bulk of ${TASKS_PER_BULK} takes ${quiet.p50} ms, 99 % ${quiet.p99} ms`,
  );

  const bytesBefore = links.reduce((sum, link) => sum + link.bytes, 0);
  const stop = new AbortController();
  await n3.start();
  const beganAt = performance.now();
  const writing = writeUntil(leader, stop.signal);
  const peaks = { log: 0, n3: 0 };
  const breaksAt = [0.3, 0.6].map((part) => part * sizeOf(leader, "state-"));
  let breaks = 0;
  let installedAt = 0;
  await eventually(
    "the installed snapshot",
    async () => {
      peaks.log = Math.max(peaks.log, sizeOf(leader, "log.db"));
      const passed = links.reduce((sum, link) => sum + link.bytes, 0) - bytesBefore;
      const next = breaksAt[breaks];
      if (next !== undefined && passed > next) {
        breaks += 1;
        for (const link of links) link.break();
      }
      return (await count(n3, "flotilla_snapshots_installed_total").catch(() => 0)) > 0;
    },
    550_000,
  );
  installedAt = performance.now();
  const carried = links.reduce((sum, link) => sum + link.bytes, 0) - bytesBefore;
  const snapshotBytes = await count(leader, "flotilla_snapshot_sent_bytes_total");
  const memoryInstalled = memory(leader);
  stop.abort();
  const busy = await writing;
  const wrote = busy.bytes;
  await eventually(
    "n3 to catch up",
    async () => {
      const view = await leader.json<ClusterView>("/api/cluster");
      return view.members.every(({ lag }) => lag === 0 || lag === null);
    },
    300_000,
  );
  const caughtUpAt = performance.now();
  console.log(
    `transfer and install: ${seconds(installedAt - beganAt)} for ${mib(snapshotBytes)} of chunks, ${mib(carried)} over the link in all, ${breaks} breaks`,
  );
  console.log(
    `meanwhile: ${mib(wrote)} of tasks written, a bulk takes ${busy.p50} ms, 99 % ${busy.p99} ms; the leader's log at its longest ${mib(peaks.log)}`,
  );
  console.log(`caught up ${seconds(caughtUpAt - installedAt)} after the install`);
  const memoryAfter = memory(leader);
  const receiverPeak = memory(n3).peak;
  console.log(
    `leader: resident ${mib(memoryBefore.now)} before, at most ${mib(memoryInstalled.peak)} until the install, ${mib(memoryAfter.peak)} until n3 had caught up; n3 at most ${mib(receiverPeak)} (all its life)`,
  );
  const after = await leader.json<ClusterView>("/api/cluster");
  demand(breaks === 2, "the link broke twice");
  demand(after.term === before.term && after.leader_id === before.leader_id, "no election");
  demand(wrote > TAIL_BYTES_MAX, "more was written meanwhile than the tail is long (256 MiB)");
  demand(
    (await count(n3, "flotilla_snapshots_installed_total")) === 1,
    "one snapshot was installed",
  );
  demand(
    (await count(leader, "flotilla_snapshot_receivers_dropped_total")) === 0,
    "nobody was dropped",
  );
  demand(
    memoryAfter.peak - memoryBefore.now < MEMORY_GROWTH_MAX,
    `the leader's memory grew by less than ${mib(MEMORY_GROWTH_MAX)}`,
  );
  demand(receiverPeak < RECEIVER_MEMORY_MAX, `n3 held less than ${mib(RECEIVER_MEMORY_MAX)}`);
  // Its log has all that the leader's has; its state may be a moment behind.
  let [a, b] = ["", ""];
  await eventually("n3 to have applied everything", async () => {
    [a, b] = await Promise.all([statistics(leader), statistics(n3)]);
    return a === b;
  }).catch(() => undefined);
  demand(a === b, `n3 counts what the leader counts: ${b}, ${a}`);
  await submit(leader, 1, "after");
  await eventually("all to have applied the same", async () => {
    const views = await Promise.all(members.map((m) => m.json<ClusterView>("/api/cluster")));
    return new Set(views.map(({ applied_index }) => applied_index)).size === 1;
  });
  // What was applied is committed to the file a moment later.
  await Bun.sleep(2_000);
  await Promise.all(members.map((member) => member.kill()));
  const hashes = await Promise.all(members.map(({ id }) => hashOf(join(folder, id))));
  demand(new Set(hashes).size === 1, `the rows of all three states are the same (${hashes[2]})`);
} catch (error) {
  code = 1;
  console.error(error);
  for (const member of members) console.error(`--- ${member.id}\n${member.output.slice(-3_000)}`);
} finally {
  await Promise.all(members.map((member) => member.kill()));
  for (const link of links) link.close();
  await rm(folder, { recursive: true, force: true });
}
process.exit(code);

async function leaderOf(some: readonly Member[]): Promise<Member> {
  return eventually(
    "a leader",
    async () => {
      for (const member of some) {
        const view = await member.json<ClusterView>("/api/cluster").catch(() => null);
        if (view?.role === "leader") return member;
      }
      return null;
    },
    60_000,
  );
}

async function submit(member: Member, count: number, payload: string): Promise<void> {
  let left = count;
  const one = async (): Promise<void> => {
    while (left > 0) {
      const size = Math.min(1_000, left);
      left -= size;
      while (!(await bulk(member, size, payload))) await Bun.sleep(200);
    }
  };
  await Promise.all([one(), one(), one(), one()]);
}

async function bulk(member: Member, size: number, payload: string): Promise<boolean> {
  const response = await member.fetch("/api/tasks/bulk", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ tasks: Array.from({ length: size }, () => ({ name: "t", payload })) }),
  });
  await response.arrayBuffer();
  return response.ok;
}

interface Written {
  readonly bytes: number;
  readonly bytesPerSecond: number;
  readonly p50: number;
  readonly p99: number;
}

function writeFor(member: Member, ms: number): Promise<Written> {
  return writeUntil(member, AbortSignal.timeout(ms));
}

async function writeUntil(member: Member, signal: AbortSignal): Promise<Written> {
  const payload = "z".repeat(PAYLOAD_BYTES);
  const times: number[] = [];
  const startedAt = performance.now();
  let freeAt = startedAt;
  const one = async (): Promise<void> => {
    while (!signal.aborted) {
      freeAt += (TASKS_PER_BULK * PAYLOAD_BYTES * 1_000) / writeBytes;
      await Bun.sleep(Math.max(0, freeAt - performance.now()));
      const at = performance.now();
      if (await bulk(member, TASKS_PER_BULK, payload)) times.push(performance.now() - at);
    }
  };
  await Promise.all([one(), one(), one(), one()]);
  times.sort((a, b) => a - b);
  const bytes = times.length * TASKS_PER_BULK * PAYLOAD_BYTES;
  const at = (part: number): number => Math.round(times[Math.floor(times.length * part)] ?? 0);
  const bytesPerSecond = (bytes * 1_000) / (performance.now() - startedAt);
  return { bytes, bytesPerSecond, p50: at(0.5), p99: at(0.99) };
}

async function compacted(member: Member): Promise<boolean> {
  const entries = await figure(member, "flotilla_log_entries");
  const { applied_index } = await member.json<ClusterView>("/api/cluster");
  return applied_index - entries > 50;
}

function count(member: Member, name: string): Promise<number> {
  return figure(member, name);
}

async function figure(member: Member, name: string): Promise<number> {
  const text = await (await member.fetch("/metrics")).text();
  const line = text.split("\n").find((one) => one.startsWith(`${name} `));
  if (line === undefined) throw new Error(`${member.id} has no ${name}`);
  return Number(line.slice(name.length + 1));
}

async function statistics(member: Member): Promise<string> {
  return (await member.fetch("/api/stats?consistency=stale")).text();
}

function sizeOf({ id }: Member, prefix: string): number {
  let bytes = 0;
  for (const name of readdirSync(join(folder, id))) {
    if (!name.startsWith(prefix)) continue;
    try {
      bytes += statSync(join(folder, id, name)).size;
    } catch {
      // It was removed between the two calls.
    }
  }
  return bytes;
}

/** Of a process that lives. */
function memory(member: Member): { readonly now: number; readonly peak: number } {
  const status = readFileSync(`/proc/${member.process?.pid}/status`, "utf8");
  const kib = (key: string): number => Number(new RegExp(`${key}:\\s+(\\d+)`).exec(status)?.[1]);
  return { now: kib("VmRSS") * 1024, peak: kib("VmHWM") * 1024 };
}

function resetPeak(member: Member): void {
  writeFileSync(`/proc/${member.process?.pid}/clear_refs`, "5");
}

/** Over the rows, by the machine's own hash, in a folder that nobody has open. */
async function hashOf(path: string): Promise<string> {
  const { openStateDatabase } = await import("../../src/storage/state-database.ts");
  const { TaskMachine } = await import("../../src/queue/machine.ts");
  const { db } = openStateDatabase(path);
  try {
    return TaskMachine.open(db).hash().slice(0, 16);
  } finally {
    db.close();
  }
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`;
}
