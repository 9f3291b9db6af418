/** Real members come and go: 1 → 3 → 5 → 3, a replacement, a wiped folder, a removed one, and what joins nothing. */
import { expect } from "bun:test";
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

const SECRET = ["--secret", "a secret of the members"];
const QUIET = ["--concurrency", "0", "--log-format", "json"];

function voters({ members }: ClusterView): string {
  return members
    .filter(({ voter }) => voter)
    .map(({ id }) => id)
    .join(" ");
}

function votersAre(member: Member, ids: string): Promise<ClusterView> {
  return eventually(`${ids} as voters`, async () => {
    const view = await member.json<ClusterView>("/api/cluster").catch(() => null);
    return view !== null && voters(view) === ids ? view : null;
  });
}

/** Ends by itself, with this code; what it said. */
async function refused(member: Member): Promise<{ code: number; said: string }> {
  await member.start().catch(() => undefined);
  const code = await (member.process?.exited ?? Promise.resolve(-1));
  member.process = null;
  return { code, said: member.output };
}

async function healthReason(member: Member): Promise<string> {
  const response = await member.fetch("/health");
  const { reason } = (await response.json()) as { reason?: string };
  return response.status === 503 ? (reason ?? "") : "";
}

async function submit(member: Member): Promise<string> {
  return (await member.post<TaskJson>("/api/tasks", { name: "echo", payload: 1 })).id;
}

scenario(
  "a cluster grows from one member, which moved, to three and five, shrinks, takes a removed id again, and has every task once",
  () =>
    withCluster({ size: 1, args: QUIET }, async (cluster) => {
      const ids: string[] = [];
      await theFirstOneMoves(cluster);
      await oneBecomesThree(cluster, ids);
      await threeBecomeFiveAndThreeAgain(cluster, ids);
      await aRemovedIdComesBack(cluster, ids);
      const leader = await cluster.leader();
      const tasks = await leader.json<TaskJson[]>("/api/tasks?limit=1000");
      expect(tasks.map(({ id }) => id).toSorted()).toEqual(ids.toSorted());
    }),
);

async function addressOf(member: Member, id: string): Promise<string | undefined> {
  const { members } = await member.json<ClusterView>("/api/cluster");
  return members.find((each) => each.id === id)?.url;
}

/** As a trial becomes a cluster: it is stopped, and started with a secret at another port. */
async function theFirstOneMoves(cluster: RealCluster): Promise<void> {
  const before = cluster.member(0);
  await before.kill("SIGTERM");
  const n1 = cluster.move(before, SECRET);
  await n1.start();
  await eventually("its new address", async () => (await addressOf(n1, "n1")) === n1.url);
  const wrong = await n1.fetch("/api/cluster/members", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ id: "n1", url: before.url }),
  });
  const { code } = (await wrong.json()) as { code: string };
  expect([wrong.status, code]).toEqual([409, "address-differs"]);
}

/** Both new ones at once. */
async function oneBecomesThree(cluster: RealCluster, ids: string[]): Promise<void> {
  const n1 = cluster.member(0);
  for (let n = 0; n < 20; n++) ids.push(await submit(n1));
  const n2 = cluster.add("n2", n1, [...SECRET, ...QUIET]);
  await n2.start();
  const alone = await eventually("the learner to have caught up", async () => {
    const { members } = await n1.json<ClusterView>("/api/cluster");
    const learner = members.find(({ id }) => id === "n2");
    return learner?.waiting?.includes("second learner") === true ? learner : null;
  });
  expect([alone.role, alone.voter]).toEqual(["learner", false]);
  const n3 = cluster.add("n3", n2, [...SECRET, ...QUIET]);
  await n3.start();
  await votersAre(n3, "n1 n2 n3");
  // All of it is there.
  const task = await n3.json<TaskJson>(`/api/tasks/${ids[0]}`);
  expect(task.status).toBe("Pending");
  ids.push(await submit(n3));
}

/** Without the leader and another one. */
async function threeBecomeFiveAndThreeAgain(cluster: RealCluster, ids: string[]): Promise<void> {
  for (const id of ["n4", "n5"]) {
    const member = cluster.add(id, cluster.member(1), [...SECRET, ...QUIET]);
    await member.start();
  }
  const n5 = cluster.member(4);
  await votersAre(n5, "n1 n2 n3 n4 n5");
  const leader = await cluster.leader();
  const gone = leader === cluster.member(1) ? cluster.member(0) : leader;
  const other = cluster.member(1);
  for (const member of [leader, gone === leader ? other : gone]) {
    const asked = await n5.fetch(`/api/cluster/members/${member.id}`, { method: "DELETE" });
    if (member === n5) expect([204, 503]).toContain(asked.status);
    else expect(asked.status).toBe(204);
    await eventually(`${member.id} to say that it was removed`, async () =>
      (await healthReason(member)).includes("was removed from cluster"),
    );
    const late = await member.fetch("/api/tasks?consistency=stale");
    expect([late.status, ((await late.json()) as { code: string }).code]).toEqual([503, "removed"]);
    await member.kill("SIGTERM");
  }
  const rest = cluster.members.find(({ process }) => process !== null);
  if (rest === undefined) throw new Error("nobody is left");
  const view = await eventually("three voters", async () => {
    const now = await rest.json<ClusterView>("/api/cluster");
    return voters(now).split(" ").length === 3 && now.members.length === 3 ? now : null;
  });
  expect(view.members.every(({ voter }) => voter)).toBe(true);
  ids.push(await submit(rest));
}

/** The folder of a removed member is refused, and its id comes back with an empty one. */
async function aRemovedIdComesBack(cluster: RealCluster, ids: string[]): Promise<void> {
  const removed = cluster.members.find(({ process }) => process === null);
  if (removed === undefined) throw new Error("nobody was removed");
  const alive = cluster.members.find(({ process }) => process !== null);
  if (alive === undefined) throw new Error("nobody is left");
  const at = removed.args.indexOf("--join");
  const args = at < 0 ? removed.args : removed.args.toSpliced(at, 2);
  Object.assign(removed, { args });
  await removed.start();
  await eventually("it to say that it was removed", async () =>
    (await healthReason(removed)).includes("was removed from cluster"),
  );
  const late = await removed.fetch("/api/tasks?consistency=stale");
  expect([late.status, ((await late.json()) as { code: string }).code]).toEqual([503, "removed"]);
  await removed.kill();
  Object.assign(removed, { args: [...args, "--join", alive.url] });
  const { code, said } = await refused(removed);
  expect([code, said]).toEqual([2, expect.stringContaining("was removed from cluster") as string]);
  await rm(join(cluster.folder, removed.id), { recursive: true });
  const again = cluster.add(removed.id, alive, [...SECRET, ...QUIET]);
  await again.start();
  const view = await eventually("it to be a learner that waits", async () => {
    const now = await alive.json<ClusterView>("/api/cluster");
    return now.members.find(({ id }) => id === again.id)?.waiting?.includes("even") === true
      ? now
      : null;
  });
  expect(voters(view).split(" ")).toHaveLength(3);
  // It asks the queue for things under its old name, with the starts of its folder counted from one again.
  ids.push(await submit(again));
}

scenario(
  "members move though --peers stays as it was; a dead one is replaced in one change, its id and folder refused meanwhile",
  () =>
    withCluster({ args: QUIET }, async (cluster) => {
      await twoMove(cluster);
      const leader = await cluster.leader();
      const dead = (await cluster.followers())[0];
      if (dead === undefined) throw new Error("no follower");
      await dead.kill();
      await rm(join(cluster.folder, dead.id), { recursive: true });
      // The id of a member with an empty folder.
      const twin = cluster.add(dead.id, leader, QUIET);
      const { code, said } = await refused(twin);
      expect(code).toBe(2);
      expect(said).toContain(`DELETE /api/cluster/members/${dead.id}`);
      await leader.post("/api/cluster/members", {
        id: "n4",
        url: "http://127.0.0.1:1",
        replaces: dead.id,
      });
      const n4 = cluster.add("n4", leader, QUIET);
      await n4.start();
      const ids = cluster.members.filter(({ process }) => process !== null).map(({ id }) => id);
      const view = await votersAre(leader, ids.toSorted().join(" "));
      expect(view.members.map(({ id }) => id)).not.toContain(dead.id);
      expect(view.members.find(({ id }) => id === "n4")?.url).toBe(n4.url);
      await submit(n4);
      await leadershipIsHandedOver(cluster);
    }),
);

/** A follower, then the leader: the third one and each other have both at their old addresses in --peers. */
async function twoMove(cluster: RealCluster): Promise<void> {
  const [follower] = await cluster.followers();
  if (follower === undefined) throw new Error("no follower");
  for (const member of [follower, await cluster.leader()]) {
    await member.kill("SIGTERM");
    const moved = cluster.move(member);
    await moved.start();
    await eventually(`${moved.id} at its new address, in touch with all`, async () => {
      const leader = await cluster.leader();
      const { members } = await leader.json<ClusterView>("/api/cluster");
      const there = members.find(({ id }) => id === moved.id);
      return (
        there?.url === moved.url && members.every(({ lag, reachable }) => reachable && lag === 0)
      );
    });
    await submit(moved);
  }
}

/** To whom it is handed; nothing is lost of what is written meanwhile. */
async function leadershipIsHandedOver(cluster: RealCluster): Promise<void> {
  const leader = await cluster.leader();
  const target = (await cluster.followers())[0];
  if (target === undefined) throw new Error("no follower");
  const writes = Array.from({ length: 50 }, async (_, n) => {
    await Bun.sleep(n * 2);
    return submit(n % 2 === 0 ? leader : target);
  });
  const handed = await target.post("/api/cluster/transfer", { to: target.id });
  expect(handed).toEqual({ leader_id: target.id });
  expect(new Set(await Promise.all(writes)).size).toBe(50);
  expect((await target.json<ClusterView>("/api/cluster")).role).toBe("leader");
  const stranger = await leader.fetch("/api/cluster/transfer", {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": "k" },
    body: JSON.stringify({ to: "n9" }),
  });
  expect(stranger.status).toBe(404);
}

scenario("what joins nothing says so and ends with 2", () =>
  withCluster({ size: 1, args: QUIET }, async (alone) => {
    const closed = await refused(alone.add("n7", alone.member(0), QUIET));
    expect(closed.code).toBe(2);
    expect(closed.said).toContain("refuses members");
    const sameId = await refused(alone.add("n1", alone.member(0), QUIET));
    expect(sameId.code).toBe(2);
    await joinedHalfWay(alone);
    // A folder that founded a cluster of its own.
    await alone.member(0).kill();
    const used = alone.member(0);
    await withCluster({ size: 1, args: [...SECRET, ...QUIET] }, async (other) => {
      const leader = other.member(0);
      const stranger = other.add("n8", leader, ["--secret", "a secret of strangers", ...QUIET]);
      await stranger.start();
      await eventually("an error that says what to do", async () =>
        stranger.output
          .split("\n")
          .some((line) => /"error"/.test(line) && /not joined.*the same --secret/.test(line)),
      );
      const joins = await refused(
        Object.assign(alone.add("n1", leader, QUIET), {
          args: [...used.args, "--join", leader.url],
        }),
      );
      expect(joins.code).toBe(2);
      expect(joins.said).toContain("was used");
    });
  }),
);

/** Without a secret, and killed before it knows that it is a member: from then on it needs no --join. */
async function joinedHalfWay(cluster: RealCluster): Promise<void> {
  const n1 = cluster.member(0);
  const payload = "x".repeat(250_000);
  const tasks = Array.from({ length: 24 }, () => n1.post("/api/tasks", { name: "echo", payload }));
  await Promise.all(tasks);
  await n1.post("/api/cluster/members", { id: "n2", url: "http://127.0.0.1:1" });
  const joining = cluster.add("n2", n1, QUIET);
  await joining.start();
  await eventually("entry 1", async () => joining.output.includes("joined the cluster"));
  await joining.kill();
  const again = cluster.move(joining);
  const at = again.args.indexOf("--join");
  const n2 = new Member("n2", again.port, again.args.toSpliced(at, 2));
  cluster.members[cluster.members.indexOf(again)] = n2;
  await n2.start();
  await eventually("it to catch up", async () => {
    const { members } = await n1.json<ClusterView>("/api/cluster");
    return members.find(({ id }) => id === "n2")?.waiting?.includes("second learner") === true;
  });
}
