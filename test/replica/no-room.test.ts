/** A member whose state finds no room on its disk, in the whole driver and in virtual time (docs/storage.md). */
import { expect, setDefaultTimeout, test } from "bun:test";
import { ConsensusError } from "../../src/replica/consensus.ts";
import { NoRoomError } from "../../src/replica/ports.ts";
import { Cluster, commandOf, type Node } from "./cluster.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

/** Its state goes back to where it is now, again and again, until the disk has room. */
function fill(node: Node): void {
  const { machine } = node;
  const image = machine.image();
  node.diskFull = true;
  const apply = machine.apply.bind(machine);
  machine.apply = (entries) => {
    if (!node.diskFull) return apply(entries);
    machine.restore(image);
    throw new NoRoomError("no room");
  };
}

async function submit(cluster: Cluster, node: Node): Promise<boolean> {
  let answered = false;
  node.replica?.submit(commandOf({ at: cluster.world.now }), { timeoutMs: 3_000 }).then(
    () => (answered = true),
    () => undefined,
  );
  await cluster.run(3_500, () => answered);
  return answered;
}

test("it applies nothing, answers no linearizable read out of an old state, and goes on by itself", async () => {
  for (const what of ["leader", "follower"] as const) {
    const cluster = new Cluster(what === "leader" ? 1 : 2, 3);
    await cluster.startAll();
    const leader = cluster.leader();
    const follower = cluster.nodes.find((node) => node !== leader);
    if (leader === null || follower === undefined) throw new Error("no leader");
    const full = what === "leader" ? leader : follower;
    const other = cluster.nodes.find((node) => node !== full) ?? leader;
    expect(await submit(cluster, other)).toBe(true);
    await cluster.run(500);
    const before = full.machine.trace.length;
    fill(full);
    await cluster.run(2_500);
    // A leader hands over to one that has room, and everything goes on there.
    expect(cluster.leader()).not.toBe(what === "leader" ? full : null);
    const through = cluster.nodes.find((node) => node !== full) ?? other;
    expect(await submit(cluster, through)).toBe(true);
    await cluster.run(1_000);
    expect(full.machine.trace.length).toBe(before);
    let read = "waits";
    full.replica?.linearize(60_000).then(
      () => (read = "answered"),
      (error: unknown) => (read = error instanceof ConsensusError ? error.reason : "failed"),
    );
    await cluster.run(1_000);
    // At once, and not `no-quorum`: the others are well, and can be asked.
    expect(read).toBe("low-disk");
    // What it shows without asking anybody is as old as it says.
    expect(full.replica?.status().stalenessMs ?? 0).toBeGreaterThan(2_000);
    full.diskFull = false;
    await cluster.run(3_000);
    expect(full.machine.trace.length).toBe(through.machine.trace.length);
    expect(full.replica?.status().stalenessMs ?? Infinity).toBeLessThan(1_000);
    expect(await submit(cluster, full)).toBe(true);
    cluster.check();
  }
});

test("a thousand linearizable reads of one moment share a few rounds, at the leader and at a follower", async () => {
  const cluster = new Cluster(3, 3);
  await cluster.startAll();
  await cluster.run(1_000);
  const leader = cluster.leader();
  const follower = cluster.nodes.find((node) => node !== leader);
  for (const node of [leader, follower]) {
    let heartbeats = 0;
    cluster.network.watch = {
      sent: (_from, to, frame) => {
        if (frame.kind === "raft" && frame.message.type === "heartbeat" && to === follower?.id)
          heartbeats += 1;
      },
      delivered: () => undefined,
    };
    let done = 0;
    for (let n = 0; n < 1_000; n++) void node?.replica?.linearize(1_000).then(() => (done += 1));
    const startedAt = cluster.world.now;
    await cluster.run(1_000, () => done === 1_000);
    expect(done).toBe(1_000);
    // One round for all of them, and those that the clock begins anyway.
    expect(heartbeats).toBeLessThanOrEqual(2 + Math.ceil((cluster.world.now - startedAt) / 50));
  }
});
