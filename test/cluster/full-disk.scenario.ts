/** Real members on small file systems of their own that run full, and get room again (docs/storage.md). */
import { expect } from "bun:test";
import { mkdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  type ClusterView,
  eventually,
  type Member,
  RealCluster,
  type TaskJson,
} from "./harness.ts";
import { scenario } from "./scenario.ts";

const MIB = 1024 * 1024;

const mounts: string[] = [];

/** A file system in memory at `path`. False: this machine does not let us. */
function mount(path: string, mebibytes: number): boolean {
  mkdirSync(path, { recursive: true });
  const words = ["mount", "-t", "tmpfs", "-o", `size=${mebibytes}m,mode=0700`, "tmpfs", path];
  const mounted = Bun.spawnSync(words).success;
  if (mounted) mounts.push(path);
  return mounted;
}

const probe = `/tmp/flotilla-mount-${process.pid}`;
const may = process.platform === "linux" && mount(probe, 1);
for (const path of mounts.splice(0)) Bun.spawnSync(["umount", path]);
rmSync(probe, { recursive: true, force: true });

/** All of it: `bun run test:disk`; the tests of every day take the one that says most. */
const all = process.env["DISK_FAULTS"] === "1";

let cluster: RealCluster;

async function start(): Promise<void> {
  cluster = await RealCluster.create({
    args: ["--concurrency", "0", "--disk-reserve", "32MiB", "--request-timeout", "2s"],
  });
  for (const { id } of cluster.members) mount(join(cluster.folder, id), 128);
  await Promise.all(cluster.members.map((member) => member.start()));
  await cluster.leader();
}

async function end(): Promise<void> {
  await Promise.all((cluster?.members ?? []).map((member) => member.kill("SIGKILL")));
  for (const path of mounts) Bun.spawnSync(["umount", path]);
  await cluster?.stop();
}

function ballast(member: Member): string {
  return join(cluster.folder, member.id, "ballast");
}

/** Leaves `bytes` free on the member's disk. */
function fill(member: Member, bytes: number): void {
  rmSync(ballast(member), { force: true });
  const { bavail, bsize } = statfsSync(join(cluster.folder, member.id));
  try {
    writeFileSync(ballast(member), new Uint8Array(Math.max(0, bavail * bsize - bytes)));
  } catch {
    // The member took some of it meanwhile: it is full now.
  }
}

function empty(member: Member): void {
  rmSync(ballast(member), { force: true });
}

interface Answer {
  readonly status: number;
  readonly code: string | null;
  readonly id: string | null;
}

async function submit(member: Member, payload: unknown = "x"): Promise<Answer> {
  const response = await member.fetch("/api/tasks", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name: "nobody", payload }),
  });
  const body = (await response.json()) as { code?: string; id?: string };
  return { status: response.status, code: body.code ?? null, id: body.id ?? null };
}

async function accepted(member: Member): Promise<string> {
  const { id } = await eventually(`${member.id} to take a task`, async () => {
    const answer = await submit(member);
    return answer.status === 201 ? answer : null;
  });
  return id ?? "";
}

async function refused(member: Member): Promise<void> {
  await eventually(`${member.id} to refuse a task`, async () => {
    const answer = await submit(member);
    return answer.status === 503 && answer.code === "low-disk";
  });
}

/** Below the reserve submits are refused and ends go on; with room again everything does, by itself. */
async function belowTheReserve(): Promise<void> {
  const leader = await cluster.leader();
  const [follower] = await cluster.followers();
  if (follower === undefined) throw new Error("no follower");
  const id = await accepted(leader);
  const claimed = await leader.post<{ tasks: TaskJson[] }>("/api/leases/claim", {
    worker_id: "w",
    max: 1,
    wait_ms: 20_000,
  });
  fill(leader, 16 * MIB);
  await refused(leader);
  // What another member takes would fill the leader's disk too.
  await refused(follower);
  const [task] = claimed.tasks;
  expect(task?.id).toBe(id);
  const { attempt, fence } = task?.lease ?? {};
  const ended = await leader.fetch(`/api/leases/${id}/complete`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ worker_id: "w", attempt, fence, result: 1 }),
  });
  expect(ended.status).toBe(200);
  expect((await leader.fetch("/health")).status).toBe(200);
  empty(leader);
  await accepted(leader);
  await accepted(follower);
}

/** A leader whose disk is full hands over, nothing is lost, and it comes back when there is room. */
async function aFullLeader(): Promise<void> {
  const leader = await cluster.leader();
  const before = await accepted(leader);
  const others = await cluster.followers();
  fill(leader, 0);
  await eventually("another leader", async () => {
    const views = await Promise.all(
      others.map((member) =>
        member.json<ClusterView>("/api/cluster?consistency=stale").catch(() => null),
      ),
    );
    return views.some((view) => view?.role === "leader");
  });
  await refused(leader);
  await eventually("the full member to say so", async () => {
    const health = await leader.fetch("/health");
    return health.status === 503 && (await health.text()).includes("disk");
  });
  const ids = [before];
  for (const member of others) ids.push(await accepted(member));
  // More than the full member can keep: its log and its state have no room for it.
  const [other] = others;
  for (let n = 0; n < 50; n++) {
    const answer = await submit(other ?? leader, "x".repeat(200_000));
    expect(answer.status).toBe(201);
    ids.push(answer.id ?? "");
  }
  expect(leader.process?.exitCode ?? null).toBeNull();
  await eventually("its state to find no room", async () =>
    leader.output.includes("the disk is full: nothing is applied until there is room"),
  );
  empty(leader);
  await accepted(leader);
  await eventually("the member to catch up", async () => {
    const [own, theirs] = await Promise.all(
      [leader, other ?? leader].map((member) =>
        member.json<ClusterView>("/api/cluster?consistency=stale"),
      ),
    );
    return (own?.applied_index ?? 0) >= (theirs?.commit_index ?? Infinity);
  });
  for (const id of ids) {
    const task = await leader.json<TaskJson>(`/api/tasks/${id}?consistency=stale`);
    expect(task.id).toBe(id);
  }
  await eventually("it to be healthy", async () => (await leader.fetch("/health")).status === 200);
}

/** All disks full at once: everything is refused, nobody dies, and it goes on with room. */
async function allFull(): Promise<void> {
  const ids = [await accepted(cluster.member(0))];
  for (const member of cluster.members) fill(member, 0);
  for (const member of cluster.members) await refused(member);
  // It can be read where the state has what the log has; where it had no room for that, the answer says why.
  for (const member of cluster.members) {
    const read = await member.fetch(`/api/tasks/${ids[0]}`);
    if (read.status === 200) expect(await read.json()).toMatchObject({ id: ids[0] });
    else expect(await read.json()).toMatchObject({ status: 503, code: "low-disk" });
  }
  await Bun.sleep(1_000);
  for (const { process } of cluster.members) expect(process?.exitCode ?? null).toBeNull();
  // Killed and started again it says what is missing, and that is not another folder.
  const killed = cluster.member(2);
  await killed.kill();
  fill(killed, 0);
  killed.output = "";
  expect(await killed.start().then(() => "started", String)).toContain("ended with 2");
  expect(killed.output).toMatch(/the disk of .* is full: make room on it/);
  empty(killed);
  await killed.start();
  for (const member of cluster.members) empty(member);
  for (const member of cluster.members) ids.push(await accepted(member));
  for (const member of cluster.members)
    for (const id of ids) await member.json<TaskJson>(`/api/tasks/${id}`);
}

/** A disk that becomes read-only ends the process with a sentence, and the others go on. */
async function readOnly(): Promise<void> {
  const [member] = await cluster.followers();
  if (member === undefined) throw new Error("no follower");
  const folder = join(cluster.folder, member.id);
  const child = member.process;
  member.output = "";
  // Open files keep their rights: as after an error of the disk, on which file systems turn read-only.
  expect(Bun.spawnSync(["mount", "-o", "remount,ro", "-f", folder]).success).toBe(true);
  const remounted = Bun.spawnSync(["mount", "-o", "remount,ro", folder]).success;
  if (!remounted) {
    // Busy with open files: only a start can be tried.
    await member.kill("SIGKILL");
    expect(Bun.spawnSync(["mount", "-o", "remount,ro", folder]).success).toBe(true);
  } else expect(await child?.exited).toBe(1);
  await accepted(await cluster.leader());
  member.output = "";
  expect(await member.start().then(() => "started", String)).toContain("ended with 2");
  expect(member.output).toContain("give --data a folder that can be written");
  Bun.spawnSync(["mount", "-o", "remount,rw", folder]);
  await member.start();
  await accepted(member);
}

scenario(
  "a leader whose disk is full hands over, nothing is lost, and it comes back when there is room (needs the right to mount)",
  async () => {
    try {
      await start();
      if (all) await belowTheReserve();
      await aFullLeader();
      if (!all) return;
      await allFull();
      await readOnly();
    } finally {
      await end();
    }
  },
  { skip: !may },
);
