/** Slices of the state's rows, and the rests between their pieces. What the hash leaves out is machine.property.test.ts's. */
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { hashSlice } from "../../src/queue/hash.ts";
import { Harness } from "./machine-harness.ts";

const ALL = { rows: 100_000, text: 100_000_000 };

test("there is a moment to rest behind every hundred rows, and it changes nothing", () => {
  const db = new Database(":memory:");
  const harness = new Harness({}, db);
  for (let i = 0; i < 250; i++) harness.submit();
  harness.machine.flush();
  let rests = 0;
  const rested = hashSlice(db, null, ALL, () => (rests += 1));
  // Two among the tasks; other tables have as many rows.
  expect(rests).toBeGreaterThanOrEqual(2);
  expect(rested).toEqual(hashSlice(db, null, ALL));
  // A slice that ends within a piece has its last rest before it.
  rests = 0;
  const short = hashSlice(db, null, { ...ALL, rows: 150 }, () => (rests += 1));
  expect(rests).toBe(1);
  expect(short).toEqual(hashSlice(db, null, { ...ALL, rows: 150 }));
});
