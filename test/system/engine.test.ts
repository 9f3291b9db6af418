import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ENGINE_SETTINGS } from "../../src/system/engine.ts";

const FIXTURE = join(import.meta.dir, "fixtures", "engine-process.ts");
async function started(given: Record<string, string>, own = ["--smol"]) {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !Object.hasOwn(ENGINE_SETTINGS, name),
  );
  const command = ["bun", ...own, "run", FIXTURE, "--id", "n 1", "--x="];
  const child = Bun.spawn(command, {
    env: { ...Object.fromEntries(inherited), ...given },
  });
  const seen = JSON.parse(await new Response(child.stdout).text()) as Record<string, unknown>;
  return { seen, pid: child.pid, command };
}

test("a member that was started without the engine's settings has them, and is the same process with the same name and flags", async () => {
  const { seen, pid, command } = await started({ MINE: "kept" });
  expect(seen).toEqual({
    pid,
    name: "bun",
    command,
    flags: ["--id", "n 1", "--x="],
    own: ["--smol"],
    mine: "kept",
    engine: {
      BUN_JSC_thresholdForOptimizeAfterWarmUp: "600",
      BUN_JSC_thresholdForFTLOptimizeAfterWarmUp: "1000000",
      BUN_GC_TIMER_DISABLE: "1",
    },
  });
});

test("whoever sets one of them differently keeps what they set", async () => {
  const own = { BUN_JSC_thresholdForFTLOptimizeAfterWarmUp: "5000" };
  const { seen } = await started(own);
  expect(seen).toMatchObject({ engine: { ...ENGINE_SETTINGS, ...own } });
});

test("under the sampling profiler a process stays what it is: the profiler's signal would end the one in its place", async () => {
  const folder = mkdtempSync(join(tmpdir(), "flotilla-engine-"));
  const { seen } = await started({}, ["--cpu-prof", `--cpu-prof-dir=${folder}`]);
  rmSync(folder, { recursive: true });
  expect(seen).toMatchObject({ engine: {} });
});
