import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Message, NodeId } from "../../src/raft/types.ts";
import { Cluster, commandOf, type Node } from "./cluster.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

/** Three members in virtual time, and what the leader's core says to the others from now on. */
async function started(seed: number) {
  const cluster = new Cluster(seed, 3);
  await cluster.startAll();
  await cluster.run(1_000);
  const leader = cluster.leader();
  if (leader?.transport === null || leader?.transport === undefined) throw new Error("no leader");
  const said: Message[] = [];
  const { transport } = leader;
  const send = transport.send.bind(transport);
  transport.send = (to, frame) => {
    if (frame.kind === "raft") said.push(frame.message);
    return send(to, frame);
  };
  return { cluster, leader, said };
}

async function submit(cluster: Cluster, at: Node, awaitedElsewhere = false): Promise<void> {
  let done = false;
  const options = { timeoutMs: 5_000, awaitedElsewhere };
  at.replica?.submit(commandOf({ n: 1 }), options).then(
    () => (done = true),
    () => undefined,
  );
  if (!(await cluster.run(5_000, () => done))) throw new Error("no answer");
}

/** Whom the leader told of a commit by a message of its own. */
const told = (said: readonly Message[]): NodeId[] =>
  said.filter(({ type }) => type === "commit").map(({ to }) => to);

describe("the news of a commit", () => {
  test("are not sent for each entry while entries come, and arrive all the same when none comes", async () => {
    const { cluster, leader, said } = await started(1);
    const began = cluster.world.now;
    for (let i = 0; i < 50; i++) await submit(cluster, leader);
    const ticks = (cluster.world.now - began) / 10;
    expect(told(said).length).toBeLessThanOrEqual(2 * Math.ceil(ticks));
    // Nothing but entries is acknowledged: an empty append only looks for what was lost.
    const appends = said.filter(({ type }) => type === "append");
    expect(
      appends.filter((each) => each.type === "append" && each.entries.length > 0),
    ).toHaveLength(100);
    await cluster.run(30);
    for (const node of cluster.nodes)
      expect(node.machine.applied().index).toBe(leader.machine.applied().index);
    const before = told(said).length;
    await cluster.run(1_000);
    expect(told(said)).toHaveLength(before);
  });

  test("leave at once for the member whose own command it was", async () => {
    const { cluster, leader, said } = await started(2);
    const follower = cluster.nodes.find((node) => node !== leader);
    if (follower === undefined) throw new Error("no follower");
    said.length = 0;
    await submit(cluster, follower);
    expect(new Set(told(said)).has(follower.id)).toBe(true);
  });

  test("leave at once for everybody where anybody may act on what was committed", async () => {
    const { cluster, leader, said } = await started(3);
    said.length = 0;
    await submit(cluster, leader, true);
    expect(told(said).toSorted()).toEqual(
      cluster.nodes
        .filter((node) => node !== leader)
        .map(({ id }) => id)
        .toSorted(),
    );
    said.length = 0;
    await submit(cluster, leader);
    expect(told(said)).toEqual([]);
  });
});
