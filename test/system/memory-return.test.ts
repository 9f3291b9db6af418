import { expect, test } from "bun:test";
import { MemoryReturn } from "../../src/system/memory-return.ts";
import { ManualClock } from "../storage/manual-clock.ts";

const MIB = 1024 * 1024;

test("memory is collected once a load is over, and not again until there is more of it", async () => {
  const clock = new ManualClock();
  let quiet = true;
  let bytes = 80 * MIB;
  let collections = 0;
  const memory = new MemoryReturn(clock, {
    isQuiet: () => quiet,
    bytes: () => bytes,
    collect: () => {
      collections += 1;
      bytes = 120 * MIB;
    },
  });
  await clock.pass(5_000);
  expect(collections).toBe(0);
  quiet = false;
  bytes = 300 * MIB;
  await clock.pass(5_000);
  expect(collections).toBe(0);
  quiet = true;
  await clock.pass(1_000);
  expect(collections).toBe(0);
  await clock.pass(1_000);
  expect(collections).toBe(1);
  await clock.pass(10_000);
  expect(collections).toBe(1);
  bytes = 160 * MIB;
  await clock.pass(5_000);
  expect(collections).toBe(2);
  memory.stop();
  expect(clock.timers).toBe(0);
});

test("what the process gave back by itself counts: growth is measured from the least it needed", async () => {
  const clock = new ManualClock();
  let bytes = 200 * MIB;
  let collections = 0;
  const collect = (): void => void (collections += 1);
  const memory = new MemoryReturn(clock, { isQuiet: () => true, bytes: () => bytes, collect });
  await clock.pass(2_000);
  bytes = 100 * MIB;
  await clock.pass(2_000);
  bytes = 140 * MIB;
  await clock.pass(1_000);
  expect(collections).toBe(1);
  memory.stop();
});
