import { describe, expect, test } from "bun:test";
import { browserPath, checkDashboard, launchBrowser } from "../browser/check-page.ts";
import { RealCluster } from "./harness.ts";

const path = browserPath();
if (path === null) console.warn("No Chromium: the dashboard of the real cluster is not looked at.");

describe.skipIf(path === null)("the dashboard of a real cluster", () => {
  test("is silent, strict and live on the leader and on a follower", async () => {
    const cluster = await RealCluster.start();
    const browser = await launchBrowser();
    try {
      const leader = await cluster.leader();
      const [follower] = await cluster.followers();
      if (follower === undefined) throw new Error("no follower");
      for (const member of [leader, follower]) {
        const elsewhere = member === leader ? follower : leader;
        await checkDashboard(browser, member.url, {
          slowName: "sleep",
          slowPayload: '{"ms": 60000}',
          submitElsewhere: async () => {
            await elsewhere.post("/api/tasks", { name: "echo", payload: "elsewhere" });
          },
        });
      }
      expect(
        (await leader.json<{ total_tasks: number }>("/api/stats")).total_tasks,
      ).toBeGreaterThan(2);
    } finally {
      await browser.close();
      await cluster.stop();
    }
  }, 120_000);
});
