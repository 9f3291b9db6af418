/** How a process ends on SIGTERM: soon, whatever runs and whoever leads. */
import { expect } from "bun:test";
import { join } from "node:path";
import { eventually, type Member, type TaskJson } from "./harness.ts";
import { scenario, withCluster } from "./scenario.ts";

/** What a member that has nothing to wait for may take, on a busy machine. */
const SECONDS_MS = 15_000;

async function runningTask(member: Member, name: string, payload: unknown): Promise<void> {
  const { id } = await member.post<TaskJson>("/api/tasks", { name, payload, timeout_ms: null });
  await eventually("the task to run", async () => {
    const { status } = await member.json<TaskJson>(`/api/tasks/${id}`);
    return status === "Running";
  });
}

/** Milliseconds from the signal to the end. */
async function stopTime(member: Member): Promise<{ code: number; ms: number }> {
  const from = performance.now();
  const code = await member.kill("SIGTERM");
  return { code, ms: performance.now() - from };
}

scenario(
  "without a quorum and with nothing running, the drain does not wait for --drain",
  async () => {
    await withCluster({ size: 3, args: ["--drain", "40s"] }, async (cluster) => {
      const leader = await cluster.leader();
      await leader.post("/api/tasks", { name: "echo", payload: 1 });
      for (const member of await cluster.followers()) await member.kill();
      const { code, ms } = await stopTime(leader);
      expect(code).toBe(0);
      expect(ms).toBeLessThan(SECONDS_MS);
    });
  },
);

scenario("without a quorum, a task that ended unrecorded does not hold the drain up", async () => {
  await withCluster(
    { size: 3, args: ["--drain", "40s", "--concurrency", "2"] },
    async (cluster) => {
      const leader = await cluster.leader();
      // Two slots each: all six run somewhere, two of them here.
      for (let i = 0; i < 6; i++) await runningTask(leader, "sleep", { ms: 3_000 });
      for (const member of await cluster.followers()) await member.kill();
      const { code, ms } = await stopTime(leader);
      expect(code).toBe(0);
      expect(ms).toBeLessThan(SECONDS_MS);
    },
  );
});

scenario(
  "the whole end takes --drain and five seconds at most, quorum or not, whatever the handlers do",
  async () => {
    const handlers = join(import.meta.dir, "handlers.ts");
    const ended = [1, 3].map((size) =>
      withCluster(
        { size: size, args: ["--drain", "1s", "--handlers", handlers] },
        async (cluster) => {
          const leader = await cluster.leader();
          for (let i = 0; i < size; i++)
            await runningTask(leader, size === 1 ? "loop" : "blocks", {});
          if (size === 3) for (const member of await cluster.followers()) await member.kill();
          const { code, ms } = await stopTime(leader);
          expect(code).toBe(0);
          // Six seconds, and what a busy machine adds.
          expect(ms).toBeLessThan(20_000);
        },
      ),
    );
    await Promise.all(ended);
  },
);

scenario("a second signal ends the process by that signal", async () => {
  await withCluster({ size: 1, args: ["--drain", "60s"] }, async (cluster) => {
    const member = cluster.member(0);
    await runningTask(member, "sleep", { ms: 60_000 });
    const { process: child } = member;
    child?.kill("SIGTERM");
    await eventually("the drain", async () => member.output.includes("draining"));
    child?.kill("SIGINT");
    expect(await child?.exited).toBe(130);
    expect(child?.signalCode).toBe("SIGINT");
  });
});
