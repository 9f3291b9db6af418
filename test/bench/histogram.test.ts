import { expect, test } from "bun:test";
import fc from "fast-check";
import { Histogram } from "./histogram.ts";
import { percentile } from "./statistics.ts";

test("percentiles of the histogram are within one per cent of the exact ones", () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0.001, max: 60_000, noNaN: true }), { minLength: 1 }),
      fc.constantFrom(50, 90, 99, 99.9, 100),
      (values, percent) => {
        const histogram = new Histogram();
        for (const value of values) histogram.record(value);
        const sorted = [...values].sort((a, b) => a - b);
        const exact = sorted[Math.max(1, Math.ceil((percent / 100) * sorted.length)) - 1] ?? 0;
        const error = Math.abs(histogram.percentile(percent) - exact);
        expect(error).toBeLessThanOrEqual(Math.max(0.001, exact * 0.0079));
      },
    ),
  );
});

test("the median of an even number of values lies between the middle two", () => {
  expect(percentile([4, 1, 3, 2], 50)).toBe(2.5);
  expect(percentile([], 50)).toBeNaN();
});
