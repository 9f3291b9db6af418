import { expect, test } from "bun:test";
import { join } from "node:path";

const FIXTURE = join(import.meta.dir, "fixtures", "engine-process.ts");
const SETTINGS = {
  BUN_JSC_thresholdForJITAfterWarmUp: "100",
  BUN_JSC_thresholdForOptimizeAfterWarmUp: "400",
  BUN_JSC_thresholdForFTLOptimizeAfterWarmUp: "1000000",
};

async function started(given: Record<string, string>) {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("BUN_JSC_"));
  const child = Bun.spawn(["bun", "--smol", "run", FIXTURE, "--id", "n 1", "--x="], {
    env: { ...Object.fromEntries(inherited), ...given },
  });
  const seen = JSON.parse(await new Response(child.stdout).text()) as Record<string, unknown>;
  return { seen, pid: child.pid };
}

test("a member that was started without the engine's settings has them, and is the same process with the same flags", async () => {
  const { seen, pid } = await started({ MINE: "kept" });
  const flags = ["--id", "n 1", "--x="];
  expect(seen).toEqual({ pid, flags, own: ["--smol"], mine: "kept", engine: SETTINGS });
});

test("whoever sets one of them differently keeps what they set", async () => {
  const own = { BUN_JSC_thresholdForFTLOptimizeAfterWarmUp: "5000" };
  const { seen } = await started(own);
  expect(seen).toMatchObject({ engine: { ...SETTINGS, ...own } });
});
