import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { RandomCluster } from "./random-cluster.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const SEEDS = Number(process.env["SEEDS"] ?? 300);
const FIRST = Number(process.env["SEED"] ?? 1);
const STEPS = 1_500;

describe("a cluster under faults drawn from a seed", () => {
  test(`keeps its promises, and goes on when healed (${SEEDS} seeds)`, () => {
    const total = {
      elections: 0,
      commits: 0,
      snapshots: 0,
      reads: 0,
      changes: 0,
      crashes: 0,
      damages: 0,
    };
    for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
      try {
        const cluster = new RandomCluster(seed);
        for (let step = 0; step < STEPS; step++) {
          cluster.step();
          if (step % 100 === 99) cluster.checkLogMatching();
        }
        cluster.heal();
        cluster.checkLogMatching();
        for (const key of Object.keys(total) as (keyof typeof total)[])
          total[key] += cluster.counts[key];
      } catch (error) {
        const why = error instanceof Error ? (error.stack ?? error.message) : String(error);
        throw new Error(`SEED=${seed} SEEDS=1 bun test test/raft/random-cluster.test.ts\n${why}`, {
          cause: error,
        });
      }
    }
    if (process.env["VERBOSE"] !== undefined) console.log(total);
    // The faults are no use if nothing happens among them.
    expect(total.elections).toBeGreaterThan(SEEDS);
    expect(total.commits).toBeGreaterThan(SEEDS * 5);
    if (SEEDS < 100) return;
    expect(total.snapshots).toBeGreaterThan(10);
    expect(total.reads).toBeGreaterThan(100);
    expect(total.changes).toBeGreaterThan(100);
    expect(total.crashes).toBeGreaterThan(100);
    expect(total.damages).toBeGreaterThan(20);
  }, 300_000);
});
