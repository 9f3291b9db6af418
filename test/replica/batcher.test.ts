import { expect, test } from "bun:test";
import { asNodeId } from "../../src/raft/types.ts";
import {
  Batcher,
  ENTRIES_IN_FLIGHT_MAX,
  FULL_ENTRIES_IN_FLIGHT_MAX,
} from "../../src/replica/batcher.ts";

const N1 = asNodeId("n1");
const N2 = asNodeId("n2");

/** Commands of two members by turns. */
function filled(count: number, weight: number): Batcher {
  const batcher = new Batcher();
  for (let seq = 1; seq <= count; seq++) {
    const member = seq % 2 === 0 ? N1 : N2;
    const command = new Uint8Array(10);
    batcher.add({ member, boot: 1, seq, command, weight, hint: null, awaitedElsewhere: false });
  }
  return batcher;
}

test("more entries may be on their way while what waits fills one more, and no more than so many then", () => {
  const some = filled(999, 1);
  expect(some.maySeal(ENTRIES_IN_FLIGHT_MAX - 1)).toBe(true);
  expect(some.maySeal(ENTRIES_IN_FLIGHT_MAX)).toBe(false);
  const many = filled(1_500, 1);
  expect(many.maySeal(ENTRIES_IN_FLIGHT_MAX)).toBe(true);
  expect(many.maySeal(FULL_ENTRIES_IN_FLIGHT_MAX)).toBe(false);
  // What is left fills none any more.
  expect(many.take()).toHaveLength(1_000);
  expect(many.maySeal(ENTRIES_IN_FLIGHT_MAX)).toBe(false);
});

test("an entry holds so many commands, or so many rows, or one command of more", () => {
  expect(filled(3_000, 1).take()).toHaveLength(1_000);
  expect(filled(100, 100).take()).toHaveLength(20);
  expect(filled(2, 5_000).take()).toHaveLength(1);
});
