import { describe, expect, test } from "bun:test";
import { Pressure } from "../../src/queue/pressure.ts";

let clock = 0;

/** `rate` answers a second of a first-in-first-out queue that is filled at `offered` a second, for `seconds`. */
function run(pressure: Pressure, offered: number, rate: number, seconds: number) {
  const queue: number[] = [];
  const start = clock;
  let taken = 0;
  let refused = 0;
  let longestMs = 0;
  let answered = 0;
  let due = 0;
  let able = 0;
  for (let now = start; now < start + seconds * 1_000; now++) {
    due += offered / 1_000;
    able = Math.min(1, able) + rate / 1_000;
    for (; due >= 1; due--) {
      if (pressure.refuses()) refused++;
      else {
        pressure.began();
        queue.push(now);
        taken++;
      }
    }
    for (; able >= 1; able--) {
      const since = queue.shift();
      if (since === undefined) break;
      answered++;
      longestMs = Math.max(longestMs, now - since);
      pressure.ended(now, now - since);
    }
  }
  clock = start + seconds * 1_000;
  // What was taken in one run is not answered in the next one.
  for (const _ of queue) pressure.ended(clock, null);
  return { taken, refused, longestMs, answered };
}

test("what can be answered is taken", () => {
  expect(run(new Pressure(), 2_000, 3_000, 10).refused).toBe(0);
});

test.each([400, 1_000, 2_000])(
  "at twice of what %d a second are, the rest is refused, waits stay short, and nothing stands idle",
  (rate) => {
    const pressure = new Pressure();
    // Until the queue is found out, what was taken before it was has to be answered.
    expect(run(pressure, 2 * rate, rate, 20).longestMs).toBeLessThan(5_000);
    const { refused, longestMs, answered } = run(pressure, 2 * rate, rate, 20);
    expect(refused).toBeGreaterThan(0.9 * 20 * rate);
    expect(longestMs).toBeLessThan(2_500);
    expect(answered).toBeGreaterThan(0.98 * 20 * rate);
    expect(run(pressure, 0.9 * rate, rate, 20).refused).toBeLessThan(0.02 * 20 * rate);
  },
);

test("a fast member refuses by the number that waits, long before a wait is long", () => {
  const { refused, longestMs } = run(new Pressure(), 40_000, 20_000, 5);
  expect(refused).toBeGreaterThan(0);
  expect(longestMs).toBeLessThan(700);
});

test("a pause is no overload: what waited through an election is answered, and the next is taken", () => {
  const pressure = new Pressure();
  for (let i = 0; i < 1_000; i++) pressure.began();
  for (let i = 0; i < 1_000; i++) pressure.ended(900, 900);
  expect(pressure.refuses()).toBe(false);
  for (let now = 901; now < 3_000; now++) {
    pressure.began();
    expect(pressure.refuses()).toBe(false);
    pressure.ended(now, 1);
  }
});

test("one late window is no queue: what waited through a longer pause may be answered slowly", () => {
  const pressure = new Pressure();
  for (let i = 0; i < 5_000; i++) pressure.began();
  for (let i = 0; i < 4_800; i++) pressure.ended(700 + i / 8, 700 + i / 8);
  for (let i = 0; i < 6_000; i++) {
    expect(pressure.refuses()).toBe(false);
    pressure.began();
  }
});

test("submits that end without an answer say nothing of the wait", () => {
  const pressure = new Pressure();
  for (let i = 0; i < 2_000; i++) pressure.began();
  for (let i = 0; i < 1_000; i++) pressure.ended(5_000 + i * 10, null);
  expect(pressure.refuses()).toBe(false);
  expect(pressure.waiting).toBe(1_000);
});

/**
 * One thread serves callers in rounds, and a submit is answered `rounds` rounds after its own: acknowledgements of other members wait
 * between the callers' sockets. Refused callers ask again after 5 ms, answered ones at once. For `seconds`; tells of the rates.
 */
function crowd(pressure: Pressure, callers: number, seconds: number) {
  const start = clock;
  const comes = Array.from({ length: callers }, () => start);
  const since = Array.from({ length: callers }, () => 0);
  const underWay: number[][] = Array.from({ length: ROUNDS }, () => []);
  let answered = 0;
  let now = start;
  while (now < start + seconds * 1_000) {
    const roundStart = now;
    const taken: number[] = [];
    for (let caller = 0; caller < callers; caller++) {
      if ((comes[caller] ?? 0) > roundStart) continue;
      if (pressure.refuses()) {
        now += REFUSAL_MS;
        comes[caller] = now + 5;
      } else {
        pressure.began();
        since[caller] = now;
        now += SUBMIT_MS;
        comes[caller] = Infinity;
        taken.push(caller);
      }
    }
    now = Math.max(now, roundStart + 0.1);
    underWay.push(taken);
    for (const caller of underWay.shift() ?? []) {
      answered++;
      pressure.ended(now, now - (since[caller] ?? 0));
      comes[caller] = now;
    }
  }
  for (let left = underWay.flat().length; left > 0; left--) pressure.ended(now, null);
  clock = now;
  return answered / seconds;
}

const ROUNDS = 4;
const SUBMIT_MS = 0.08;
const REFUSAL_MS = 0.035;
const MOST = 1_000 / SUBMIT_MS;

describe("a wait that is not made by those who wait", () => {
  test.each([2_000, 8_000, 11_000])(
    "the limit does not fall for %d callers that hammer",
    (callers) => {
      const pressure = new Pressure();
      crowd(pressure, callers, 30);
      expect(crowd(pressure, callers, 60)).toBeGreaterThan(0.9 * MOST);
    },
  );

  test("after batches that were too many, it rises again under the crowd", () => {
    const pressure = new Pressure();
    run(pressure, 800, 400, 20);
    expect(crowd(pressure, 8_000, 20)).toBeGreaterThan(0.3 * MOST);
    expect(crowd(pressure, 8_000, 60)).toBeGreaterThan(0.9 * MOST);
  });

  test("more callers than may wait get most of what can be answered, though the rest hammer", () => {
    const pressure = new Pressure();
    crowd(pressure, 16_000, 60);
    expect(crowd(pressure, 16_000, 120)).toBeGreaterThan(0.4 * MOST);
  });
});

test("where nothing waited for a while, a limit of before is gone", () => {
  const pressure = new Pressure();
  run(pressure, 800, 400, 20);
  clock += 20_000;
  for (let i = 0; i < 12_000; i++) {
    pressure.began();
    pressure.ended(clock, 1);
    pressure.began();
  }
  expect(pressure.refuses()).toBe(false);
});
