import { describe, expect, test } from "bun:test";
import { asThen, runSeed } from "./batch.ts";
import { SEEDS_VARIABLE } from "./coverage.ts";
import { type SimResult, Simulation } from "./simulation.ts";

/** Quick ones of many kinds: two to seven members, a dozen families of faults and more, and members that come and go. */
const ALWAYS = [15, 21, 49, 50, 70, 92];

/** A seed of the file, and the families of faults that were not there when it was found. */
type Storied = readonly [seed: number, without: readonly string[]];

async function storied(): Promise<Storied[]> {
  const text = await Bun.file(new URL("seeds.txt", import.meta.url)).text();
  const seeds = new Map<number, Storied>();
  let without: readonly string[] = [];
  for (const line of text.split("\n")) {
    const [first = "", ...rest] = line.split(/\s+/);
    if (first === "without") without = rest;
    const seed = Number.parseInt(first, 10);
    if (/^\d+$/.test(first) && !seeds.has(seed)) seeds.set(seed, [seed, without]);
  }
  return [...seeds.values()];
}

async function run(seed: number): Promise<SimResult> {
  const sim = new Simulation(seed);
  try {
    return await sim.run();
  } finally {
    sim.close();
  }
}

/** Those that break something, run on a thread of their own. */
async function onThread(seeds: readonly Storied[]): Promise<unknown> {
  const thread = new Worker(new URL("seeds-thread.ts", import.meta.url).href);
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  thread.addEventListener("message", ({ data }) => resolve(data));
  thread.addEventListener("error", ({ message }) => reject(new Error(message)));
  thread.postMessage(seeds);
  try {
    return await promise;
  } finally {
    thread.terminate();
  }
}

describe("whole members in virtual time", () => {
  for (const seed of ALWAYS) {
    test(`keep every rule under the faults of seed ${seed}`, async () => {
      const { failure, counts } = await run(seed);
      expect(failure).toBeNull();
      expect(counts.writes).toBeGreaterThan(0);
    }, 30_000);
  }

  test("keep every rule under the seeds that once found a bug", async () => {
    const seeds = await storied();
    expect(seeds.length).toBeGreaterThan(0);
    // Half of them on a second processor.
    const elsewhere = onThread(seeds.filter((_, i) => i % 2 === 0));
    for (const [seed, without] of seeds.filter((_, i) => i % 2 === 1)) {
      const { failure } = await runSeed(seed, false, asThen(seed, without));
      expect([seed, failure]).toEqual([seed, null]);
    }
    expect(await elsewhere).toEqual([]);
  }, 120_000);

  const [from = 0, count = 0] = (process.env[SEEDS_VARIABLE] ?? "").split(":").map(Number);
  for (let seed = from; seed < from + count; seed++) {
    test(`keep every rule under fresh seeds: ${seed}`, async () => {
      expect((await run(seed)).failure).toBeNull();
    }, 60_000);
  }

  test("do the same in every run of the same seed, and something else under another", async () => {
    const [first, again, other] = [await run(50), await run(50), await run(40)];
    expect(again.hash).toBe(first.hash);
    expect(again.events).toBe(first.events);
    expect(other.hash).not.toBe(first.hash);
  }, 60_000);
});
