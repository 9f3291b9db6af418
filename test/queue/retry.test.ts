import { describe, expect, test } from "bun:test";
import { cutText, CUT_MARK, utf8Length } from "../../src/queue/cut.ts";
import { backoffMs, jitterHash } from "../../src/queue/retry.ts";
import { DEFAULT_RETRY, type RetryPolicy } from "../../src/queue/types.ts";

const plain = (more: Partial<RetryPolicy>): RetryPolicy => ({
  ...DEFAULT_RETRY,
  jitter: false,
  ...more,
});

describe("backoff", () => {
  test("grows by the factor, by steps or not at all, and never passes its cap", () => {
    const delays = (policy: RetryPolicy) => [1, 2, 3, 4, 5].map((n) => backoffMs(policy, n, 0));
    expect(delays(plain({}))).toEqual([1_000, 2_000, 4_000, 8_000, 16_000]);
    expect(delays(plain({ max_ms: 5_000 }))).toEqual([1_000, 2_000, 4_000, 5_000, 5_000]);
    expect(delays(plain({ kind: "linear" }))).toEqual([1_000, 2_000, 3_000, 4_000, 5_000]);
    expect(delays(plain({ kind: "fixed" }))).toEqual(Array<number>(5).fill(1_000));
    expect(delays(plain({ kind: "none" }))).toEqual(Array<number>(5).fill(0));
    expect(backoffMs(plain({}), 1e9, 0)).toBe(300_000);
    expect(backoffMs(plain({ factor: 1 }), 1e9, 0)).toBe(1_000);
  });

  test("equal jitter stays between half and whole, and uses the range", () => {
    const seen: number[] = [];
    for (let seq = 1; seq <= 2_000; seq++) {
      const delay = backoffMs(DEFAULT_RETRY, 3, jitterHash(99, seq, 3));
      expect(delay).toBeGreaterThanOrEqual(2_000);
      expect(delay).toBeLessThanOrEqual(4_000);
      seen.push(delay);
    }
    const mean = seen.reduce((sum, delay) => sum + delay, 0) / seen.length;
    expect(Math.abs(mean - 3_000)).toBeLessThan(60);
    expect(Math.min(...seen)).toBeLessThan(2_050);
    expect(Math.max(...seen)).toBeGreaterThan(3_950);
  });

  test("the hash depends on seed, sequence and attempt, and stays as it is", () => {
    const base = jitterHash(1, 2, 3);
    expect(jitterHash(2, 2, 3)).not.toBe(base);
    expect(jitterHash(1, 3, 3)).not.toBe(base);
    expect(jitterHash(1, 2, 4)).not.toBe(base);
    expect(jitterHash(1, 2 + 2 ** 32, 3)).not.toBe(base);
    // A change here would make members of two builds disagree.
    expect([jitterHash(0, 0, 0), base]).toEqual([0, 3_037_044_819]);
  });
});

describe("cutting", () => {
  test("keeps what fits, marks what it cut, and never splits a character", () => {
    expect(cutText("short", 100)).toBe("short");
    for (const text of ["x".repeat(50), "é".repeat(50), "€".repeat(50), "🚢".repeat(50)]) {
      for (let max = 20; max < 45; max++) {
        const cut = cutText(text, max);
        expect(utf8Length(cut)).toBeLessThanOrEqual(max);
        expect(cut).toEndWith(CUT_MARK);
        expect(text.startsWith(cut.slice(0, -CUT_MARK.length))).toBe(true);
      }
      expect(cutText(text, utf8Length(text))).toBe(text);
    }
  });
});
