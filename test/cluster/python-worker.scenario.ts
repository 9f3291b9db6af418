import { expect } from "bun:test";
import { join } from "node:path";
import { eventually, RealCluster, type TaskJson } from "./harness.ts";
import { scenario } from "./scenario.ts";

scenario(
  "a worker of 40 lines in Python claims, heartbeats, completes and survives the leader's death (needs python3)",
  async () => {
    const cluster = await RealCluster.start({ args: ["--lease", "5s"] });
    const leader = await cluster.leader();
    const follower = (await cluster.followers())[0] ?? leader;
    const urls = [leader, ...(await cluster.followers())].map(({ url }) => url).join(",");
    const worker = Bun.spawn(
      ["python3", join(import.meta.dir, "worker.py"), urls, "digest", "py-1", "1.5"],
      { stdout: "pipe" },
    );
    let output = "";
    const follow = (async () => {
      const decoder = new TextDecoder();
      for await (const chunk of worker.stdout) output += decoder.decode(chunk, { stream: true });
    })();
    const said = (): string[] => output.split("\n").slice(0, -1);
    try {
      await eventually("the worker to wait for work", async () => {
        const { items } = await leader.json<{ items: { id: string }[] }>("/api/workers");
        return items.some(({ id }) => id === "py-1");
      });
      const tasks: TaskJson[] = [];
      for (let i = 0; i < 6; i++)
        tasks.push(await follower.post<TaskJson>("/api/tasks", { name: "digest", payload: { i } }));
      await Bun.sleep(500);
      await leader.kill();
      for (const { id } of tasks) {
        await eventually(
          `task ${id}`,
          async () =>
            (await follower.json<TaskJson>(`/api/tasks/${id}?wait=2`)).status === "Completed",
          60_000,
        );
      }
      const ends = await eventually("six reports", async () =>
        said().length >= 6 ? said() : null,
      );
      for (const line of ends) {
        const report = JSON.parse(line) as {
          first?: number;
          again?: number;
          stale?: number;
          code?: string;
          verdict?: string;
        };
        if (report.verdict !== undefined) continue;
        expect(report).toMatchObject({ first: 200, again: 200, stale: 409, code: "stale-lease" });
      }
    } finally {
      worker.kill();
      await follow;
      await cluster.stop();
    }
  },
  { skip: Bun.which("python3") === null },
);
