/** Members that come back after the log was compacted beyond them, over networks that lose, double and break. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { PeerFrame } from "../../src/replica/ports.ts";
import { Cluster, type Node, commandOf } from "./cluster.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

/** Commands of 1 KiB, an entry each, until the state is some hundreds of KiB: a transfer of many chunks. */
async function fill(cluster: Cluster, count: number, via?: Node): Promise<void> {
  let settled = 0;
  const node = via ?? cluster.leader();
  for (let i = 0; i < count; i++) {
    const command = commandOf({ i, filler: "x".repeat(1_000) });
    node?.replica?.submit(command, { timeoutMs: 10_000 }).then(
      () => (settled += 1),
      () => (settled += 1),
    );
    await cluster.run(1);
  }
  await cluster.run(20_000, () => settled === count);
  expect(settled).toBe(count);
}

function follower(cluster: Cluster): Node {
  const node = cluster.nodes.find((other) => other.replica !== null && other !== cluster.leader());
  if (node === undefined) throw new Error("no follower");
  return node;
}

/** A follower is down while 400 commands are logged and compacted away; its own log is long behind. */
async function outdated(
  seed: number,
  size = 3,
  network: ConstructorParameters<typeof Cluster>[2] = {},
): Promise<{ cluster: Cluster; victim: Node }> {
  const cluster = new Cluster(seed, size, network);
  await cluster.startAll();
  await fill(cluster, 20);
  const victim = follower(cluster);
  cluster.kill(victim);
  await fill(cluster, 400);
  await compactAll(cluster);
  return { cluster, victim };
}

async function compactAll(cluster: Cluster): Promise<void> {
  for (const node of cluster.nodes) if (node.replica !== null) await cluster.compact(node);
}

function equal(cluster: Cluster): boolean {
  const traces = cluster.nodes.map(({ machine }) => machine.trace.length);
  const applied = cluster.nodes.map(({ machine }) => Number(machine.applied().index));
  return (
    Math.min(...traces) === Math.max(...traces) && Math.min(...applied) === Math.max(...applied)
  );
}

function installs(node: Node): number {
  return node.replica?.counters.snapshotsInstalled ?? 0;
}

/** Sees, and may drop, what `node` sends of snapshots. */
function watch(
  node: Node,
  see: (frame: Extract<PeerFrame, { kind: "snapshot" }>["frame"]) => boolean,
) {
  const { transport } = node;
  if (transport === null) throw new Error(`${node.id} is down`);
  const send = transport.send.bind(transport);
  transport.send = (to, frame) =>
    frame.kind === "snapshot" && !see(frame.frame) ? true : send(to, frame);
}

describe("a member that was away while the log was compacted", () => {
  test("comes back through a snapshot while writes go on, and has everything", async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const { cluster, victim } = await outdated(seed);
      await cluster.start(victim);
      for (let i = 0; i < 10; i++) await fill(cluster, 20);
      await cluster.run(20_000, () => installs(victim) > 0 && equal(cluster));
      expect(installs(victim)).toBe(1);
      expect(victim.machine.trace.length).toBe(620);
      expect(Number(victim.disk.compacted.index)).toBeGreaterThan(300);
      cluster.check();
    }
  });

  test("does so over a network that loses, doubles, overtakes and damages", async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const { cluster, victim } = await outdated(100 + seed);
      Object.assign(cluster.network.options, {
        loss: 0.1,
        duplicate: 0.2,
        reorder: 0.2,
        corrupt: 0.2,
      });
      await cluster.start(victim);
      await cluster.run(60_000, () => installs(victim) > 0);
      Object.assign(cluster.network.options, { loss: 0, duplicate: 0, reorder: 0, corrupt: 0 });
      await cluster.run(30_000, () => equal(cluster));
      expect(equal(cluster)).toBe(true);
      cluster.check();
    }
  });

  test("says how far it is, while it fetches one", async () => {
    const { cluster, victim } = await outdated(8);
    const leader = cluster.leader();
    if (leader === null) throw new Error("no leader");
    expect(leader.replica?.status().receiving).toBeNull();
    await cluster.start(victim);
    const seen: { readonly bytes: number; readonly of: number }[] = [];
    watch(leader, () => {
      const receiving = victim.replica?.status().receiving ?? null;
      if (receiving !== null) seen.push(receiving);
      return true;
    });
    await cluster.run(20_000, () => installs(victim) > 0);
    const bytes = seen.map((at) => at.bytes);
    expect(new Set(bytes).size).toBeGreaterThan(2);
    expect(bytes).toEqual(bytes.toSorted((a, b) => a - b));
    expect(new Set(seen.map((at) => at.of)).size).toBe(1);
    expect(bytes.at(-1)).toBeLessThanOrEqual(seen[0]?.of ?? 0);
    expect(victim.replica?.status().receiving).toBeNull();
    expect(leader.replica?.counters.snapshotBytesSent).toBeGreaterThanOrEqual(seen[0]?.of ?? 0);
  });

  test("goes on where it was when the connection breaks twice in the middle", async () => {
    const { cluster, victim } = await outdated(7);
    const leader = cluster.leader();
    if (leader === null) throw new Error("no leader");
    await cluster.start(victim);
    let bytes = 0;
    let breaks = 0;
    watch(leader, (frame) => {
      if (frame.type !== "chunk") return true;
      bytes += frame.data.length;
      if (breaks < 2 && bytes > (breaks + 1) * 120_000) {
        breaks += 1;
        leader.transport?.break(victim.id);
      }
      return true;
    });
    await cluster.run(60_000, () => installs(victim) > 0 && equal(cluster));
    expect(breaks).toBe(2);
    expect(equal(cluster)).toBe(true);
    const size = victim.image?.length ?? 0;
    expect(size).toBeGreaterThan(300_000);
    // What had arrived was not sent again: at most what was under way, twice.
    expect(bytes).toBeLessThan(size + 600_000);
    cluster.check();
  });

  test("goes on from it when the word that it is installed gets lost", async () => {
    const { cluster, victim } = await outdated(8);
    await cluster.start(victim);
    const { transport } = victim;
    if (transport === null) throw new Error("no transport");
    const send = transport.send.bind(transport);
    let lost = 0;
    transport.send = (to, frame) => {
      if (lost > 0 || frame.kind !== "raft" || frame.message.type !== "snapshot-reply")
        return send(to, frame);
      lost += 1;
      return true;
    };
    await cluster.run(20_000, () => lost > 0);
    // The leader goes on meanwhile: what it offers again is another index than the copy that it still has.
    await fill(cluster, 5);
    await cluster.run(20_000, () => equal(cluster));
    expect(lost).toBe(1);
    expect(equal(cluster)).toBe(true);
    expect(installs(victim)).toBe(1);
    cluster.check();
  });

  test("is served by the next leader when the one that served it dies", async () => {
    for (let seed = 1; seed <= 5; seed++) {
      const { cluster, victim } = await outdated(200 + seed, 5);
      const leader = cluster.leader();
      if (leader === null) throw new Error("no leader");
      await cluster.start(victim);
      let chunks = 0;
      watch(leader, (frame) => {
        if (frame.type === "chunk") chunks += 1;
        return true;
      });
      await cluster.run(20_000, () => chunks >= 3);
      cluster.kill(leader);
      await cluster.run(60_000, () => installs(victim) > 0);
      expect(installs(victim)).toBe(1);
      await cluster.start(leader);
      await cluster.run(20_000, () => equal(cluster));
      expect(equal(cluster)).toBe(true);
      cluster.check();
    }
  });

  test("that dies in the middle of it, wherever, is well in the end", async () => {
    for (let seed = 1; seed <= 40; seed++) {
      const { cluster, victim } = await outdated(300 + seed);
      await cluster.start(victim);
      for (let i = 0; i < 3; i++) {
        await cluster.run(cluster.world.prng.float() * 120);
        cluster.kill(victim);
        await cluster.run(50);
        await cluster.start(victim);
      }
      // The state is switched before the log: equal is not done yet.
      const begins = (): number => Number(victim.disk.compacted.index);
      await cluster.run(60_000, () => equal(cluster) && begins() > 300);
      expect(equal(cluster)).toBe(true);
      expect(Number(victim.disk.compacted.index)).toBeGreaterThan(300);
      cluster.check();
    }
  });

  test("shares one copy with another that was away too", async () => {
    const { cluster, victim } = await outdated(9, 5);
    const second = follower(cluster);
    cluster.kill(second);
    await fill(cluster, 50);
    await compactAll(cluster);
    const identities = new Set<string>();
    const leader = cluster.leader();
    if (leader === null) throw new Error("no leader");
    watch(leader, (frame) => {
      if (frame.type === "manifest") identities.add(frame.manifest.id);
      return true;
    });
    await cluster.start(victim);
    await cluster.start(second);
    const bothInstalled = (): boolean => installs(victim) > 0 && installs(second) > 0;
    await cluster.run(60_000, () => equal(cluster) && bothInstalled());
    expect([installs(victim), installs(second)]).toEqual([1, 1]);
    expect(identities.size).toBe(1);
    cluster.check();
  });

  test("keeps the log behind its snapshot from compaction until it has caught up, and no longer", async () => {
    const { cluster, victim } = await outdated(11);
    const leader = cluster.leader();
    if (leader === null) throw new Error("no leader");
    // Nothing of the transfer comes through for a while.
    let open = false;
    watch(leader, (frame) => frame.type !== "chunk" || open);
    await cluster.start(victim);
    await cluster.run(5_000, () => leader.replica?.compactionFloor !== null);
    // Until the copy is made the floor is where it was asked for.
    await cluster.run(100);
    const floor = Number(leader.replica?.compactionFloor);
    expect(floor).toBeGreaterThan(300);
    await fill(cluster, 100);
    expect(await cluster.compact(leader)).toBe(floor);
    open = true;
    await cluster.run(60_000, () => equal(cluster));
    expect(installs(victim)).toBe(1);
    await cluster.run(10_000, () => leader.replica?.compactionFloor === null);
    expect(leader.replica?.compactionFloor ?? null).toBeNull();
    await compactAll(cluster);
    expect(Number(leader.disk.compacted.index)).toBe(Number(leader.machine.applied().index));
  });

  test("finds the log behind its snapshot at the next leader too, when the one that serves it loses its place", async () => {
    for (let seed = 1; seed <= 3; seed++) {
      const { cluster, victim } = await outdated(500 + seed);
      const leader = cluster.leader();
      if (leader === null) throw new Error("no leader");
      // The bytes are slow, and the cluster goes on.
      let open = false;
      watch(leader, (frame) => frame.type !== "chunk" || open);
      await cluster.start(victim);
      await cluster.run(5_000, () => leader.replica?.compactionFloor !== null);
      const floor = Number(leader.replica?.compactionFloor);
      const next = cluster.nodes.find((node) => node !== victim && node !== leader);
      if (next === undefined) throw new Error("no third member");
      await cluster.run(2_000, () => next.replica?.compactionFloor !== null);
      await fill(cluster, 50, leader);
      void leader.replica?.transfer(next.id, 2_000);
      await cluster.run(5_000, () => cluster.leader() === next);
      await fill(cluster, 50, next);
      expect(await cluster.compact(next)).toBeLessThanOrEqual(floor);
      open = true;
      await cluster.run(60_000, () => equal(cluster) && installs(victim) > 0);
      expect(installs(victim)).toBe(1);
      await cluster.run(60_000, () => next.replica?.compactionFloor === null);
      expect(next.replica?.compactionFloor ?? null).toBeNull();
      cluster.check();
    }
  });

  test("that never fetches it holds nothing back for ever", async () => {
    const { cluster, victim } = await outdated(12);
    const leader = cluster.leader();
    if (leader === null) throw new Error("no leader");
    watch(leader, (frame) => frame.type !== "chunk" && frame.type !== "manifest");
    await cluster.start(victim);
    await cluster.run(5_000, () => leader.replica?.compactionFloor !== null);
    const floor = Number(leader.replica?.compactionFloor);
    await fill(cluster, 50);
    await cluster.run(150_000, () => Number(leader.replica?.compactionFloor ?? floor + 1) > floor);
    expect(await cluster.compact(leader)).toBeGreaterThan(floor);
  });

  test("starts again from a log that begins behind a snapshot, and leads with it", async () => {
    const { cluster, victim } = await outdated(13);
    await cluster.start(victim);
    await cluster.run(60_000, () => equal(cluster));
    await compactAll(cluster);
    for (const node of cluster.nodes) cluster.kill(node);
    for (const node of cluster.nodes) await cluster.start(node);
    await cluster.run(10_000, () => cluster.leader() !== null);
    const leader = cluster.leader();
    // Not awaited: it takes its time in virtual time.
    if (leader !== victim) void leader?.replica?.transfer(victim.id, 1_000);
    expect(await cluster.run(10_000, () => cluster.leader() === victim)).toBe(true);
    await fill(cluster, 20);
    await cluster.run(10_000, () => equal(cluster));
    expect(equal(cluster)).toBe(true);
    expect(victim.machine.trace.length).toBe(440);
    expect(Object.keys(victim.replica?.status().configuration.members ?? {})).toHaveLength(3);
    cluster.check();
  });

  test("answers what it had submitted itself before the snapshot, once", async () => {
    const { cluster, victim } = await outdated(14);
    await cluster.start(victim);
    const answers: unknown[] = [];
    for (let i = 0; i < 20; i++) {
      await cluster.run(10);
      void victim.replica
        ?.submit(commandOf({ own: i }), { timeoutMs: 20_000 })
        .then((answer) => answers.push(answer));
    }
    await cluster.run(60_000, () => installs(victim) > 0 && answers.length === 20);
    expect(new Set(answers).size).toBe(20);
    await cluster.run(5_000, () => equal(cluster));
    expect(victim.machine.trace.filter((text) => text.includes("own"))).toHaveLength(20);
    cluster.check();
  });
});
