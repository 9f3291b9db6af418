/** When a member that (re)started holds what the cluster had: until then `/health/ready` says no. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { asIndex, type NodeId } from "../../src/raft/types.ts";
import { CatchingUp } from "../../src/replica/catching-up.ts";
import { Cluster, type Node, commandOf } from "./cluster.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

describe("catching up", () => {
  test("is done once, at what was committed when the leader's first word came", () => {
    const up = new CatchingUp();
    expect(up.why(asIndex(70), null)).toContain("has not heard yet");
    up.heard(asIndex(100));
    // Under load the leader goes on all the time: its later words set no new goal.
    up.heard(asIndex(900));
    expect(up.why(asIndex(70), null)).toContain("log index 70, and 100 was committed");
    expect(up.why(asIndex(100), null)).toBeNull();
    expect(up.why(asIndex(5), null)).toBeNull();
  });

  test("begins anew with another state, and is not done while a snapshot comes in", () => {
    const up = new CatchingUp();
    up.heard(asIndex(100));
    expect(up.why(asIndex(100), null)).toBeNull();
    const receiving = { bytes: 3 * 1024 ** 2, of: 200 * 1024 ** 2 };
    expect(up.why(asIndex(100), receiving)).toContain("a snapshot of the state, 3 of 200 MiB");
    up.replaced();
    expect(up.why(asIndex(100), null)).toContain("has not heard yet");
    up.heard(asIndex(140));
    expect(up.why(asIndex(139), null)).not.toBeNull();
    expect(up.why(asIndex(140), null)).toBeNull();
  });
});

/** Every word of `why` that this member had until it had applied `count` commands. */
async function untilApplied(cluster: Cluster, node: Node, count: number): Promise<Set<boolean>> {
  const ready = new Set<boolean>();
  const reached = await cluster.run(30_000, () => {
    const applied = node.machine.trace.length;
    const status = node.replica?.status();
    if (applied < count && status !== undefined) ready.add(status.catchingUp === null);
    return applied >= count;
  });
  expect(reached).toBe(true);
  return ready;
}

async function grown(seed: number): Promise<Cluster> {
  const cluster = new Cluster(seed, 3);
  await cluster.startAll();
  await write(cluster, 300);
  return cluster;
}

async function write(cluster: Cluster, count: number): Promise<void> {
  let settled = 0;
  for (let i = 0; i < count; i++) {
    const command = commandOf({ i, filler: "x".repeat(1_000) });
    void cluster
      .leader()
      ?.replica?.submit(command, { timeoutMs: 10_000 })
      .then(() => settled++);
    await cluster.run(1);
  }
  expect(await cluster.run(20_000, () => settled === count)).toBe(true);
}

const caughtUp = (node: Node): boolean => node.replica?.status().catchingUp === null;

describe("a member that holds nothing yet", () => {
  test("with a damaged state is not ready until its own log has built it anew", async () => {
    const cluster = await grown(3);
    expect(cluster.nodes.map(caughtUp)).toEqual([true, true, true]);
    const victim = cluster.nodes.find((node) => node !== cluster.leader());
    if (victim === undefined) throw new Error("no follower");
    cluster.kill(victim);
    victim.image = null;
    await cluster.start(victim);
    expect(caughtUp(victim)).toBe(false);
    expect(await untilApplied(cluster, victim, 300)).toEqual(new Set([false]));
    expect(await cluster.run(1_000, () => caughtUp(victim))).toBe(true);
  });

  test("takes a snapshot and is not ready before; nor is a learner that lacks everything", async () => {
    const cluster = await grown(4);
    for (const node of cluster.nodes) await cluster.compact(node);
    const learner = cluster.add("n4");
    await cluster.start(learner, cluster.node(0));
    expect(await untilApplied(cluster, learner, 300)).toEqual(new Set([false]));
    expect(await cluster.run(1_000, () => caughtUp(learner))).toBe(true);
    expect(learner.replica?.counters.snapshotsInstalled).toBe(1);
    const { configuration } = cluster.leader()?.replica?.status() ?? {};
    expect(configuration?.learners).toEqual(["n4" as NodeId]);
    // Under load it stays ready, however far behind it is for a moment.
    const seen = new Set<boolean>();
    let settled = 0;
    for (let i = 0; i < 200; i++) {
      const command = commandOf({ more: i });
      void cluster
        .leader()
        ?.replica?.submit(command, { timeoutMs: 10_000 })
        .then(() => settled++);
      seen.add(caughtUp(learner));
    }
    expect(await cluster.run(20_000, () => (seen.add(caughtUp(learner)), settled === 200))).toBe(
      true,
    );
    expect(seen).toEqual(new Set([true]));
    cluster.check();
  });

  test("that hears no leader is not ready", async () => {
    const cluster = await grown(5);
    for (const node of cluster.nodes) cluster.kill(node);
    await cluster.start(cluster.node(0));
    await cluster.run(3_000);
    expect(caughtUp(cluster.node(0))).toBe(false);
    await cluster.start(cluster.node(1));
    expect(await cluster.run(5_000, () => caughtUp(cluster.node(0)))).toBe(true);
  });
});
