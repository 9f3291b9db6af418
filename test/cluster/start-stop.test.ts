import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { eventually, type Member, RealCluster, type TaskJson } from "./harness.ts";

setDefaultTimeout(60_000);

/** What a member that has nothing to wait for may take, on a busy machine. */
const SECONDS_MS = 15_000;

async function runningTask(member: Member, name: string, payload: unknown): Promise<void> {
  const { id } = await member.post<TaskJson>("/api/tasks", { name, payload, timeout_ms: null });
  await eventually("the task to run", async () => {
    const { status } = await member.json<TaskJson>(`/api/tasks/${id}`);
    return status === "Running";
  });
}

async function withMembers(
  size: number,
  args: readonly string[],
  run: (cluster: RealCluster) => Promise<void>,
): Promise<void> {
  const cluster = await RealCluster.start({ size, args });
  try {
    await run(cluster);
  } finally {
    await cluster.stop();
  }
}

/** Milliseconds from the signal to the end. */
async function stopTime(member: Member): Promise<{ code: number; ms: number }> {
  const from = performance.now();
  const code = await member.kill("SIGTERM");
  return { code, ms: performance.now() - from };
}

test.concurrent(
  "without a quorum and with nothing running, the drain does not wait for --drain",
  async () => {
    await withMembers(3, ["--drain", "40s"], async (cluster) => {
      const leader = await cluster.leader();
      await leader.post("/api/tasks", { name: "echo", payload: 1 });
      for (const member of await cluster.followers()) await member.kill();
      const { code, ms } = await stopTime(leader);
      expect(code).toBe(0);
      expect(ms).toBeLessThan(SECONDS_MS);
    });
  },
);

test.concurrent(
  "without a quorum, a task that ended unrecorded does not hold the drain up",
  async () => {
    await withMembers(3, ["--drain", "40s", "--concurrency", "2"], async (cluster) => {
      const leader = await cluster.leader();
      // Two slots each: all six run somewhere, two of them here.
      for (let i = 0; i < 6; i++) await runningTask(leader, "sleep", { ms: 3_000 });
      for (const member of await cluster.followers()) await member.kill();
      const { code, ms } = await stopTime(leader);
      expect(code).toBe(0);
      expect(ms).toBeLessThan(SECONDS_MS);
    });
  },
);

test.concurrent(
  "the whole end takes --drain and five seconds at most, quorum or not, whatever the handlers do",
  async () => {
    const handlers = join(import.meta.dir, "handlers.ts");
    const ended = [1, 3].map((size) =>
      withMembers(size, ["--drain", "1s", "--handlers", handlers], async (cluster) => {
        const leader = await cluster.leader();
        for (let i = 0; i < size; i++) await runningTask(leader, "loop", {});
        if (size === 3) for (const member of await cluster.followers()) await member.kill();
        const { code, ms } = await stopTime(leader);
        expect(code).toBe(0);
        // Six seconds, and what a busy machine adds.
        expect(ms).toBeLessThan(12_000);
      }),
    );
    await Promise.all(ended);
  },
);

test.concurrent("a second signal ends the process by that signal", async () => {
  await withMembers(1, ["--drain", "60s"], async (cluster) => {
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
