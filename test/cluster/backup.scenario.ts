/** A backup of real members under load, and new clusters that begin with it. */
import { expect } from "bun:test";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  type ClusterView,
  eventually,
  freePorts,
  Member,
  type RealCluster,
  type TaskJson,
} from "./harness.ts";
import { scenario, withCluster } from "./scenario.ts";
import { endOf } from "./start-process.ts";

interface Claimed {
  tasks: (TaskJson & { lease: { attempt: number; fence: number } })[];
}

/** A backup, and what it was made of. */
interface Backup {
  readonly folder: string;
  readonly file: string;
  readonly old: RealCluster;
  readonly oldView: ClusterView;
  /** The tasks, as they were listed. */
  readonly before: string;
  readonly running: Claimed["tasks"][number];
  /** A member of a new cluster; it ends with the test. */
  readonly member: (id: string, port: number, ...args: readonly string[]) => Member;
}

/** A cluster under load is backed up at a follower. */
function withBackup(run: (backup: Backup) => Promise<void>): Promise<void> {
  return withCluster({ args: ["--concurrency", "0"] }, async (old) => {
    const folder = join(old.folder, "backup");
    mkdirSync(folder);
    const file = join(folder, "a.backup");
    const first = old.member(0);
    await first.post("/api/tasks/bulk", {
      tasks: Array.from({ length: 300 }, (_, n) => ({ name: "work", payload: { n } })),
    });
    const claimed = await first.post<Claimed>("/api/leases/claim", {
      worker_id: "w",
      max: 1,
      wait_ms: 20_000,
    });
    const [running] = claimed.tasks;
    if (running === undefined) throw new Error("nothing to claim");
    const before = await tasksOf(first);
    const follower = (await old.followers())[0];
    if (follower === undefined) throw new Error("no follower");
    const response = await follower.fetch("/api/cluster/backup");
    expect(response.status).toBe(200);
    expect(response.headers.get("content-disposition")).toContain(".backup");
    writeFileSync(file, new Uint8Array(await response.arrayBuffer()));
    const oldView = await follower.json<ClusterView>("/api/cluster");
    const started: Member[] = [];
    const member = (id: string, port: number, ...args: readonly string[]): Member => {
      const data = join(folder, `${port}-${id}`);
      const own = [`--id=${id}`, `--port=${port}`, `--data=${data}`, "--concurrency=0"];
      const made = new Member(id, port, [...own, ...args]);
      started.push(made);
      return made;
    };
    try {
      await run({ folder, file, old, oldView, before, running, member });
    } finally {
      await Promise.all(started.map((one) => one.kill()));
    }
  });
}

async function tasksOf(from: Member): Promise<string> {
  const response = await from.fetch("/api/tasks?limit=1000");
  expect(response.status).toBe(200);
  return response.text();
}

scenario("a backup begins a cluster of one, and is refused where it would do harm", () =>
  withBackup(async (backup) => {
    await beginsAClusterOfOne(backup);
    await isRefusedWhenDamaged(backup);
    await neverGoesOverFiles(backup);
  }),
);

scenario("a backup is one at a time at a member, and begins a cluster of three", () =>
  withBackup(async (backup) => {
    await isOneAtATime(backup);
    await beginsAClusterOfThree(backup);
  }),
);

/** Begins a cluster of one with all that was acknowledged, under a new id. */
async function beginsAClusterOfOne({
  file,
  before,
  oldView,
  running,
  member,
}: Backup): Promise<void> {
  const [port = 0] = freePorts(1);
  const restored = member("n1", port, "--restore", file);
  await restored.start();
  expect(await tasksOf(restored)).toBe(before);
  const view = await restored.json<ClusterView>("/api/cluster");
  expect(view.cluster_id).not.toBe(oldView.cluster_id);
  expect(view.members.map(({ id }) => id)).toEqual(["n1"]);
  expect(view.applied_index).toBeGreaterThan(1_000_000_000 + oldView.applied_index);
  // Whoever held a lease holds it, and fences go on far beyond those that the old cluster may have given since.
  const claimed = await restored.post<Claimed>("/api/leases/claim", {
    worker_id: "w2",
    max: 1,
    wait_ms: 20_000,
  });
  expect(claimed.tasks[0]?.lease.fence).toBeGreaterThan(1_000_000_000 + running.lease.fence);
  await restored.post(`/api/leases/${running.id}/complete`, {
    worker_id: "w",
    attempt: running.lease.attempt,
    fence: running.lease.fence,
    result: "done",
  });
  expect((await restored.json<TaskJson>(`/api/tasks/${running.id}`)).status).toBe("Completed");
  // Started again with the same flags it goes on with what it has.
  await restored.kill();
  restored.output = "";
  await restored.start();
  expect((await restored.json<TaskJson>(`/api/tasks/${running.id}`)).status).toBe("Completed");
}

/** Begins a cluster of three: the others start with empty folders and are added. */
async function beginsAClusterOfThree({
  file,
  before,
  old,
  oldView,
  member,
}: Backup): Promise<void> {
  const ports = freePorts(3);
  const peers = ports.map((port, i) => `n${i + 1}=http://127.0.0.1:${port}`).join(",");
  const members = ports.map((port, i) =>
    member(`n${i + 1}`, port, "--peers", peers, ...(i === 1 ? ["--restore", file] : [])),
  );
  await Promise.all(members.map((one) => one.start()));
  const second = members[1];
  if (second === undefined) throw new Error("no second member");
  await eventually(
    "three voters",
    async () => {
      const view = await second.json<ClusterView>("/api/cluster").catch(() => null);
      return view?.members.filter(({ voter }) => voter).length === 3;
    },
    40_000,
  );
  for (const one of members) expect(await tasksOf(one)).toBe(before);
  const [a, b] = await Promise.all(
    members.slice(0, 2).map((one) => one.post<TaskJson>("/api/tasks", { name: "new" })),
  );
  expect(a?.id).not.toBe(b?.id);

  // A member of the old cluster under one of those names is none of the new one's.
  const stranger = old.member(2);
  await stranger.kill();
  const theirs = peers.replace(`:${ports[2]}`, `:${stranger.port}`);
  const at = stranger.args.indexOf("--peers") + 1;
  const strange = new Member("n3", stranger.port, stranger.args.with(at, theirs));
  await members[2]?.kill();
  try {
    await strange.start();
    await eventually("the refusal", async () => strange.output.includes("belongs to cluster"));
    const { cluster_id } = await strange.json<ClusterView>("/api/cluster?consistency=stale");
    expect(cluster_id).toBe(oldView.cluster_id);
  } finally {
    await strange.kill();
  }
}

/** That is damaged is refused with one sentence, and leaves an empty folder empty. */
async function isRefusedWhenDamaged({ folder, file }: Backup): Promise<void> {
  const bytes = Buffer.from(await Bun.file(file).bytes());
  bytes[bytes.length - 2_000] = (bytes[bytes.length - 2_000] ?? 0) ^ 1;
  const damaged = join(folder, "damaged.backup");
  writeFileSync(damaged, bytes);
  const data = join(folder, "empty");
  mkdirSync(data);
  const { code, out, err } = await endOf(["--port", "0", "--data", data, "--restore", damaged]);
  expect({ code, out }).toEqual({ code: 2, out: "" });
  expect(err).toContain("is damaged");
  expect(readdirSync(data).filter((name) => !name.startsWith("lock.db"))).toEqual([]);
}

/** Is never restored over a member's files. */
async function neverGoesOverFiles({ folder, file }: Backup): Promise<void> {
  const data = join(folder, "used");
  const [port = 0] = freePorts(1);
  const used = new Member("n1", port, [
    "--port",
    String(port),
    "--data",
    data,
    "--concurrency",
    "0",
  ]);
  await used.start();
  await used.kill();
  const { code, err } = await endOf(["--port", "0", "--data", data, "--restore", file]);
  expect(code).toBe(2);
  expect(err).toContain("--restore needs an empty data folder");
  // Somebody else's file: nothing is made beside it.
  const foreign = join(folder, "foreign");
  mkdirSync(foreign);
  writeFileSync(join(foreign, "notes.txt"), "");
  const refused = await endOf(["--port", "0", "--data", foreign, "--restore", file]);
  expect([refused.code, refused.err]).toEqual([
    2,
    expect.stringContaining("holds notes.txt") as string,
  ]);
  expect(readdirSync(foreign)).toEqual(["notes.txt"]);
}

/** Is one at a time at a member, and a client that goes away ends it. */
async function isOneAtATime({ old }: Backup): Promise<void> {
  const at = old.member(0);
  const first = await at.fetch("/api/cluster/backup");
  expect(first.status).toBe(200);
  const second = await at.fetch("/api/cluster/backup");
  expect([200, 429]).toContain(second.status);
  await second.body?.cancel();
  await first.body?.cancel();
  await eventually("another one", async () => {
    const third = await at.fetch("/api/cluster/backup");
    await third.arrayBuffer();
    return third.status === 200;
  });
  const copies = (): string[] =>
    readdirSync(join(old.folder, "n1")).filter((name) => name.startsWith("snapshot-"));
  await eventually("no copy left", async () => copies().length === 0);
}
