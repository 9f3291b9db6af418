import { afterEach, expect, mock, spyOn, test } from "bun:test";
import { parseOverride } from "./arguments.ts";
import { replayLine, runBatch, runSeed } from "./batch.ts";
import type { Override } from "./shrink.ts";

const QUICK: Override = { members: 1, families: [], faultsMs: 300, replay: false };
const BATCH = { from: 7, count: 3, minutes: 1, jobs: 1, first: false, announce: false };

afterEach(() => mock.restore());

test("the line that replays a seed holds the override that it ran under, as it was given", () => {
  expect(replayLine(7, {})).toBe("bun run sim --seed 7 --trace");
  const [, text = ""] = / --override '(.*)'$/.exec(replayLine(7, QUICK)) ?? [];
  expect(parseOverride(text)).toEqual(QUICK);
});

test("a batch goes on after a seed that fails, or that ends with an error, and tells how each is replayed", async () => {
  const log = spyOn(console, "log").mockImplementation(() => undefined);
  const clean = await runSeed(7, false, QUICK);
  const failure = { rule: "r", detail: "d", atMs: 1, event: 1 };
  const run: typeof runSeed = async (seed) => {
    if (seed === 8) throw new Error("no more");
    return { ...clean, seed, failure: seed === 7 ? failure : null };
  };
  expect(await runBatch({ ...BATCH, override: QUICK }, { run })).toBe(1);
  const said = log.mock.calls.flat().join("\n");
  expect(said).toContain("3 seeds from 7: 1 passed, 2 failed");
  for (const seed of [7, 8]) expect(said).toContain(`replay: ${replayLine(seed, QUICK)}`);
});
