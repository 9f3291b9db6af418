import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  allVoters,
  hasQuorum,
  isVoter,
  reachedByMajority,
  reachedByQuorum,
  voteResult,
} from "../../src/raft/quorum.ts";
import { asNodeId, type NodeId } from "../../src/raft/types.ts";

const IDS = ["a", "b", "c", "d", "e", "f", "g"].map(asNodeId);
const someVoters = fc.subarray(IDS, { minLength: 1 });
const halves = fc.record({ voters: someVoters, outgoing: fc.subarray(IDS) });
const matches = fc.array(fc.nat(6), { minLength: IDS.length, maxLength: IDS.length });
const matchOf = (values: readonly number[]) => (id: NodeId) => values[IDS.indexOf(id)] ?? 0;

/** By definition: the largest number that more than half have reached. */
function bruteForce(voters: readonly NodeId[], reached: (id: NodeId) => number): number {
  for (let candidate = 6; candidate > 0; candidate--) {
    if (voters.filter((id) => reached(id) >= candidate).length * 2 > voters.length)
      return candidate;
  }
  return 0;
}

describe("quorum arithmetic", () => {
  test("a majority has reached what counting says it has", () => {
    fc.assert(
      fc.property(someVoters, matches, (voters, values) => {
        expect(reachedByMajority(voters, matchOf(values))).toBe(
          bruteForce(voters, matchOf(values)),
        );
      }),
      { numRuns: 500 },
    );
  });

  test("a joint quorum has reached what both halves have", () => {
    fc.assert(
      fc.property(halves, matches, ({ voters, outgoing }, values) => {
        const both = Math.min(
          bruteForce(voters, matchOf(values)),
          outgoing.length === 0 ? Infinity : bruteForce(outgoing, matchOf(values)),
        );
        expect(reachedByQuorum({ voters, outgoing }, matchOf(values))).toBe(both);
      }),
      { numRuns: 500 },
    );
  });

  test("any two quorums of a configuration, and of it and the joint one after it, share a member", () => {
    fc.assert(
      fc.property(halves, fc.subarray(IDS), fc.subarray(IDS), (joint, left, right) => {
        const old = { voters: joint.outgoing, outgoing: [] };
        fc.pre(joint.outgoing.length > 0);
        fc.pre(
          hasQuorum(joint, (id) => left.includes(id)) && hasQuorum(old, (id) => right.includes(id)),
        );
        expect(left.some((id) => right.includes(id))).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  test("a vote is won by a quorum of grants, lost when none is possible any more, and open else", () => {
    const answers = fc.array(fc.constantFrom(true, false, null), {
      minLength: IDS.length,
      maxLength: IDS.length,
    });
    fc.assert(
      fc.property(halves, answers, (config, given) => {
        const votes = new Map<NodeId, boolean>();
        IDS.forEach((id, i) => {
          const answer = given[i];
          if (typeof answer === "boolean") votes.set(id, answer);
        });
        const won = hasQuorum(config, (id) => votes.get(id) === true);
        const possible = hasQuorum(config, (id) => votes.get(id) !== false);
        expect(voteResult(config, votes)).toBe(won ? "won" : possible ? "pending" : "lost");
      }),
      { numRuns: 500 },
    );
  });

  test("without any voter nothing is reached and nobody wins", () => {
    const nobody = { voters: [], outgoing: [] };
    expect(reachedByQuorum(nobody, () => 9)).toBe(0);
    expect(hasQuorum(nobody, () => true)).toBe(false);
    expect(voteResult(nobody, new Map([[asNodeId("a"), true]]))).toBe("lost");
  });

  test("a member of both halves is asked once", () => {
    const [a, b, c] = IDS as [NodeId, NodeId, NodeId];
    const joint = { voters: [a, b], outgoing: [b, c] };
    expect(allVoters(joint)).toEqual([a, b, c]);
    expect(isVoter(joint, c)).toBe(true);
    expect(isVoter(joint, asNodeId("z"))).toBe(false);
  });
});
