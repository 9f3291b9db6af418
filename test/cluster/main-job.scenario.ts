import { expect } from "bun:test";
import { join } from "node:path";
import { mainJob } from "./main-job.ts";
import { scenario } from "./scenario.ts";

scenario(
  "1,000 files through io with the leader killed in the middle: nothing lost, nothing wrong, nothing twice",
  async () => {
    const report = await mainJob(
      join(import.meta.dir, "..", "..", "node_modules"),
      1_000,
      () => undefined,
    );
    console.log(`executions: ${report.executions} of ${report.acknowledged} tasks`);
    expect(report).toMatchObject({
      files: 1_000,
      acknowledged: 1_000,
      completed: 1_000,
      wrongDigests: 0,
      missing: 0,
      listedTwice: 0,
    });
    expect(report.returnedMemberApplied).toBeGreaterThanOrEqual(report.leaderApplied - 100);
  },
);
