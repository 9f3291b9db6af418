/** A member's own disk that is slow, or hangs, in the whole driver and in virtual time (docs/storage.md). */
import { expect, setDefaultTimeout, test } from "bun:test";
import { Cluster, type Node, commandOf } from "./cluster.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

/** Keeps submitting at every member but `except`; answers how many were answered. */
function load(cluster: Cluster, except: Node | null): { answered: number; stop: () => void } {
  const state = { answered: 0, stopped: false, stop: () => undefined as void };
  let n = 0;
  const next = (): void => {
    if (state.stopped) return;
    for (const { replica, id } of cluster.nodes) {
      if (replica === null || id === except?.id) continue;
      replica.submit(commandOf({ n: n++ }), { timeoutMs: 5_000 }).then(
        () => (state.answered += 1),
        () => undefined,
      );
    }
    cluster.world.at(cluster.world.now + 20, next);
  };
  next();
  state.stop = () => {
    state.stopped = true;
  };
  return state;
}

async function leaderOf(cluster: Cluster): Promise<Node> {
  await cluster.startAll();
  const leader = cluster.leader();
  if (leader === null) throw new Error("no leader");
  return leader;
}

test("a leader whose disk hangs is replaced, writes go on without it, and it catches up when the disk is back", async () => {
  for (let seed = 1; seed <= 3; seed++) {
    const cluster = new Cluster(seed, 3);
    const leader = await leaderOf(cluster);
    const term = Number(leader.replica?.status().term);
    const work = load(cluster, leader);
    await cluster.run(500);
    leader.store?.hang();
    const replaced = await cluster.run(4_000, () => {
      const now = cluster.leader();
      return now !== null && now !== leader;
    });
    expect(replaced).toBe(true);
    // Handed over: the term has grown by one, no election was lost to a timeout.
    expect(Number(cluster.leader()?.replica?.status().term)).toBe(term + 1);
    const before = work.answered;
    await cluster.run(1_000);
    expect(work.answered).toBeGreaterThan(before + 20);
    // However long it hangs, it does not come back to lead.
    await cluster.run(5_000);
    expect(leader.replica?.status().role).toBe("follower");
    leader.store?.recover();
    work.stop();
    await cluster.run(3_000);
    cluster.check();
    const traces = cluster.nodes.map(({ machine }) => machine.trace.length);
    expect(new Set(traces).size).toBe(1);
  }
});

test("a leader with a slow disk stays while the others are no faster", async () => {
  const cluster = new Cluster(20, 3);
  const leader = await leaderOf(cluster);
  cluster.diskMax = 6_000;
  const term = Number(leader.replica?.status().term);
  for (const node of cluster.nodes) if (node !== leader) node.store?.hang();
  const work = load(cluster, null);
  await cluster.run(8_000);
  work.stop();
  expect(leader.replica?.status().role).toBe("leader");
  expect(Number(leader.replica?.status().term)).toBe(term);
});

test("a cluster of one waits for its disk, as long as it takes", async () => {
  const cluster = new Cluster(21, 1);
  const leader = await leaderOf(cluster);
  const work = load(cluster, null);
  leader.store?.hang();
  await cluster.run(20_000);
  expect(leader.replica?.status().role).toBe("leader");
  leader.store?.recover();
  const before = work.answered;
  await cluster.run(1_000);
  expect(work.answered).toBeGreaterThan(before);
  work.stop();
  cluster.check();
});

test("a follower whose disk hangs costs nothing, and its memory stays bounded", async () => {
  const cluster = new Cluster(22, 3);
  const leader = await leaderOf(cluster);
  const follower = cluster.nodes.find((node) => node !== leader);
  follower?.store?.hang();
  const work = load(cluster, follower ?? null);
  await cluster.run(20_000);
  expect(cluster.leader()).toBe(leader);
  expect(work.answered).toBeGreaterThan(1_000);
  expect(follower?.store?.pending ?? Infinity).toBeLessThanOrEqual(4_200);
  follower?.store?.recover();
  work.stop();
  await cluster.run(5_000);
  cluster.check();
  expect(follower?.machine.trace.length).toBe(leader.machine.trace.length);
});
