/** A majority is gone for good: the survivor goes on as a cluster of its own, and nobody else does. */
import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import {
  type ClusterView,
  eventually,
  Member,
  type RealCluster,
  type TaskJson,
} from "./harness.ts";
import { scenario, withCluster } from "./scenario.ts";

const ROOT = join(import.meta.dir, "..", "..");
const QUIET = ["--concurrency", "0", "--log-format", "json", "--secret", "a secret of the members"];

async function rescue(...args: string[]): Promise<{ code: number; said: string }> {
  const child = Bun.spawn(["bun", "run", "src/rescue.ts", ...args], {
    cwd: ROOT,
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, said: out + err };
}

interface Rescued {
  readonly survivor: Member;
  readonly lost: readonly Member[];
}

/** The same member without `--peers`. */
function alone(
  cluster: RealCluster,
  { id, port, args }: Member,
  ...more: readonly string[]
): Member {
  const at = args.indexOf("--peers");
  const member = new Member(id, port, [...args.slice(0, at), ...args.slice(at + 2), ...more]);
  cluster.members.push(member);
  return member;
}

/** Its folder becomes a cluster of its own, once nobody else can go on. */
async function rescueOne(cluster: RealCluster): Promise<Rescued> {
  const leader = await cluster.leader();
  const [follower] = await cluster.followers();
  if (follower === undefined) throw new Error("no follower");
  const survivor = follower;
  const lost = cluster.members.filter((member) => member !== survivor);
  const before = await leader.json<ClusterView>("/api/cluster");
  const abandon = before.cluster_id ?? "";
  const ids: string[] = [];
  for (let n = 0; n < 30; n++)
    ids.push((await leader.post<TaskJson>("/api/tasks", { name: "echo" })).id);
  await eventually("the survivor to have it all", async () => {
    const { applied_index } = await survivor.json<ClusterView>("/api/cluster?consistency=stale");
    return applied_index >= before.commit_index + 30;
  });
  const data = join(cluster.folder, survivor.id);
  const go = ["go", "--data", data, "--abandon", abandon];

  // Its process runs; then the others live; then the wrong cluster is named.
  const inUse = await rescue(...go);
  expect([inUse.code, inUse.said.includes("in use")]).toEqual([2, true]);
  await survivor.kill();
  const alive = await rescue(...go);
  expect([alive.code, alive.said.includes("is in touch with a leader")]).toEqual([2, true]);
  for (const member of lost) await member.kill();
  const other = await rescue("go", "--data", data, "--abandon", "another");
  expect([other.code, other.said.includes(`--abandon ${abandon}`)]).toEqual([2, true]);

  const looked = await rescue("look", ...cluster.members.map(({ id }) => join(cluster.folder, id)));
  expect(looked.code).toBe(0);
  const missing = await rescue("look", data, join(cluster.folder, "n9"));
  expect([missing.code, missing.said.includes("n9 is no data folder")]).toEqual([2, true]);
  expect(existsSync(join(cluster.folder, "n9"))).toBe(false);
  for (const { id } of cluster.members)
    expect(looked.said).toContain(`${id} of cluster ${abandon}`);

  const done = await rescue(...go);
  expect([done.code, done.said.includes("only member of the new cluster")]).toEqual([0, true]);
  expect(done.said).toContain(`giving up cluster ${abandon}`);
  return { survivor, lost };
}

/** It goes on with all that it had, far beyond the old indexes and fences, and grows again. */
async function goOn(cluster: RealCluster, { survivor, lost }: Rescued): Promise<void> {
  const one = alone(cluster, survivor);
  await one.start();
  await eventually("it to lead", async () => (await one.fetch("/health/ready")).ok);
  const view = await one.json<ClusterView>("/api/cluster");
  expect(view.members.map(({ id }) => id)).toEqual([survivor.id]);
  expect((await one.json<TaskJson[]>("/api/tasks?limit=1000")).length).toBe(30);
  const fresh = await one.post<TaskJson>("/api/tasks", { name: "echo" });
  expect(fresh.version).toBeGreaterThan(1_000_000_000);
  const { tasks } = await one.post<{ tasks: { lease: { fence: number } }[] }>("/api/leases/claim", {
    worker_id: "w",
    names: ["echo"],
    max: 1,
    wait_ms: 20_000,
  });
  expect(tasks[0]?.lease.fence).toBeGreaterThan(1_000_000_000);

  // A member of the old cluster is refused, with its folder; with an empty one it joins, by a snapshot.
  const [old] = lost;
  if (old === undefined) throw new Error("nobody was lost");
  const back = alone(cluster, old, "--join", one.url);
  await back.start().catch(() => undefined);
  expect(await back.process?.exited).toBe(2);
  expect(back.output).toContain("was used in cluster");
  await rm(join(cluster.folder, old.id), { recursive: true });
  await back.start();
  await eventually("the new member to have caught up", async () => {
    const { members } = await one.json<ClusterView>("/api/cluster");
    return members.find(({ id }) => id === back.id)?.waiting?.includes("second learner") === true;
  });
  expect((await back.json<TaskJson>(`/api/tasks/${fresh.id}`)).id).toBe(fresh.id);
}

scenario(
  "a survivor's folder becomes a cluster of its own once nobody else can go on, goes on with all that it had, and grows again",
  () => withCluster({ args: QUIET }, async (cluster) => goOn(cluster, await rescueOne(cluster))),
);
