/** Text of the pages. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { cutText, formatAge, formatCount, formatDuration, indentJson } from "../../views/format.ts";
import { axisTop } from "../../views/throughput.tsx";

describe("JSON laid out over lines", () => {
  test("means the same, for any value", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = JSON.stringify(value);
        expect(JSON.parse(indentJson(text))).toEqual(JSON.parse(text));
      }),
    );
  });

  test("keeps every character that is not white space, in any text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (text) => {
        const bare = (of: string) => of.replace(/\s/g, "");
        expect(bare(indentJson(text))).toBe(bare(text));
      }),
    );
  });

  test("leaves strings and numbers as they were sent", () => {
    expect(indentJson('{"a":1.0,"b":[],"c":{"d":"{ , }"},"e":1e400}')).toBe(
      '{\n  "a": 1.0,\n  "b": [],\n  "c": {\n    "d": "{ , }"\n  },\n  "e": 1e400\n}',
    );
  });

  test("is not slow on deep or broken text", () => {
    expect(indentJson("[".repeat(20_000)).length).toBeLessThan(4_000_000);
    expect(indentJson('"\\')).toBe('"\\');
  });
});

test("durations, ages and counts read naturally", () => {
  expect(
    [0, 999, 1_500, 59_999, 61_000, 300_000, 7_260_000, 200_000_000].map(formatDuration),
  ).toEqual(["0 ms", "999 ms", "1.5 s", "59 s", "1 min 1 s", "5 min", "2 h 1 min", "2 d 7 h"]);
  expect(formatAge(1_000, 2_000)).toBe("just now");
  expect(formatAge(0, 63_000)).toBe("1 min ago");
  expect(formatAge(100_000, 0)).toBe("in 1 min");
  expect([0, 999, 1_000, 1_234_567].map(formatCount)).toEqual(["0", "999", "1,000", "1,234,567"]);
});

test("cutting never leaves half a character", () => {
  expect(cutText("ab😀", 3)).toEqual({ text: "ab", cut: true });
  expect(cutText("ab😀", 4)).toEqual({ text: "ab😀", cut: false });
});

test("the chart's scale is round and holds the peak", () => {
  expect([1, 3, 7, 60, 999].map(axisTop)).toEqual([1, 5, 10, 100, 1_000]);
});
