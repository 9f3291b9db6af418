import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Inflights } from "../../src/raft/inflights.ts";
import { asIndex } from "../../src/raft/types.ts";

const steps = fc.array(
  fc.oneof(
    fc.record({
      do: fc.constant("add" as const),
      ahead: fc.integer({ min: 1, max: 4 }),
      bytes: fc.nat(40),
    }),
    fc.record({ do: fc.constant("free" as const), to: fc.nat(60) }),
    fc.record({ do: fc.constant("reset" as const) }),
  ),
  { maxLength: 60 },
);

describe("inflights", () => {
  test("behave as a plain list of what was sent and not answered", () => {
    fc.assert(
      fc.property(
        steps,
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 100 }),
        (list, max, maxBytes) => {
          const inflights = new Inflights(max, maxBytes);
          let naive: { last: number; bytes: number }[] = [];
          let last = 0;
          for (const step of list) {
            const sum = naive.reduce((total, { bytes }) => total + bytes, 0);
            const full = naive.length >= max || sum >= maxBytes;
            expect(inflights.full).toBe(full);
            if (step.do === "free") {
              inflights.freeTo(asIndex(step.to));
              naive = naive.filter((sent) => sent.last > step.to);
            } else if (step.do === "reset") {
              inflights.reset();
              naive = [];
            } else if (full) {
              expect(() => inflights.add(asIndex(last + step.ahead), step.bytes)).toThrow(
                "full window",
              );
            } else {
              last += step.ahead;
              inflights.add(asIndex(last), step.bytes);
              naive.push({ last, bytes: step.bytes });
            }
            expect(inflights.count).toBe(naive.length);
            expect(inflights.bytes).toBe(naive.reduce((total, { bytes }) => total + bytes, 0));
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  test("one message larger than the whole window passes when nothing is in flight", () => {
    const inflights = new Inflights(4, 100);
    inflights.add(asIndex(1), 5_000);
    expect(inflights.full).toBe(true);
    inflights.freeTo(asIndex(1));
    expect(inflights.full).toBe(false);
  });

  test("an index that does not grow is a broken invariant", () => {
    const inflights = new Inflights(4, 100);
    inflights.add(asIndex(3), 1);
    expect(() => inflights.add(asIndex(3), 1)).toThrow("ascend");
  });
});
