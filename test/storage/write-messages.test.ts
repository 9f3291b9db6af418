import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { asIndex, asNodeId, asTerm, type EntryKind } from "../../src/raft/types.ts";
import { packWrites, unpackWrites } from "../../src/storage/write-messages.ts";

const count = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const write = fc.record({
  hardState: fc.option(
    fc.record({
      term: count.map(asTerm),
      vote: fc.option(fc.stringMatching(/^[a-z0-9-]{1,32}$/).map(asNodeId)),
    }),
  ),
  entries: fc.array(
    fc.record({
      term: count.map(asTerm),
      index: count.map(asIndex),
      kind: fc.constantFrom<EntryKind>("noop", "command", "config", "bootstrap"),
      data: fc.uint8Array({ maxLength: 40 }),
    }),
    { maxLength: 4 },
  ),
});

describe("writes on their way to the log's thread", () => {
  test("come out as they went in", () => {
    fc.assert(
      fc.property(fc.array(write, { maxLength: 5 }), (writes) => {
        expect(unpackWrites(packWrites(writes))).toEqual(writes);
      }),
      { numRuns: 200 },
    );
  });
});
