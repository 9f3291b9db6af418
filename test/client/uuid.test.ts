import { expect, test } from "bun:test";
import { IdMinter } from "../../src/client/uuid.ts";

test("ids are UUIDv7 of their time, all different, and grow: within a millisecond, and when the clock steps back", () => {
  const minter = new IdMinter();
  const now = 1_800_000_000_000;
  const ids = Array.from({ length: 20_000 }, (_, n) => minter.mint(n < 10_000 ? now : now - 500));
  for (const id of ids)
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(new Set(ids).size).toBe(ids.length);
  expect(ids).toEqual(ids.toSorted());
  const timeOf = (id: string): number => Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
  expect(timeOf(ids[0] ?? "")).toBe(now);
  // A full counter borrows from the next milliseconds; members take ids that are a little early.
  expect(timeOf(ids.at(-1) ?? "")).toBeLessThan(now + 20);
  minter.rewind();
  expect(timeOf(minter.mint(now - 9_000))).toBe(now - 9_000);
});
