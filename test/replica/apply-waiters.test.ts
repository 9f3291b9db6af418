import { expect, test } from "bun:test";
import { asIndex } from "../../src/raft/types.ts";
import { ApplyWaiters } from "../../src/replica/apply-waiters.ts";

test("reads that wait for what is not applied are bounded, and each is answered once", () => {
  const waiters = new ApplyWaiters();
  let served = 0;
  let refused = 0;
  for (let n = 0; n < 30_000; n++)
    waiters.add({
      index: asIndex(5),
      deadline: 1_000,
      resolve: () => (served += 1),
      reject: () => (refused += 1),
    });
  expect(refused).toBe(10_000);
  waiters.applied(asIndex(4));
  expect(served).toBe(0);
  waiters.applied(asIndex(5));
  waiters.applied(asIndex(6));
  expect(served).toBe(20_000);
});
