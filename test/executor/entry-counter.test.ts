import { describe, expect, test } from "bun:test";
import { EntryCounter } from "../../src/executor/entry-counter.ts";

describe("the entries of a Worker", () => {
  test("a task that was taken back cannot be entered, and one that was entered not be taken back", () => {
    const pool = new EntryCounter();
    const worker = new EntryCounter(pool.buffer);
    expect(worker.enter(0)).toBe(true);
    expect(worker.enter(0)).toBe(false);
    expect([pool.isPast(0), pool.isPast(1)]).toEqual([true, false]);
    expect(pool.takeBack(4)).toBe(1);
    expect([1, 2, 3].map((number) => worker.enter(number))).toEqual([false, false, false]);
    expect(pool.takeBack(4)).toBe(4);
    expect(worker.enter(4)).toBe(true);
    expect(pool.takeBack(4)).toBe(4);
    expect(pool.next).toBe(5);
  });

  test("counting goes on past the largest number", () => {
    const pool = new EntryCounter();
    const cells = new Int32Array(pool.buffer);
    cells[0] = 2 ** 31 - 1;
    const worker = new EntryCounter(pool.buffer);
    expect(worker.enter(2 ** 31 - 1)).toBe(true);
    expect(pool.isPast(2 ** 31 - 1)).toBe(true);
    expect(pool.isPast(2 ** 31)).toBe(false);
    expect(worker.enter(2 ** 31)).toBe(true);
    expect(pool.takeBack(2 ** 31 + 3)).toBe((2 ** 31 + 1) | 0);
    expect(worker.enter(2 ** 31 + 2)).toBe(false);
  });
});
