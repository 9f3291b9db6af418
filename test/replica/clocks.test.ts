/** Log time stays near true time though a member's wall clock is wrong (T1). Each was found by the simulator. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { NodeId, Role } from "../../src/raft/types.ts";
import { EPOCH } from "../sim/world.ts";
import { Cluster, type Node } from "./cluster.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const HOUR_MS = 3_600_000;

/** How far this member's log time is from true time, ms. */
function errorOf(cluster: Cluster, node: Node): number {
  return Math.abs((node.replica?.logNow() ?? 0) - EPOCH - cluster.world.now);
}

describe("a wrong wall clock", () => {
  test("of the founder does not become the cluster's first log time", async () => {
    const cluster = new Cluster(21, 3);
    cluster.node(0).clock.wallOffset = HOUR_MS;
    await cluster.startAll();
    expect(cluster.leader()).not.toBe(cluster.node(0));
    for (const node of cluster.nodes) {
      expect(errorOf(cluster, node)).toBeLessThan(10_000);
      expect(Number.isInteger(node.machine.logTime())).toBe(true);
    }
  });

  test("keeps a member from taking a leadership that is handed to it", async () => {
    const cluster = new Cluster(22, 3);
    await cluster.startAll();
    const leader = cluster.leader();
    const target = cluster.nodes.find((node) => node !== leader);
    if (leader === null || target === undefined) throw new Error("no leader");
    target.clock.wallOffset = HOUR_MS;
    await cluster.run(2_500);
    void leader.replica?.transfer(target.id, 1_000);
    await cluster.run(2_000);
    expect(cluster.leader()).toBe(leader);
  });

  test("keeps a member from being chosen when leadership is handed to the best follower", async () => {
    for (let seed = 1; seed <= 5; seed++) {
      const cluster = new Cluster(seed, 3);
      await cluster.startAll();
      const leader = cluster.leader();
      const [wrong, right] = cluster.nodes.filter((node) => node !== leader);
      if (leader === null || wrong === undefined || right === undefined)
        throw new Error("no leader");
      wrong.clock.wallOffset = HOUR_MS;
      await cluster.run(2_500);
      void leader.replica?.transfer(null, 1_000);
      await cluster.run(2_000);
      expect(cluster.leader()).toBe(right);
    }
  });

  test("of a leader does not draw log time away, however long it leads", async () => {
    const cluster = new Cluster(23, 3);
    await cluster.startAll();
    const leader = cluster.leader();
    if (leader === null) throw new Error("no leader");
    leader.clock.wallOffset = HOUR_MS;
    await cluster.run(300_000);
    expect(cluster.leader()).toBe(leader);
    expect(errorOf(cluster, leader)).toBeLessThan(10_000);
  });

  test("keeps a member from campaigning whose connections just broke, though it hears no clock for a second", async () => {
    for (let seed = 1; seed <= 8; seed++) {
      const cluster = new Cluster(seed, 3);
      await cluster.startAll();
      const leader = cluster.leader();
      const [wrong, right] = cluster.nodes.filter((node) => node !== leader);
      if (leader === null || wrong === undefined || right === undefined)
        throw new Error("no leader");
      wrong.clock.wallOffset = HOUR_MS;
      await cluster.run(2_500);
      for (const { id } of [leader, right]) wrong.transport?.break(id);
      cluster.kill(leader);
      await cluster.run(1_500);
      expect(cluster.leader()?.id).toBe(right.id);
      await cluster.run(20_000);
      expect(cluster.leader()?.id).toBe(right.id);
      expect(errorOf(cluster, right)).toBeLessThan(10_000);
    }
  });

  test("makes a member give its candidacy up that finds out while its vote waits for its disk", async () => {
    const { cluster, wrong, right, third } = await alone(24, "candidate");
    wrong.store?.hang();
    await cluster.run(100, () => wrong.replica?.core?.votes.get(right.id) === true);
    expect(wrong.replica?.core?.role).toBe("candidate");
    cluster.kill(right);
    await cluster.start(third);
    // Its own vote is all that it lacks when it hears the third clock.
    await cluster.run(250, () => wrong.replica?.clockAlarm() !== null);
    await cluster.run(20);
    wrong.store?.recover();
    expect(await cluster.run(500, () => wrong.replica?.core?.role === "leader")).toBe(false);
    // The two others elect one of themselves.
    await cluster.start(right);
    await cluster.run(10_000, () => cluster.leader() !== null);
    expect([right.id, third.id]).toContain(cluster.leader()?.id as NodeId);
  });

  test("of a member that won before it found out is not where log time goes on from", async () => {
    const { cluster, wrong, right, third } = await alone(25, "leader");
    // The entry that opens its term is nowhere but here.
    cluster.kill(right);
    await cluster.start(third);
    await cluster.run(2_000, () => cluster.leader() !== null);
    expect(cluster.leader()).toBe(wrong);
    expect(errorOf(cluster, wrong)).toBeLessThan(10_000);
    await cluster.run(60_000);
    expect(errorOf(cluster, wrong)).toBeLessThan(10_000);
  });
});

/**
 * Of three members one is down, and one of the two others has a wrong clock, which nobody can tell: that one stands for
 * election, and is in this role just now.
 */
async function alone(
  seed: number,
  role: Role,
): Promise<{ cluster: Cluster; wrong: Node; right: Node; third: Node }> {
  const cluster = new Cluster(seed, 3);
  await cluster.startAll();
  const right = cluster.leader();
  const [wrong, third] = cluster.nodes.filter((node) => node !== right);
  if (right === null || wrong === undefined || third === undefined) throw new Error("no leader");
  cluster.kill(third);
  wrong.clock.wallOffset = HOUR_MS;
  // What the third one's clock showed is forgotten.
  await cluster.run(5_000);
  for (let tries = 0; tries < 20; tries++) {
    cluster.kill(right);
    await cluster.run(1_000);
    await cluster.start(right);
    await cluster.run(2_000, () => cluster.leader() !== null || isIn(wrong, role));
    if (isIn(wrong, role)) return { cluster, wrong, right, third };
    await cluster.run(1_000);
  }
  throw new Error(`never ${role}`);
}

function isIn({ replica }: Node, role: Role): boolean {
  return replica?.core?.role === role;
}
