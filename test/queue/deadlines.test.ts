import { expect, test } from "bun:test";
import { Deadlines } from "../../src/queue/deadlines.ts";
import { NodeClock, Prng, World } from "../sim/world.ts";

test("each key is told once, never early, and at most a millisecond late, however it was moved", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const world = new World(seed);
    const clock = new NodeClock(world);
    const prng = new Prng(seed);
    const wanted = new Map<number, number>();
    const deadlines = new Deadlines<number>(
      clock,
      () => clock.monotonic(),
      (keys) => {
        for (const key of keys) {
          const at = wanted.get(key);
          expect(at).toBeDefined();
          expect(world.now).toBeGreaterThanOrEqual(at ?? 0);
          expect(world.now).toBeLessThanOrEqual((at ?? 0) + 1);
          wanted.delete(key);
        }
      },
    );
    for (let i = 0; i < 2_000; i++) {
      const key = prng.between(1, 50);
      if (prng.chance(0.2)) {
        deadlines.delete(key);
        wanted.delete(key);
      } else {
        const at = world.now + prng.between(1, 400);
        deadlines.set(key, at);
        wanted.set(key, at);
      }
      expect(deadlines.size).toBe(wanted.size);
      if (prng.chance(0.3)) await world.run(world.now + prng.between(0, 60));
    }
    await world.run(world.now + 1_000);
    expect(wanted.size).toBe(0);
    expect(deadlines.size).toBe(0);
  }
});

test("moving a deadline ever later costs no timer and no memory", async () => {
  const world = new World(1);
  const clock = new NodeClock(world);
  let timers = 0;
  const counting = {
    monotonic: () => clock.monotonic(),
    wall: () => clock.wall(),
    soon: (run: () => void) => clock.soon(run),
    after: (delay: number, run: () => void) => {
      timers += 1;
      return clock.after(delay, run);
    },
  };
  const late: string[] = [];
  const deadlines = new Deadlines<string>(
    counting,
    () => clock.monotonic(),
    (keys) => late.push(...keys),
  );
  for (let i = 0; i < 10_000; i++) {
    deadlines.set("lease", world.now + 1_000);
    await world.run(world.now + 1);
  }
  expect(late).toEqual([]);
  expect(timers).toBeLessThan(20);
  await world.run(world.now + 1_100);
  expect(late).toEqual(["lease"]);
});
