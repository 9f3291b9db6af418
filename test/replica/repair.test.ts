/** A log or a state that is found damaged at a start, in the whole driver and in virtual time (docs/storage.md). */
import { expect, setDefaultTimeout, test } from "bun:test";
import { EMPTY_CONFIGURATION, encodeConfiguration } from "../../src/raft/configuration.ts";
import { asIndex, asNodeId, asTerm } from "../../src/raft/types.ts";
import { FatalError } from "../../src/replica/ports.ts";
import { repaired } from "../../src/replica/repair.ts";
import { silent } from "../storage/manual-clock.ts";
import { Cluster, type Node } from "./cluster.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

async function submit(cluster: Cluster, node: Node, count: number): Promise<void> {
  let answered = 0;
  for (let n = 0; n < count; n++) {
    node.replica
      ?.submit(new TextEncoder().encode(JSON.stringify({ n })), { timeoutMs: 5_000 })
      .then(
        () => (answered += 1),
        () => undefined,
      );
    await cluster.run(5);
  }
  expect(await cluster.run(5_000, () => answered === count)).toBe(true);
}

async function working(seed: number, size = 3): Promise<{ cluster: Cluster; follower: Node }> {
  const cluster = new Cluster(seed, size);
  await cluster.startAll();
  const leader = cluster.leader();
  if (leader === null) throw new Error("no leader");
  await submit(cluster, leader, 20);
  await cluster.run(500);
  return { cluster, follower: cluster.nodes.find((node) => node !== leader) ?? leader };
}

/** A repair takes its steps in virtual time. */
async function start(cluster: Cluster, node: Node): Promise<void> {
  const started = cluster.start(node);
  await cluster.run(100);
  await started;
}

/** Until `node` has applied as much as the leader. */
function converged(cluster: Cluster, node: Node): Promise<boolean> {
  return cluster.run(5_000, () => {
    const leader = cluster.leader();
    return leader !== null && leader.machine.trace.length === node.machine.trace.length;
  });
}

test("a member whose log is damaged ahead of its state gets the rest from the others, and votes again then", async () => {
  for (let seed = 1; seed <= 3; seed++) {
    const { cluster, follower } = await working(seed);
    // The state is older than the log: it is applied anew from what is left.
    follower.image = null;
    cluster.kill(follower);
    const promised = follower.disk.entries.length;
    follower.disk.damagedFrom = asIndex(promised - 3);
    await cluster.start(follower);
    expect(follower.disk.promised?.index).toBe(asIndex(promised));
    expect(await converged(cluster, follower)).toBe(true);
    expect(follower.machine.trace).toHaveLength(20);
    cluster.check();
    // It is needed now: a majority without the leader.
    const leader = cluster.leader();
    if (leader !== null) cluster.kill(leader);
    expect(await cluster.run(5_000, () => cluster.leader() !== null)).toBe(true);
    await submit(cluster, follower, 1);
    cluster.check();
  }
});

test("a member that lacks what it promised campaigns not, nor votes for one that lacks it too, whatever the others need", async () => {
  const { cluster, follower } = await working(10);
  const leader = cluster.leader();
  const other = cluster.nodes.find((node) => node !== leader && node !== follower);
  if (leader === null || other === undefined) throw new Error("no third member");
  cluster.kill(other);
  await submit(cluster, leader, 3);
  cluster.kill(leader);
  cluster.kill(follower);
  follower.disk.damagedFrom = asIndex(follower.disk.entries.length - 1);
  await cluster.start(other);
  await start(cluster, follower);
  await cluster.run(10_000);
  expect(cluster.leader()).toBeNull();
  // The one with the whole log is back: it leads with the vote of the third.
  await cluster.start(leader);
  expect(await cluster.run(5_000, () => cluster.leader() !== null)).toBe(true);
  expect(cluster.leader()).toBe(leader);
  expect(await converged(cluster, follower)).toBe(true);
  cluster.check();
});

test("a member that lacks what it promised votes for one that holds it: with a third member gone they go on", async () => {
  for (const anew of [false, true]) {
    const { cluster, follower } = await working(11);
    const leader = cluster.leader();
    const other = cluster.nodes.find((node) => node !== leader && node !== follower);
    if (leader === null || other === undefined) throw new Error("no third member");
    // In the state or not: the log is taken anew, or its end is.
    if (anew) follower.image = follower.machine.image();
    cluster.kill(leader);
    cluster.kill(follower);
    follower.disk.damagedFrom = asIndex(follower.disk.entries.length - 3);
    await start(cluster, follower);
    expect(await cluster.run(10_000, () => cluster.leader() === other)).toBe(true);
    expect(await converged(cluster, follower)).toBe(true);
    await submit(cluster, follower, 1);
    cluster.check();
  }
});

test("so does one that lost the entry which let its folder in, and knows by the rest an earlier folder of its id", async () => {
  for (const anew of [false, true]) {
    const { cluster, follower } = await working(13);
    const leader = cluster.leader();
    const other = cluster.nodes.find((node) => node !== leader && node !== follower);
    if (leader === null || other === undefined) throw new Error("no third member");
    const { id } = follower;
    const before = leader.disk.entries.length;
    cluster.kill(follower);
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    leader.replica?.call("members.remove", { id }, 8_000).then(resolve, reject);
    await cluster.run(3_000);
    await promise;
    cluster.wipe(follower);
    await cluster.start(follower, leader);
    const isVoter = (): boolean =>
      other.replica?.status().configuration.voters.includes(id) === true;
    expect(await cluster.run(10_000, isVoter)).toBe(true);
    await submit(cluster, leader, 3);
    expect(await converged(cluster, follower)).toBe(true);
    if (anew) follower.image = follower.machine.image();
    cluster.kill(leader);
    cluster.kill(follower);
    follower.disk.damagedFrom = asIndex(before);
    await start(cluster, follower);
    expect(await cluster.run(10_000, () => cluster.leader() === other)).toBe(true);
    expect(await converged(cluster, follower)).toBe(true);
    await submit(cluster, follower, 1);
    cluster.check();
  }
});

test("a state that is damaged while the log is being repaired does not make the member forget what it promised", async () => {
  const { cluster, follower } = await working(12);
  for (const node of cluster.nodes) await cluster.compact(node);
  const leader = cluster.leader();
  if (leader === null) throw new Error("no leader");
  await submit(cluster, leader, 6);
  for (const node of cluster.nodes) cluster.kill(node);
  const promised = follower.disk.entries.length;
  follower.disk.damagedFrom = asIndex(promised - 2);
  await start(cluster, follower);
  expect(follower.disk.promised?.index).toBe(asIndex(promised));
  cluster.kill(follower);
  follower.stateDamage = "the state is damaged";
  await start(cluster, follower);
  follower.stateDamage = null;
  expect(follower.disk.entries).toHaveLength(0);
  expect(follower.disk.promised?.index).toBe(asIndex(promised));
});

test("damage in what was applied already: log and state are taken anew, also by a snapshot", async () => {
  for (const compacted of [false, true]) {
    const { cluster, follower } = await working(20);
    if (compacted)
      for (const node of cluster.nodes) expect(await cluster.compact(node)).toBe(20 + 2);
    else follower.image = follower.machine.image();
    cluster.kill(follower);
    const leader = cluster.leader();
    if (leader === null) throw new Error("no leader");
    await submit(cluster, leader, 5);
    if (compacted) await cluster.compact(leader);
    follower.disk.damagedFrom = asIndex(compacted ? 23 : 3);
    follower.stateDamage = compacted ? "the state is damaged" : null;
    if (compacted) follower.disk.damagedFrom = null;
    await start(cluster, follower);
    follower.stateDamage = null;
    expect(await converged(cluster, follower)).toBe(true);
    expect(follower.machine.trace).toHaveLength(25);
    cluster.check();
    expect(follower.fatal).toBeNull();
  }
});

test("a damaged state is built anew from a log that reaches back to the beginning, in a cluster of one too", async () => {
  const { cluster, follower } = await working(30, 1);
  cluster.kill(follower);
  follower.stateDamage = "the state is damaged";
  await start(cluster, follower);
  follower.stateDamage = null;
  await cluster.run(2_000);
  expect(follower.machine.trace).toHaveLength(20);
  await submit(cluster, follower, 1);
  cluster.check();
});

test("a cluster of one stops at a damaged log, and names the entry", async () => {
  const { cluster, follower } = await working(31, 1);
  cluster.kill(follower);
  follower.disk.damagedFrom = asIndex(9);
  const start = cluster.start(follower);
  expect(start).rejects.toThrow(FatalError);
  expect(start).rejects.toThrow("entry 9 is damaged. This cluster has one member");
  await start.catch(() => undefined);
  expect(follower.disk.entries.length).toBeGreaterThan(9);
});

test("a member whose log is damaged from its first entry on keeps its term and vote", async () => {
  const { cluster, follower } = await working(30);
  const { hardState } = follower.disk;
  expect(hardState.term).toBeGreaterThan(1);
  // The others know by now how far it was, and let no older copy of it in.
  await cluster.run(1_500);
  cluster.kill(follower);
  follower.image = follower.machine.image();
  follower.disk.damagedFrom = asIndex(1);
  const terms: number[] = [];
  follower.disk.onWrite = (op) => void terms.push(op.hardState?.term ?? hardState.term);
  await start(cluster, follower);
  expect(await converged(cluster, follower)).toBe(true);
  expect(Math.min(...terms)).toBeGreaterThanOrEqual(hardState.term);
  expect(follower.fatal).toBeNull();
  cluster.check();
});

test("a member that joined is repaired from the first entry on, with no word of whom to ask but what it saw", async () => {
  for (const flag of ["--join", "none"]) {
    const { cluster } = await working(32);
    const n4 = cluster.add("n4");
    await cluster.start(n4, cluster.node(1));
    expect(await converged(cluster, n4)).toBe(true);
    await cluster.run(1_500);
    cluster.kill(n4);
    n4.image = n4.machine.image();
    n4.disk.damagedFrom = asIndex(1);
    const started = cluster.start(n4, flag === "--join" ? cluster.node(1) : null);
    await cluster.run(100);
    await started;
    expect(await converged(cluster, n4)).toBe(true);
    expect(n4.disk.entries.length).toBeGreaterThanOrEqual(n4.disk.promised?.index ?? Infinity);
    expect(n4.fatal).toBeNull();
    cluster.check();
  }
});

test("a member whose log is lost is not sent away by one that has not heard yet that it was let in", async () => {
  const { cluster, follower: late } = await working(34);
  const others = cluster.nodes.filter((node) => node !== late);
  const cut = (on: boolean): void => {
    for (const { id } of others) {
      cluster.network.setCut(late.id, id, on);
      cluster.network.setCut(id, late.id, on);
    }
  };
  cut(true);
  const n4 = cluster.add("n4");
  await cluster.start(n4, cluster.leader());
  expect(await converged(cluster, n4)).toBe(true);
  await cluster.run(1_500);
  cluster.kill(n4);
  n4.image = n4.machine.image();
  n4.disk.damagedFrom = asIndex(1);
  n4.seen = null;
  const started = cluster.start(n4, late);
  await cluster.run(3_000);
  await started;
  expect(n4.joinRefused).toBeUndefined();
  cut(false);
  expect(await converged(cluster, n4)).toBe(true);
  cluster.check();
});

test("a member that began alone is repaired by those that joined it, though what is left of its log knows none of them", async () => {
  for (const anew of [false, true]) {
    const { cluster, follower: n1 } = await working(34, 1);
    expect(n1.replica?.isAlone).toBe(true);
    const others = ["n2", "n3"].map((id) => cluster.add(id));
    for (const node of others) await cluster.start(node, n1);
    const areVoters = (): boolean => n1.replica?.status().configuration.voters.length === 3;
    expect(await cluster.run(10_000, areVoters)).toBe(true);
    await submit(cluster, n1, 3);
    for (const node of others) expect(await converged(cluster, node)).toBe(true);
    n1.image = anew ? n1.machine.image() : null;
    cluster.kill(n1);
    n1.disk.damagedFrom = asIndex(5);
    await start(cluster, n1);
    // With --peers or --join it would be refused if it took itself for a cluster of its own.
    expect(n1.replica?.isAlone).toBe(false);
    expect(await converged(cluster, n1)).toBe(true);
    expect(n1.disk.entries.length).toBeGreaterThanOrEqual(n1.disk.promised?.index ?? Infinity);
    expect(n1.fatal).toBeNull();
    expect(areVoters()).toBe(true);
    await submit(cluster, n1, 1);
    cluster.check();
  }
});

test("who was seen in the cluster before a rescue, or is not seen at all, repairs nothing: a rescued member that is alone stops", async () => {
  const index = asIndex(5_059);
  const term = asTerm(5);
  const id = asNodeId("n2");
  const members = { [id]: { url: "http://n2", incarnation: "own" } };
  const data = encodeConfiguration({ ...EMPTY_CONFIGURATION, voters: [id], members });
  const cuts: unknown[] = [];
  const start = (seen: unknown) =>
    repaired(
      {
        store: { cut: () => Promise.resolve(void cuts.push(seen)) },
        snapshots: { reset: () => Promise.resolve() },
        log: silent,
        peers: new Map(),
        seen: { load: () => seen, keep: () => undefined },
        applied: () => asIndex(5_059),
        stateDamage: null,
      },
      {
        identity: { id, incarnation: "own", clusterId: "c", boot: 7 },
        hardState: { term, vote: null },
        compacted: { index, term },
        foundations: [{ index, term, kind: "config", data }],
        lastIndex: index,
        terms: [],
        configurations: [],
        tail: [],
        damage: {
          index: asIndex(5_060),
          what: "entry 5060 is damaged",
          promised: { index: asIndex(5_107), term },
        },
      },
    );
  const own = ["n2", "own", 7, 5_107, 5];
  for (const seen of [null, [own], [own, ["n1", "old", 3, 59, 4]]]) {
    const said = await start(seen).catch(String);
    expect(said).toContain("entry 5060 is damaged. This cluster has one member");
  }
  expect(cuts).toEqual([]);
  for (const acknowledged of [0, 5_100])
    await start([own, ["n1", "old", 3, 59, 4], ["n4", "new", 2, acknowledged, 5]]);
  expect(cuts).toHaveLength(2);
});

test("a folder that has lost the log of its cluster founds no other", async () => {
  const { cluster } = await working(33);
  const n4 = cluster.add("n4");
  await cluster.start(n4, cluster.node(1));
  expect(await converged(cluster, n4)).toBe(true);
  await cluster.run(1_500);
  for (const node of cluster.nodes) cluster.kill(node);
  n4.image = n4.machine.image();
  n4.disk.damagedFrom = asIndex(1);
  await start(cluster, n4);
  await cluster.run(3_000);
  expect(n4.disk.entries).toHaveLength(0);
  expect(n4.replica?.status().waiting).toContain("the log is lost");
});
