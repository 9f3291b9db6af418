import { expect, test } from "bun:test";
import { Reads } from "../../src/replica/reads.ts";
import { asIndex, type LogIndex } from "../../src/raft/types.ts";
import { ConsensusError } from "../../src/replica/consensus.ts";
import { NodeClock, World } from "../sim/world.ts";

test("a read is answered where every round takes longer than a lost one is waited for at first", async () => {
  const world = new World(1);
  const clock = new NodeClock(world);
  let started = 0;
  const reads: Reads = new Reads(clock, 1, (id) => {
    started += 1;
    world.at(world.now + 900, () => reads.answered(id, asIndex(7)));
  });
  const tick = (): void => {
    reads.sweep(world.now, () => new ConsensusError("no-quorum", "late"));
    world.at(world.now + 10, tick);
  };
  tick();
  const ask = async (): Promise<LogIndex | string | null> => {
    let answer: LogIndex | string | null = null;
    reads.add({
      deadline: world.now + 5_000,
      safe: (index) => (answer = index),
      reject: ({ reason }) => (answer = reason),
    });
    await world.run(world.now + 6_000, () => answer !== null);
    return answer;
  };
  expect(await ask()).toBe(asIndex(7));
  // From then on it is known how long one takes.
  started = 0;
  expect(await ask()).toBe(asIndex(7));
  expect(started).toBe(1);
  expect(reads.size).toBe(0);
});
