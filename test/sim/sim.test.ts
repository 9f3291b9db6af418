import { describe, expect, test } from "bun:test";
import { asThen, report, runSeed } from "./batch.ts";
import { SEEDS_VARIABLE } from "./coverage.ts";
import { type SimResult, Simulation } from "./simulation.ts";

/** Quick ones of many kinds: two to seven members, a dozen families of faults and more, and members that come and go. */
const ALWAYS = [15, 21, 49, 50, 70, 92];

/** Short ones that together have members die, frames pass through the codec, and two thirds of all kinds of faults. */
const ALIKE = [30, 72, 96];

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

/** The other way round, and by other settings of the engine: compilers and garbage collector go other ways there. */
async function inOtherProcess(seeds: readonly number[]): Promise<string> {
  const script = new URL("again.ts", import.meta.url).pathname;
  const child = Bun.spawn([process.execPath, script, ...seeds.map(String)]);
  return (await new Response(child.stdout).text()).trim();
}

describe("whole members in virtual time", () => {
  // It runs beside the other seeds, on another processor.
  const elsewhere = inOtherProcess(ALIKE);

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
      const override = asThen(seed, without);
      const result = await runSeed(seed, false, override);
      report(result, false, override);
      expect([seed, result.failure]).toEqual([seed, null]);
    }
    expect(await elsewhere).toEqual([]);
  }, 120_000);

  const [from = 0, count = 0] = (process.env[SEEDS_VARIABLE] ?? "").split(":").map(Number);
  for (let seed = from; seed < from + count; seed++) {
    test(`keep every rule under fresh seeds: ${seed}`, async () => {
      expect((await run(seed)).failure).toBeNull();
    }, 60_000);
  }

  test("do the same in every run of the same seed, in another process too, and something else under another", async () => {
    const here: string[] = [];
    for (const seed of ALIKE) {
      const { hash, events } = await run(seed);
      here.push(JSON.stringify([seed, hash, events]));
    }
    expect(new Set(here.map((each) => each.split(",")[1])).size).toBe(ALIKE.length);
    expect(await elsewhere).toBe(here.toReversed().join("\n"));
  }, 60_000);
});
