/** Members come and go, in virtual time: 1 → 3 → 5 → 3, replacement, removal of the leader, old folders. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { memberViews } from "../../src/queue/cluster-view.ts";
import { decodeConfigurationEntry } from "../../src/raft/configuration.ts";
import { asIndex, asNodeId, asTerm, type NodeId } from "../../src/raft/types.ts";
import { CallError, ConsensusError } from "../../src/replica/consensus.ts";
import { decodeEntry } from "../../src/replica/envelope.ts";
import { Cluster, type Node, commandOf } from "./cluster.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

interface Outcome {
  settled: boolean;
  error: string | null;
}

function ask(node: Node, method: string, body: unknown, timeoutMs = 8_000): Outcome {
  const state: Outcome = { settled: false, error: null };
  if (node.replica === null) throw new Error(`${node.id} is down`);
  node.replica.call(method, body, timeoutMs).then(
    () => Object.assign(state, { settled: true }),
    (error: unknown) =>
      Object.assign(state, {
        settled: true,
        error:
          error instanceof CallError || error instanceof ConsensusError
            ? error.reason
            : String(error),
      }),
  );
  return state;
}

async function done(cluster: Cluster, outcome: Outcome): Promise<string | null> {
  await cluster.run(10_000, () => outcome.settled);
  expect(outcome.settled).toBe(true);
  return outcome.error;
}

async function write(cluster: Cluster, node: Node, n: number): Promise<void> {
  const state = { settled: false };
  node.replica?.submit(commandOf({ n }), { timeoutMs: 5_000 }).then(
    () => Object.assign(state, { settled: true }),
    (error: unknown) => expect(error).toBeNull(),
  );
  await cluster.run(6_000, () => state.settled);
  expect(state.settled).toBe(true);
}

function leaderOf(cluster: Cluster): Node {
  const leader = cluster.leader();
  if (leader === null) throw new Error("no leader");
  return leader;
}

function voters(cluster: Cluster): readonly NodeId[] {
  return cluster.leader()?.replica?.status().configuration.voters ?? [];
}

/** And every member that runs knows it. */
async function votersAre(cluster: Cluster, ...ids: string[]): Promise<boolean> {
  const reached = await cluster.run(15_000, () => {
    const { outgoing } = cluster.leader()?.replica?.status().configuration ?? { outgoing: [""] };
    return outgoing.length === 0 && voters(cluster).join() === ids.join();
  });
  await cluster.run(500);
  return reached;
}

/** How many commands of this member stand behind the configuration without it; -1: there is none. */
function loggedBehindItsRemoval({ disk }: Node, id: NodeId): number {
  const without = disk.entries.findLastIndex(
    (entry) => entry.kind === "config" && decodeConfigurationEntry(entry).members[id] === undefined,
  );
  if (without < 0) return -1;
  const behind = disk.entries.slice(without).flatMap((entry) => decodeEntry(entry).requests);
  return behind.filter(({ member }) => member === id).length;
}

async function join(cluster: Cluster, id: string, through: Node): Promise<Node> {
  const node = cluster.add(id);
  await cluster.start(node, through);
  return node;
}

describe("joining", () => {
  test("one member grows to three: the first learner waits for the second, and both become voters at once", async () => {
    const cluster = new Cluster(11, 1);
    await cluster.startAll();
    const n1 = cluster.node(0);
    for (let n = 1; n <= 100; n++) await write(cluster, n1, n);
    const n2 = await join(cluster, "n2", n1);
    await cluster.run(5_000, () => n2.machine.trace.length === 100);
    await cluster.run(2_000);
    const { configuration, learners } = n1.replica?.status() ?? {};
    expect(configuration?.learners).toEqual(["n2"] as NodeId[]);
    expect(learners?.get("n2" as NodeId)).toContain("waits for a second learner");
    const n3 = await join(cluster, "n3", n1);
    expect(await votersAre(cluster, "n1", "n2", "n3")).toBe(true);
    expect(n1.replica?.status().learners.size).toBe(0);
    // Both count now: without the first member they go on.
    cluster.kill(n1);
    await cluster.run(5_000, () => cluster.leader() !== null);
    await write(cluster, leaderOf(cluster), 101);
    expect(n2.machine.trace.length + n3.machine.trace.length).toBeGreaterThanOrEqual(201);
    cluster.check();
  });

  test("three grow to five and shrink to three again, under writes", async () => {
    const cluster = new Cluster(12, 3);
    await cluster.startAll();
    const n1 = cluster.node(0);
    await join(cluster, "n4", cluster.node(2));
    await write(cluster, n1, 1);
    await join(cluster, "n5", cluster.node(1));
    expect(await votersAre(cluster, "n1", "n2", "n3", "n4", "n5")).toBe(true);
    await write(cluster, n1, 2);
    for (const id of ["n2", "n3"]) {
      expect(await done(cluster, ask(cluster.node(4), "members.remove", { id }))).toBeNull();
      await write(cluster, cluster.node(4), 3);
    }
    expect(await votersAre(cluster, "n1", "n4", "n5")).toBe(true);
    await cluster.run(3_000);
    for (const i of [1, 2]) {
      const status = cluster.node(i).replica?.status();
      expect(status?.retired).toBe(true);
      expect(status?.waiting).toContain("was removed from cluster");
      expect(status?.role).toBe("follower");
    }
    cluster.check();
  });

  test("a member that an operator added first is a learner without a folder until it comes", async () => {
    const cluster = new Cluster(13, 3);
    await cluster.startAll();
    const body = { id: "n4", url: "http://n4", voter: true };
    expect(await done(cluster, ask(cluster.node(1), "members.add", body))).toBeNull();
    await cluster.run(500);
    const waiting = leaderOf(cluster)
      .replica?.status()
      .learners.get("n4" as NodeId);
    expect(waiting).toContain("empty data folder");
    await join(cluster, "n4", cluster.node(2));
    expect(await votersAre(cluster, "n1", "n2", "n3", "n4")).toBe(true);
    // Asking for what is so already changes nothing.
    const last = leaderOf(cluster).replica?.status().lastIndex;
    const again = { id: "n4", url: "http://n4" };
    expect(await done(cluster, ask(cluster.node(0), "members.add", again))).toBeNull();
    expect(leaderOf(cluster).replica?.status().lastIndex).toBe(last);
  });

  test("a learner whose beginning of the log is gone joins through a snapshot", async () => {
    const cluster = new Cluster(18, 3);
    await cluster.startAll();
    for (let n = 1; n <= 50; n++) await write(cluster, cluster.node(0), n);
    await cluster.run(500);
    for (const node of cluster.nodes) expect(await cluster.compact(node)).toBeGreaterThan(40);
    const n4 = await join(cluster, "n4", cluster.node(1));
    await join(cluster, "n5", cluster.node(2));
    expect(await votersAre(cluster, "n1", "n2", "n3", "n4", "n5")).toBe(true);
    expect(n4.replica?.counters.snapshotsInstalled).toBe(1);
    await write(cluster, n4, 51);
    expect(n4.machine.trace.length).toBe(51);
    // And starts again on what it was given.
    cluster.kill(n4);
    await cluster.start(n4);
    await cluster.run(1_000);
    await write(cluster, n4, 52);
    cluster.check();
  });

  test("the id of a member is refused to another folder, at once and with a word", async () => {
    const cluster = new Cluster(14, 3);
    await cluster.startAll();
    const twin = cluster.nodes.find((node) => node !== cluster.leader());
    if (twin === undefined) throw new Error("no follower");
    cluster.kill(twin);
    cluster.wipe(twin);
    await cluster.start(twin, leaderOf(cluster));
    await cluster.run(5_000, () => twin.joinRefused !== undefined);
    expect(twin.joinRefused).toContain("another data folder");
    expect(twin.disk.entries.length).toBe(0);
  });

  test("… and told so where nobody leads who could say it for good", async () => {
    const cluster = new Cluster(38, 2);
    await cluster.startAll();
    const twin = cluster.nodes.find((node) => node !== cluster.leader());
    if (twin === undefined) throw new Error("no follower");
    const other = leaderOf(cluster);
    cluster.kill(twin);
    cluster.wipe(twin);
    expect(await cluster.run(5_000, () => cluster.leader() === null)).toBe(true);
    await cluster.start(twin, other);
    await cluster.run(3_000);
    expect(twin.joinRefused).toBeUndefined();
    expect(twin.replica?.status().waiting).toContain("another data folder");
  });

  test("an empty folder is not refused for good by a member that has not heard of the removal yet", async () => {
    const cluster = new Cluster(37, 5);
    await cluster.startAll();
    const leader = leaderOf(cluster);
    const [seed, gone, ...others] = cluster.nodes.filter((node) => node !== leader);
    if (seed === undefined || gone === undefined) throw new Error("too few");
    cluster.kill(gone);
    const cut = (isCut: boolean): void => {
      for (const { id } of [leader, ...others]) {
        cluster.network.setCut(seed.id, id, isCut);
        cluster.network.setCut(id, seed.id, isCut);
      }
    };
    cut(true);
    expect(await done(cluster, ask(leader, "members.remove", { id: gone.id }))).toBeNull();
    cluster.wipe(gone);
    await cluster.start(gone, seed);
    await cluster.run(3_000);
    expect(gone.joinRefused).toBeUndefined();
    cut(false);
    const folder = (): string | undefined =>
      leaderOf(cluster).replica?.status().configuration.members[gone.id]?.incarnation;
    expect(await cluster.run(20_000, () => folder() === gone.disk.incarnation)).toBe(true);
    cluster.check();
  });

  test("a wiped member comes back once it was removed, without another flag", async () => {
    const cluster = new Cluster(15, 3);
    await cluster.startAll();
    await write(cluster, cluster.node(0), 1);
    const victim = cluster.nodes.find((node) => node !== cluster.leader());
    if (victim === undefined) throw new Error("no follower");
    cluster.kill(victim);
    cluster.wipe(victim);
    await cluster.start(victim);
    await cluster.run(2_000);
    expect(victim.replica?.status().waiting).toContain("another data folder");
    const { id } = victim;
    const leader = leaderOf(cluster);
    expect(await done(cluster, ask(leader, "members.remove", { id }))).toBeNull();
    const url = `http://${id}`;
    expect(await done(cluster, ask(leader, "members.add", { id, url }))).toBeNull();
    expect(await votersAre(cluster, "n1", "n2", "n3")).toBe(true);
    await write(cluster, victim, 2);
    expect(victim.machine.trace.length).toBe(2);
    cluster.check();
  });

  test("who comes back under its id is not answered for what its earlier folder asked", async () => {
    const cluster = new Cluster(19, 3);
    await cluster.startAll();
    const victim = cluster.nodes.find((node) => node !== cluster.leader());
    if (victim === undefined) throw new Error("no follower");
    for (let n = 1; n <= 3; n++) await write(cluster, victim, n);
    cluster.kill(victim);
    const { id } = victim;
    expect(await done(cluster, ask(leaderOf(cluster), "members.remove", { id }))).toBeNull();
    cluster.wipe(victim);
    await cluster.start(victim, leaderOf(cluster));
    // Its first request, in its first start: as was the one that its empty log is told of first.
    let answer: unknown = null;
    victim.replica?.submit(commandOf({ n: 4 }), { timeoutMs: 8_000 }).then(
      (given) => (answer = given),
      (error: unknown) => (answer = error),
    );
    await cluster.run(9_000, () => answer !== null);
    expect(answer).toBe(4);
    cluster.check();
  });

  test("what the earlier folder of an id still had on its way is no promise of the new one", async () => {
    const cluster = new Cluster(20, 3);
    await cluster.startAll();
    for (let n = 1; n <= 5; n++) await write(cluster, cluster.node(0), n);
    const leader = leaderOf(cluster);
    const victim = cluster.nodes.find((node) => node !== leader);
    if (victim === undefined) throw new Error("no follower");
    const { id } = victim;
    const earlier = victim.disk.incarnation;
    const match = asIndex(victim.disk.entries.length);
    cluster.kill(victim);
    expect(await done(cluster, ask(leader, "members.remove", { id }))).toBeNull();
    cluster.wipe(victim);
    await cluster.start(victim, leader);
    await cluster.run(
      5_000,
      () => leader.replica?.status().configuration.members[id] !== undefined,
    );
    const { term } = leaderOf(cluster).replica?.status() ?? { term: asTerm(0) };
    const message = {
      type: "append-reply",
      from: id,
      to: leader.id,
      term,
      prevIndex: match,
      match,
      hint: null,
    } as const;
    cluster.network.endpoint(leader.id)?.events.frame(id, { kind: "raft", message }, earlier);
    const known = leader.replica?.status().peers.find((peer) => peer.id === id);
    expect(known?.match).toBe(asIndex(0));
    expect(await votersAre(cluster, "n1", "n2", "n3")).toBe(true);
    expect(victim.fatal).toBeNull();
    cluster.check();
  });

  test("a removed folder whose id is added again, while its process runs, is not that member", async () => {
    const cluster = new Cluster(22, 3);
    await cluster.startAll();
    const leader = leaderOf(cluster);
    const victim = cluster.nodes.find((node) => node !== leader);
    if (victim === undefined) throw new Error("no follower");
    for (let n = 1; n <= 5; n++) await write(cluster, victim, n);
    const { id } = victim;
    const command = victim.replica?.submit(commandOf({ n: 6 }), { timeoutMs: 8_000 });
    command?.catch(() => undefined);
    expect(await done(cluster, ask(leader, "members.remove", { id }))).toBeNull();
    const url = `http://${id}`;
    expect(await done(cluster, ask(leader, "members.add", { id, url }))).toBeNull();
    await cluster.run(3_000);
    const { configuration, peers } = leader.replica?.status() ?? {};
    expect(configuration?.members[id]?.incarnation).toBe("");
    expect(peers?.find((peer) => peer.id === id)?.match).toBe(asIndex(0));
    cluster.kill(victim);
    cluster.wipe(victim);
    await cluster.start(victim, leader);
    let answer: unknown = null;
    victim.replica?.submit(commandOf({ n: 7 }), { timeoutMs: 8_000 }).then(
      (given) => (answer = given),
      (error: unknown) => (answer = error),
    );
    await cluster.run(9_000, () => answer !== null);
    expect(answer).toBe(7);
    expect(await votersAre(cluster, "n1", "n2", "n3")).toBe(true);
    expect(victim.fatal).toBeNull();
    cluster.check();
  });

  test("the first member of a cluster that grew does not found another one when its folder is wiped", async () => {
    const cluster = new Cluster(16, 1);
    await cluster.startAll();
    const n1 = cluster.node(0);
    await write(cluster, n1, 1);
    const n2 = await join(cluster, "n2", n1);
    await join(cluster, "n3", n1);
    expect(await votersAre(cluster, "n1", "n2", "n3")).toBe(true);
    cluster.kill(n1);
    cluster.wipe(n1);
    await cluster.run(5_000, () => cluster.leader() !== null);
    const leader = leaderOf(cluster);
    expect(await done(cluster, ask(leader, "members.remove", { id: "n1" }))).toBeNull();
    await cluster.start(n1, n2);
    expect(await votersAre(cluster, "n1", "n2", "n3")).toBe(true);
    await write(cluster, n1, 2);
    cluster.check();
  });

  test("an old copy of a folder is refused for good", async () => {
    const cluster = new Cluster(17, 3);
    await cluster.startAll();
    const victim = cluster.nodes.find((node) => node !== cluster.leader());
    if (victim === undefined) throw new Error("no follower");
    await write(cluster, leaderOf(cluster), 1);
    await cluster.run(1_500);
    const copy = structuredClone({
      entries: victim.disk.entries,
      hardState: victim.disk.hardState,
    });
    for (let n = 2; n < 20; n++) await write(cluster, leaderOf(cluster), n);
    await cluster.run(1_500);
    cluster.kill(victim);
    Object.assign(victim.disk, copy);
    await cluster.start(victim);
    await cluster.run(3_000);
    expect(victim.replica?.status().waiting).toContain("older copy");
    // The follower that never led refuses it too.
    const other = cluster.nodes.find((node) => node !== victim && node !== cluster.leader());
    if (other === undefined) throw new Error("no other follower");
    const leader = leaderOf(cluster);
    cluster.kill(leader);
    await cluster.run(3_000);
    expect(cluster.leader()).toBeNull();
    await cluster.start(leader);
    await cluster.run(3_000);
    await write(cluster, leaderOf(cluster), 20);
  });

  test("an old copy that has forgotten no more than a start is not answered for what that one had asked", async () => {
    const cluster = new Cluster(19, 3);
    await cluster.startAll();
    const victim = cluster.nodes.find((node) => node !== cluster.leader());
    if (victim === undefined) throw new Error("no follower");
    await cluster.run(1_500);
    cluster.kill(victim);
    const { boot } = victim.disk;
    await cluster.start(victim);
    for (let n = 1; n <= 3; n++) await write(cluster, victim, n);
    cluster.kill(victim);
    // As long as the folder before: of what is lost, nothing shows but the start.
    victim.disk.boot = boot;
    await cluster.start(victim);
    await cluster.run(2_000);
    expect(victim.replica?.status().waiting).toContain("older copy");
    // Its number is a new one now.
    cluster.kill(victim);
    await cluster.start(victim);
    await cluster.run(1_000);
    await write(cluster, victim, 4);
    expect(victim.machine.trace).toHaveLength(4);
    cluster.check();
  });

  test("an old copy that is put back while all members are stopped is refused too", async () => {
    const cluster = new Cluster(19, 3);
    await cluster.startAll();
    await write(cluster, cluster.node(0), 1);
    const victim = cluster.node(2);
    const { entries, hardState } = victim.disk;
    const copy = structuredClone({ entries, hardState });
    for (let n = 2; n < 20; n++) await write(cluster, cluster.node(0), n);
    // What was seen is kept every half minute.
    await cluster.run(40_000);
    for (const node of cluster.nodes) cluster.kill(node);
    Object.assign(victim.disk, copy);
    for (const node of cluster.nodes) await cluster.start(node);
    await cluster.run(3_000);
    expect(victim.replica?.status().waiting).toContain("older copy");
    await write(cluster, cluster.node(0), 20);
    expect(victim.machine.trace.length).toBeLessThan(19);
  });
});

describe("replacing", () => {
  test("a dead member gives its place to a new one in one change", async () => {
    const cluster = new Cluster(21, 3);
    await cluster.startAll();
    const dead = cluster.nodes.find((node) => node !== cluster.leader());
    if (dead === undefined) throw new Error("no follower");
    cluster.kill(dead);
    const leader = leaderOf(cluster);
    const body = { id: "n4", url: "http://n4", replaces: dead.id };
    expect(await done(cluster, ask(leader, "members.add", body))).toBeNull();
    const sizes = new Set<number>();
    const n4 = await join(cluster, "n4", leader);
    await cluster.run(10_000, () => {
      sizes.add(voters(cluster).length);
      return voters(cluster).includes(n4.id);
    });
    expect(voters(cluster)).not.toContain(dead.id);
    expect([...sizes]).toEqual([3]);
    await write(cluster, n4, 1);
    cluster.check();
  });

  test("a leader that is replaced hands over first", async () => {
    const cluster = new Cluster(22, 3);
    await cluster.startAll();
    const leader = leaderOf(cluster);
    await join(cluster, "n4", leader);
    const body = { id: "n4", url: "http://n4", replaces: leader.id };
    expect(await done(cluster, ask(cluster.node(1), "members.add", body))).toBeNull();
    await cluster.run(10_000, () => voters(cluster).includes("n4" as NodeId));
    await cluster.run(3_000, () => !voters(cluster).includes(leader.id));
    expect(voters(cluster)).not.toContain(leader.id);
    await cluster.run(3_000);
    expect(leader.replica?.status().retired).toBe(true);
    await write(cluster, leaderOf(cluster), 1);
    cluster.check();
  });
});

test("a leader that is cut off, and was told before that the others removed it, leads no more", async () => {
  const cluster = new Cluster(23, 3);
  await cluster.startAll();
  const leader = leaderOf(cluster);
  const others = cluster.nodes.filter((node) => node !== leader);
  const status = leader.replica?.status();
  const body = { cluster: status?.clusterId, index: (status?.lastIndex ?? 0) + 2 };
  // Of another folder that had its id, which the word reaches as well.
  others[0]?.replica?.notify(leader.id, "members.removed", { ...body, incarnation: "another" });
  await cluster.run(100);
  expect(leader.replica?.status().retired).toBe(false);
  others[0]?.replica?.notify(leader.id, "members.removed", body);
  await cluster.run(100, () => leader.replica?.status().retired === true);
  // It hears of no later term, and counts no quorum any more.
  for (const { id } of others) {
    cluster.network.setCut(leader.id, id, true);
    cluster.network.setCut(id, leader.id, true);
  }
  await cluster.run(1_000);
  expect(leader.replica?.status()).toMatchObject({ retired: true, role: "follower" });
  expect(leader.replica?.core?.role).toBe("follower");
  await write(cluster, leaderOf(cluster), 1);
  cluster.check();
});

describe("the wish to take another member's place", () => {
  const wishOf = (cluster: Cluster, id: string): Record<string, unknown> => {
    const { configuration } = leaderOf(cluster).replica?.status() ?? {};
    const { voter, replaces } = configuration?.members[id] ?? {};
    return { voter, replaces };
  };

  test("is the newest request's, whatever an earlier one said: nobody goes who was named by mistake", async () => {
    const cluster = new Cluster(24, 3);
    await cluster.startAll();
    const n1 = cluster.node(0);
    const plain = { id: "n4", url: "http://n4" };
    const wish = { ...plain, replaces: "n3", voter: true };
    expect(await done(cluster, ask(n1, "members.add", wish))).toBeNull();
    expect(wishOf(cluster, "n4")).toEqual({ voter: true, replaces: "n3" });
    await cluster.run(500);
    const waiting = leaderOf(cluster)
      .replica?.status()
      .learners.get("n4" as NodeId);
    expect(waiting).toContain("takes the place of n3");
    // Whoever is asked shows it, the leader or not.
    for (const { replica } of cluster.nodes) {
      const views = replica === null ? [] : memberViews(replica.status(), 600);
      expect(views.map((member) => [member.id, member.replaces])).toContainEqual(["n4", "n3"]);
    }
    expect(await done(cluster, ask(n1, "members.add", plain))).toBeNull();
    expect(wishOf(cluster, "n4")).toEqual({});
    await join(cluster, "n4", n1);
    await join(cluster, "n5", n1);
    expect(await votersAre(cluster, "n1", "n2", "n3", "n4", "n5")).toBe(true);
  });

  test("stays what it is when the learner's own folder knocks", async () => {
    const cluster = new Cluster(25, 3);
    await cluster.startAll();
    const n1 = cluster.node(0);
    const wish = { id: "n4", url: "http://n4", replaces: "n3" };
    expect(await done(cluster, ask(n1, "members.add", wish))).toBeNull();
    await join(cluster, "n4", n1);
    expect(await votersAre(cluster, "n1", "n2", "n4")).toBe(true);
  });

  test("is refused to a second learner, and for a member that there is not", async () => {
    const cluster = new Cluster(26, 3);
    await cluster.startAll();
    const n1 = cluster.node(0);
    const at = (id: string) => ({ id, url: `http://${id}` });
    const add = (body: unknown) => done(cluster, ask(n1, "members.add", body));
    expect(await add({ ...at("n4"), replaces: "n3" })).toBeNull();
    expect(await add({ ...at("n5"), replaces: "n3" })).toBe("bad-replacement");
    expect(await add({ ...at("n4"), replaces: "n9" })).toBe("bad-replacement");
    expect(await add({ ...at("n4"), replaces: "n3" })).toBeNull();
    expect(await add(at("n4"))).toBeNull();
    expect(await add({ ...at("n5"), replaces: "n3" })).toBeNull();
  });

  test("ends with the member that it names: who comes back under that id is somebody else", async () => {
    const cluster = new Cluster(27, 3);
    await cluster.startAll();
    const n1 = leaderOf(cluster);
    const victim = cluster.nodes.find((node) => node !== n1);
    if (victim === undefined) throw new Error("no follower");
    const wish = { id: "n4", url: "http://n4", replaces: victim.id };
    expect(await done(cluster, ask(n1, "members.add", wish))).toBeNull();
    expect(await done(cluster, ask(n1, "members.remove", { id: victim.id }))).toBeNull();
    expect(wishOf(cluster, "n4")).toEqual({});
  });
});

describe("replacing two at once", () => {
  test("does not hand leadership to and fro between the two that go", async () => {
    for (let seed = 1; seed <= 6; seed++) {
      const cluster = new Cluster(seed, 3);
      await cluster.startAll();
      const leader = leaderOf(cluster);
      const other = cluster.nodes.find((node) => node !== leader);
      if (other === undefined) throw new Error("no follower");
      for (const [id, replaces] of [
        ["n4", leader.id],
        ["n5", other.id],
      ] as const) {
        const body = { id, url: `http://${id}`, replaces };
        expect(await done(cluster, ask(leader, "members.add", body))).toBeNull();
      }
      const { term } = leader.replica?.status() ?? { term: 0 };
      for (const id of ["n4", "n5"]) await join(cluster, id, leader);
      const stays = cluster.nodes.filter((node) => node !== leader && node !== other);
      const all = stays.map(({ id }) => id).toSorted();
      await cluster.run(15_000, () => voters(cluster).toSorted().join() === all.join());
      expect(voters(cluster).toSorted()).toEqual(all);
      await cluster.run(3_000);
      expect((leaderOf(cluster).replica?.status().term ?? 0) - term).toBeLessThanOrEqual(2);
      cluster.check();
    }
  });
});

describe("removing", () => {
  test("the leader hands over and leaves, and writes go on", async () => {
    const cluster = new Cluster(31, 3);
    await cluster.startAll();
    const leader = leaderOf(cluster);
    const other = cluster.nodes.find((node) => node !== leader);
    if (other === undefined) throw new Error("no follower");
    expect(await done(cluster, ask(other, "members.remove", { id: leader.id }))).toBeNull();
    await cluster.run(1_000);
    expect(leaderOf(cluster).id).not.toBe(leader.id);
    expect(leader.replica?.status().waiting).toContain("was removed");
    await write(cluster, other, 1);
    // Asked again, it is still so; of a stranger nobody knows.
    expect(await done(cluster, ask(other, "members.remove", { id: leader.id }))).toBeNull();
    expect(await done(cluster, ask(other, "members.remove", { id: "n9" }))).toBe("not-found");
    cluster.check();
  });

  test("of both of two, each asked at itself: leadership does not go to and fro between them, one stays", async () => {
    for (let seed = 1; seed <= 6; seed++) {
      const cluster = new Cluster(seed, 2);
      await cluster.startAll();
      const leader = leaderOf(cluster);
      const { term } = leader.replica?.status() ?? { term: 0 };
      const asked = cluster.nodes.map((node) => ask(node, "members.remove", { id: node.id }));
      const answers: (string | null)[] = [];
      for (const each of asked) answers.push(await done(cluster, each));
      expect(answers).toContain("last-voter");
      expect(answers).toContain(null);
      await cluster.run(1_000);
      expect(voters(cluster)).toHaveLength(1);
      expect((leaderOf(cluster).replica?.status().term ?? 0) - term).toBeLessThanOrEqual(2);
      cluster.check();
    }
  });

  test("a removed member's folder is refused for ever, also after its id came back with another one", async () => {
    const cluster = new Cluster(32, 3);
    await cluster.startAll();
    const victim = cluster.nodes.find((node) => node !== cluster.leader());
    if (victim === undefined) throw new Error("no follower");
    cluster.kill(victim);
    const leader = leaderOf(cluster);
    const { id } = victim;
    expect(await done(cluster, ask(leader, "members.remove", { id }))).toBeNull();
    await cluster.start(victim);
    await cluster.run(3_000);
    expect(victim.replica?.status().waiting).toContain("was removed from cluster");
    expect(victim.replica?.status().waiting).toContain("is not a member");
    expect(victim.replica?.removed()).toContain("needs an empty --data");
    cluster.kill(victim);
    const body = { id, url: `http://${id}`, voter: true };
    expect(await done(cluster, ask(leader, "members.add", body))).toBeNull();
    // Of an earlier build, which kept no file of it.
    victim.removed = null;
    await cluster.start(victim);
    await cluster.run(3_000);
    expect(victim.replica?.status().waiting).toContain("was used");
    expect(victim.replica?.removed()).not.toBeNull();
    expect(victim.joinRefused).toBeUndefined();
    expect(voters(cluster)).not.toContain(id);
    cluster.kill(victim);
    // With --join it cannot start as it is told to.
    await cluster.start(victim, leader);
    await cluster.run(3_000);
    expect(victim.joinRefused).toContain("was removed from cluster");
    await write(cluster, leader, 1);
  });

  test("a folder whose admission is lost with its leader is let in by the next one", async () => {
    const cluster = new Cluster(37, 3);
    await cluster.startAll();
    const before = leaderOf(cluster);
    const others = cluster.nodes.filter((node) => node !== before);
    expect(
      await done(cluster, ask(before, "members.add", { id: "n4", url: "http://n4" })),
    ).toBeNull();
    for (const { id } of others) cluster.network.setCut(before.id, id, true);
    const n4 = await join(cluster, "n4", before);
    const admitted = (leader: Node): boolean =>
      leader.replica?.status().configuration.members["n4"]?.incarnation === n4.disk.incarnation;
    expect(await cluster.run(200, () => admitted(before) && n4.disk.entries.length === 1)).toBe(
      true,
    );
    cluster.kill(before);
    for (const { id } of others) cluster.network.setCut(before.id, id, false);
    await cluster.run(5_000, () => cluster.leader() !== null);
    const next = leaderOf(cluster);
    expect(await cluster.run(10_000, () => admitted(next))).toBe(true);
    await cluster.start(before);
    await write(cluster, next, 1);
    expect(await cluster.run(5_000, () => n4.replica?.status().commit !== undefined)).toBe(true);
    cluster.check();
  });

  test("and by one that was told of the member alone, and knows the folder as a guest", async () => {
    const cluster = new Cluster(40, 3);
    await cluster.startAll();
    const before = leaderOf(cluster);
    const others = cluster.nodes.filter((node) => node !== before);
    const set = (cut: boolean): void => {
      for (const { id } of others)
        for (const from of [before.id, asNodeId("n4")]) cluster.network.setCut(from, id, cut);
    };
    set(true);
    const n4 = await join(cluster, "n4", before);
    const admitted = (leader: Node): boolean =>
      leader.replica?.status().configuration.members["n4"]?.incarnation === n4.disk.incarnation;
    expect(await cluster.run(250, () => n4.disk.entries.length > 1)).toBe(true);
    expect(admitted(n4)).toBe(true);
    cluster.kill(before);
    set(false);
    await cluster.run(5_000, () => cluster.leader() !== null);
    await cluster.run(500);
    const next = leaderOf(cluster);
    expect(admitted(next)).toBe(false);
    expect(n4.transport?.isConnected(next.id)).toBe(true);
    const added = ask(next, "members.add", { id: "n4", url: "http://n4" });
    expect(await done(cluster, added)).toBeNull();
    expect(await cluster.run(10_000, () => admitted(next))).toBe(true);
    await cluster.start(before);
    await write(cluster, n4, 1);
    cluster.check();
  });

  test("who began the cluster alone, was removed and is back with an empty folder does not lead when the leader dies", async () => {
    const cluster = new Cluster(35, 1);
    await cluster.startAll();
    const first = cluster.node(0);
    for (const id of ["n2", "n3"]) await join(cluster, id, first);
    expect(await cluster.run(10_000, () => voters(cluster).length === 3)).toBe(true);
    await write(cluster, first, 1);
    cluster.kill(first);
    await cluster.run(5_000, () => cluster.leader() !== null);
    const leader = leaderOf(cluster);
    expect(await done(cluster, ask(leader, "members.remove", { id: first.id }))).toBeNull();
    cluster.wipe(first);
    // All that it hears is who leads: by the entry that it began the cluster with it is the only voter.
    cluster.network.sieve(leader.id, first.id, "append", 2_000);
    await cluster.start(first, leader);
    await cluster.run(1_000, () => first.replica?.status().leader === leader.id);
    expect(first.replica?.status()).toMatchObject({ leader: leader.id, lastIndex: 1 });
    cluster.kill(leader);
    for (let i = 0; i < 50; i++) {
      await cluster.run(20);
      expect(first.replica?.status().role).toBe("follower");
    }
    await cluster.start(leader);
    await write(cluster, leader, 2);
    cluster.check();
  });

  test("asked for while the same member is being added, each is done once: neither takes the other back", async () => {
    const cluster = new Cluster(33, 3);
    await cluster.startAll();
    const leader = leaderOf(cluster);
    const before = leader.disk.entries.length;
    const added = ask(leader, "members.add", { id: "n4", url: "http://n4" });
    // It is a member by now, and the next look at whether it is comes in a moment.
    await cluster.run(9);
    expect(added.settled).toBe(false);
    expect(leader.replica?.status().configuration.members["n4"]).toBeDefined();
    const removed = ask(leader, "members.remove", { id: "n4" });
    expect(await done(cluster, added)).toBeNull();
    expect(await done(cluster, removed)).toBeNull();
    await cluster.run(200);
    const changes = leader.disk.entries.slice(before).filter(({ kind }) => kind === "config");
    expect(changes.map((entry) => decodeConfigurationEntry(entry).learners.length)).toEqual([1, 0]);
    cluster.check();
  });

  test("a folder that was removed is not added again by a request to let it in that comes late", async () => {
    const cluster = new Cluster(34, 3);
    await cluster.startAll();
    const n4 = await join(cluster, "n4", cluster.node(1));
    await cluster.run(5_000, () => n4.replica?.status().commit !== undefined);
    const leader = leaderOf(cluster);
    const late = { id: "n4", url: "http://n4", incarnation: n4.disk.incarnation };
    expect(await done(cluster, ask(leader, "members.add", late))).toBeNull();
    expect(await done(cluster, ask(leader, "members.remove", { id: "n4" }))).toBeNull();
    // Nor when the log has forgotten it, nor in the place that an operator keeps for another folder.
    for (const each of ["at once", "compacted", "awaited"]) {
      if (each === "compacted")
        for (const node of cluster.nodes.slice(0, 3)) await cluster.compact(node);
      if (each === "awaited")
        expect(
          await done(cluster, ask(leader, "members.add", { id: "n4", url: "http://n4" })),
        ).toBeNull();
      expect(await done(cluster, ask(leader, "members.add", late))).toBe("folder-used");
    }
    // Nor is it let in by who leads now, and was started anew when its log had forgotten it.
    for (const node of cluster.nodes.slice(0, 3)) {
      await cluster.compact(node);
      cluster.kill(node);
      await cluster.start(node);
    }
    await cluster.run(5_000, () => cluster.leader()?.replica?.status().active === true);
    // Its process runs still: it was told of its removal before it had heard by the log that it was a member.
    await cluster.run(1_000);
    const record = leaderOf(cluster).replica?.status().configuration.members["n4"];
    expect(record?.incarnation).toBe("");
    // Nor when its process is started anew, with a log that does not know of it.
    cluster.kill(n4);
    await cluster.start(n4, leaderOf(cluster));
    await cluster.run(1_000);
    expect(n4.joinRefused).toContain("was removed");
    expect(leaderOf(cluster).replica?.status().configuration.members["n4"]).toEqual(record);
    // Another folder is welcome.
    cluster.kill(n4);
    cluster.wipe(n4);
    const last = leaderOf(cluster);
    await cluster.start(n4, last);
    await cluster.run(5_000, () => n4.replica?.status().leader === last.id);
    expect(n4.replica?.status().retired).toBe(false);
    expect(last.replica?.status().configuration.members["n4"]?.incarnation).toBe(
      n4.disk.incarnation,
    );
    cluster.check();
  });

  test("is refused when the rest could not decide anything, and for the last voter", async () => {
    const cluster = new Cluster(33, 3);
    await cluster.startAll();
    const [dead, alive] = cluster.nodes.filter((node) => node !== cluster.leader());
    if (dead === undefined || alive === undefined) throw new Error("no followers");
    cluster.kill(dead);
    await cluster.run(3_000);
    const leader = leaderOf(cluster);
    expect(await done(cluster, ask(leader, "members.remove", { id: alive.id }))).toBe(
      "quorum-at-risk",
    );
    expect(await done(cluster, ask(leader, "members.remove", { id: dead.id }))).toBeNull();
    await write(cluster, leader, 1);
    const one = new Cluster(34, 1);
    await one.startAll();
    expect(await done(one, ask(one.node(0), "members.remove", { id: "n1" }))).toBe("last-voter");
  });

  test("nothing that the removed member asked for is logged behind its removal", async () => {
    const cluster = new Cluster(1, 3);
    await cluster.startAll();
    const leader = leaderOf(cluster);
    const victim = cluster.nodes.find((node) => node !== leader);
    if (victim === undefined) throw new Error("no follower");
    const { id, disk } = victim;
    // A command with every acknowledgement: one is heard in the very turn in which the leader logs the removal.
    let seq = 0;
    cluster.network.watch = {
      sent: () => undefined,
      delivered: (_, to, frame) => {
        if (to !== leader.id || frame.kind !== "raft" || frame.message.type !== "append-reply")
          return;
        const request = {
          seq: ++seq,
          command: commandOf({ seq }),
          hint: { weight: 1, hint: null },
        };
        const proposal = { boot: disk.boot, acked: 0, requests: [request] };
        const { events } = cluster.network.endpoint(leader.id) ?? {};
        events?.frame(id, { kind: "propose", proposal }, disk.incarnation);
      },
    };
    expect(await done(cluster, ask(leader, "members.remove", { id }))).toBeNull();
    await cluster.run(1_000);
    expect(seq).toBeGreaterThan(2);
    expect(loggedBehindItsRemoval(leader, id)).toBe(0);
  });

  test("a leader logs nothing behind its own removal: its id may come back and count its commands anew", async () => {
    let removedItself = 0;
    for (let seed = 1; seed <= 6; seed++) {
      const cluster = new Cluster(seed, 3);
      await cluster.startAll();
      const leader = leaderOf(cluster);
      const [victim, other] = cluster.nodes.filter((node) => node !== leader);
      if (victim === undefined || other === undefined) throw new Error("no followers");
      const { id, disk } = victim;
      ask(leader, "members.remove", { id });
      // While the membership is joint, who goes may be elected.
      await cluster.run(1_000, () => disk.entries.at(-1)?.kind === "config");
      for (const to of [victim, other]) {
        cluster.network.setCut(leader.id, to.id, true);
        cluster.network.setCut(to.id, leader.id, true);
      }
      await cluster.run(700);
      cluster.network.heal();
      for (let n = 1; n <= 600; n++) {
        victim.replica?.submit(commandOf({ n }), { timeoutMs: 500 }).catch(() => undefined);
        await cluster.run(1);
      }
      await cluster.run(2_000);
      for (const node of cluster.nodes)
        expect(loggedBehindItsRemoval(node, id)).toBeLessThanOrEqual(0);
      if (loggedBehindItsRemoval(victim, id) === 0) removedItself += 1;
      cluster.check();
    }
    expect(removedItself).toBeGreaterThan(0);
  });
});

describe("addresses", () => {
  test("a member that comes back at another address is found there by all", async () => {
    const cluster = new Cluster(41, 1);
    await cluster.startAll();
    const n1 = cluster.node(0);
    const n2 = await join(cluster, "n2", n1);
    await join(cluster, "n3", n1);
    expect(await votersAre(cluster, "n1", "n2", "n3")).toBe(true);
    cluster.kill(n2);
    await cluster.run(1_000);
    n2.url = "http://elsewhere";
    await cluster.start(n2);
    const moved = (): boolean =>
      cluster.nodes.every(
        ({ replica }) => replica?.status().configuration.members["n2"]?.url === "http://elsewhere",
      );
    expect(await cluster.run(10_000, moved)).toBe(true);
    await write(cluster, n2, 1);
  });

  test("a leader that was started at another address puts it into the log, alone and among others", async () => {
    for (const size of [1, 3]) {
      const cluster = new Cluster(43, size);
      await cluster.startAll();
      for (const node of cluster.nodes) cluster.kill(node);
      for (const node of cluster.nodes) {
        node.url = `http://${node.id}.elsewhere`;
        await cluster.start(node);
      }
      const moved = (): boolean =>
        cluster.nodes.every(({ replica }) => {
          const { members = {} } = replica?.status().configuration ?? {};
          return Object.entries(members).every(([id, { url }]) => url === `http://${id}.elsewhere`);
        });
      expect(await cluster.run(10_000, moved)).toBe(true);
      const leader = leaderOf(cluster);
      const { id } = leader;
      const wrong = { id, url: "http://somewhere" };
      expect(await done(cluster, ask(leader, "members.add", wrong))).toBe("address-differs");
      expect(await done(cluster, ask(leader, "members.add", { id, url: leader.url }))).toBeNull();
    }
  });

  test("a leader knows from its first moment what the running members say of their addresses", async () => {
    const cluster = new Cluster(44, 3);
    await cluster.startAll();
    const before = leaderOf(cluster);
    const next = cluster.nodes.find((node) => node !== before);
    if (next === undefined) throw new Error("no follower");
    ask(before, "members.transfer", { id: next.id });
    await cluster.run(5_000, () => cluster.leader() === next);
    for (const { id } of cluster.nodes) {
      const wrong = { id, url: "http://somewhere" };
      expect(await done(cluster, ask(next, "members.add", wrong))).toBe("address-differs");
    }
  });

  test("members that swapped their addresses are both put right, in one change", async () => {
    const cluster = new Cluster(46, 3);
    await cluster.startAll();
    const [n1, n2] = [cluster.node(0), cluster.node(1)];
    for (const node of [n1, n2]) cluster.kill(node);
    n1.url = "http://n2";
    n2.url = "http://n1";
    for (const node of [n1, n2]) await cluster.start(node);
    const urls = (): string =>
      Object.values(cluster.leader()?.replica?.status().configuration.members ?? {})
        .map(({ url }) => url)
        .join(" ");
    expect(await cluster.run(10_000, () => urls() === "http://n2 http://n1 http://n3")).toBe(true);
  });

  test("of a member that is stopped the operator's word stays, until it speaks itself", async () => {
    const cluster = new Cluster(45, 3);
    await cluster.startAll();
    const leader = leaderOf(cluster);
    const other = cluster.nodes.find((node) => node !== leader);
    if (other === undefined) throw new Error("no follower");
    const { id } = other;
    const url = (): string | undefined => leader.replica?.status().configuration.members[id]?.url;
    cluster.kill(other);
    await cluster.run(1_000);
    const moved = { id, url: "http://somewhere" };
    expect(await done(cluster, ask(leader, "members.add", moved))).toBeNull();
    await cluster.run(7_000);
    expect(url()).toBe("http://somewhere");
    await cluster.start(other);
    expect(await cluster.run(10_000, () => url() === `http://${id}`)).toBe(true);
  });

  test("two members at one address are refused, and so is what a running member contradicts", async () => {
    const cluster = new Cluster(42, 3);
    await cluster.startAll();
    const leader = leaderOf(cluster);
    const other = cluster.nodes.find((node) => node !== leader);
    if (other === undefined) throw new Error("no follower");
    const twin = { id: "n4", url: "http://n1" };
    expect(await done(cluster, ask(leader, "members.add", twin))).toBe("address-taken");
    const wrong = { id: other.id, url: "http://elsewhere" };
    expect(await done(cluster, ask(leader, "members.add", wrong))).toBe("address-differs");
    cluster.kill(other);
    await cluster.run(3_000);
    expect(await done(cluster, ask(leader, "members.add", wrong))).toBeNull();
    expect(leader.replica?.status().configuration.members[other.id]?.url).toBe("http://elsewhere");
  });
});

describe("leadership on request", () => {
  test("goes to the member that is named, from any member", async () => {
    const cluster = new Cluster(51, 3);
    await cluster.startAll();
    for (const node of [...cluster.nodes, cluster.node(0)]) {
      expect(
        await done(cluster, ask(cluster.node(2), "members.transfer", { id: node.id })),
      ).toBeNull();
      await cluster.run(2_000, () => cluster.leader() === node);
      expect(leaderOf(cluster).id).toBe(node.id);
      await write(cluster, cluster.node(1), 1);
    }
  });

  test("to one that is not there is refused, and writes go on", async () => {
    const cluster = new Cluster(52, 3);
    await cluster.startAll();
    const leader = leaderOf(cluster);
    const target = cluster.nodes.find((node) => node !== leader);
    if (target === undefined) throw new Error("no follower");
    expect(await done(cluster, ask(leader, "members.transfer", { id: "n9" }))).toBe("not-found");
    // It stops in the very moment: leadership is being handed to a member that will never take it.
    cluster.kill(target);
    const asked = ask(leader, "members.transfer", { id: target.id });
    await write(cluster, leader, 1);
    expect(["not-taken", "unreachable"]).toContain((await done(cluster, asked)) ?? "");
    expect(leaderOf(cluster).id).toBe(leader.id);
  });
});
