import { expect, test } from "bun:test";
import { runSeed } from "./batch.ts";

test("what clogs and cuts paths has struck only where there was a frame", async () => {
  const override = { families: ["clog", "partition"], faultsMs: 6_000, replay: false } as const;
  const alone = await runSeed(21, false, { ...override, members: 1 });
  expect(
    [...alone.struck.keys()].filter((what) => what === "clog" || what === "partition"),
  ).toEqual([]);
  const three = await runSeed(21, false, { ...override, members: 3 });
  expect(three.struck.get("clog")).toBeGreaterThan(0);
  expect(three.struck.get("partition")).toBeGreaterThan(0);
});
