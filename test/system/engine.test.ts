import { expect, test } from "bun:test";
import { join } from "node:path";

const FIXTURE = join(import.meta.dir, "fixtures", "engine-process.ts");
const VARIABLE = "BUN_JSC_thresholdForFTLOptimizeAfterWarmUp";

async function started(env: Record<string, string | undefined>) {
  const child = Bun.spawn(["bun", "--smol", "run", FIXTURE, "--id", "n 1", "--x="], { env });
  const seen = JSON.parse(await new Response(child.stdout).text()) as Record<string, unknown>;
  return { seen, pid: child.pid };
}

test("a member that was started without the engine's settings has them, and is the same process with the same flags", async () => {
  const { seen, pid } = await started({ ...process.env, [VARIABLE]: undefined, MINE: "kept" });
  const flags = ["--id", "n 1", "--x="];
  expect(seen).toEqual({ pid, flags, engine: ["--smol"], threshold: "1000000", mine: "kept" });
});

test("whoever sets them differently keeps what they set", async () => {
  const { seen } = await started({ ...process.env, [VARIABLE]: "5000" });
  expect(seen).toMatchObject({ threshold: "5000" });
});
