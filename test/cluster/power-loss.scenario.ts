import { expect } from "bun:test";
import { losePowerAgainAndAgain } from "./power-loss.ts";
import { scenario } from "./scenario.ts";

const strace =
  process.platform === "linux" &&
  Bun.which("strace") !== null &&
  Bun.spawnSync(["strace", "-o", "/dev/null", "true"]).success;
if (!strace) console.log("skipped: a loss of power needs strace, and leave to trace");

scenario(
  "three members that lose power at once under load keep every answer they gave",
  async () => {
    const result = await losePowerAgainAndAgain({
      trials: 2,
      seconds: 0.6,
      seed: Date.now() % 1e6,
    });
    expect(result.broken).toEqual([]);
    expect(result.acknowledged).toBeGreaterThan(10);
    expect(result.syncs).toBeGreaterThan(10);
  },
  { skip: !strace },
);
