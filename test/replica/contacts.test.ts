import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { EMPTY_CONFIGURATION } from "../../src/raft/configuration.ts";
import { asNodeId, type NodeId } from "../../src/raft/types.ts";
import { Contacts } from "../../src/replica/contacts.ts";

const IDS = ["n1", "n2", "n3", "n4", "n5"].map(asNodeId);

describe("the newest contact with a quorum", () => {
  test("is as old as the member that makes the majority full, in both halves of a joint configuration", () => {
    const heard = fc.array(fc.option(fc.nat({ max: 100 })), { minLength: 5, maxLength: 5 });
    const half = fc.subarray(IDS, { minLength: 1 });
    fc.assert(
      fc.property(
        heard,
        half,
        fc.oneof(half, fc.constant<NodeId[]>([])),
        (ats, voters, outgoing) => {
          const contacts = new Contacts(asNodeId("n1"));
          const ages = new Map<NodeId, number>();
          for (const [i, id] of IDS.entries()) {
            const at = ats[i] ?? null;
            if (at !== null) contacts.heard(id, at);
            ages.set(id, at === null ? Number.POSITIVE_INFINITY : 100 - at);
          }
          ages.set(asNodeId("n1"), 0);
          const majority = (ids: readonly NodeId[]): number =>
            ids.map((id) => ages.get(id) ?? 0).toSorted((a, b) => a - b)[
              Math.floor(ids.length / 2)
            ] ?? 0;
          const worst = Math.max(majority(voters), majority(outgoing));
          const configuration = { ...EMPTY_CONFIGURATION, voters, outgoing };
          expect(contacts.quorumMs(configuration, 100)).toBe(Number.isFinite(worst) ? worst : null);
        },
      ),
      { numRuns: 200 },
    );
  });
});
