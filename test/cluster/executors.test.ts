import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { readCap } from "./cap-trace.ts";
import { type ClusterView, eventually, RealCluster, type TaskJson } from "./harness.ts";

const LOOK_MS = 10;
/** A sixth of the shortest election timeout. */
const LATE_MS = 50;

let cluster: RealCluster;
beforeAll(async () => {
  cluster = await RealCluster.start({
    args: [
      "--concurrency",
      "4",
      "--handlers",
      join(import.meta.dir, "handlers.ts"),
      "--builtin",
      "sleep,compute,echo",
    ],
  });
}, 60_000);
afterAll(() => cluster.stop());

const final = (id: string): Promise<TaskJson> =>
  eventually(
    `task ${id} to be final`,
    async () => {
      const task = await cluster.member(0).json<TaskJson>(`/api/tasks/${id}?wait=10`);
      return ["Completed", "Failed", "Cancelled"].includes(task.status) ? task : null;
    },
    60_000,
  );

/**
 * Whether the members were left in peace while `run` ran: then the term is the same afterwards. This process has their
 * priority; where it was kept from a processor itself, others work on this machine, and an election is theirs.
 */
async function undisturbed(run: () => Promise<void>): Promise<void> {
  const term = async (): Promise<number> =>
    (await cluster.member(0).json<ClusterView>("/api/cluster")).term;
  const before = await term();
  let dueAt = performance.now() + LOOK_MS;
  let latestMs = 0;
  const look = setInterval(() => {
    latestMs = Math.max(latestMs, performance.now() - dueAt);
    dueAt = performance.now() + LOOK_MS;
  }, LOOK_MS);
  try {
    await run();
  } finally {
    clearInterval(look);
  }
  const after = await term();
  if (after !== before && latestMs > LATE_MS)
    console.log(`an election, but this process was late by ${Math.round(latestMs)} ms too`);
  else expect(after).toBe(before);
}

describe("the concurrency cap", () => {
  test("40 tasks on three members of four slots: never more than 12 handlers at once, and 12 nearly all the time", async () => {
    const trace = join(cluster.folder, "trace.txt");
    // Every slot has its Worker before the first task that counts.
    const warming = await cluster.member(0).post<{ items: { id: string }[] }>("/api/tasks/bulk", {
      tasks: Array.from({ length: 24 }, () => ({ name: "sleep", payload: { ms: 100 } })),
    });
    for (const { id } of warming.items) await final(id);
    const tasks = Array.from({ length: 40 }, () => ({
      name: "traced",
      payload: { trace, ms: 600 },
    }));
    const { items } = await cluster
      .member(0)
      .post<{ items: { id: string }[] }>("/api/tasks/bulk", { tasks });
    for (const { id } of items) expect((await final(id)).status).toBe("Completed");
    const { entered, most, samples, full } = await readCap(trace, 12);
    expect(entered).toBe(40);
    expect(most).toBe(12);
    console.log(`all 12 slots were busy in ${full} of ${samples} samples`);
    // A loose bound: how soon a freed slot works again is a time, and times on a shared machine are noise.
    expect(full / Math.max(1, samples)).toBeGreaterThan(0.1);
  }, 90_000);
});

describe("handlers that misbehave", () => {
  test.concurrent(
    "an endless loop is killed by its time-out, its slot works again, and nobody noticed",
    () =>
      undisturbed(async () => {
        const loops = await cluster.member(1).post<{ items: { id: string }[] }>("/api/tasks/bulk", {
          tasks: Array.from({ length: 2 }, () => ({
            name: "loop",
            timeout_ms: 500,
            max_retries: 0,
          })),
        });
        for (const { id } of loops.items) {
          const task = await final(id);
          expect([task.status, task.detail]).toEqual(["Failed", "timeout"]);
        }
        const after = await cluster.member(2).post<{ items: { id: string }[] }>("/api/tasks/bulk", {
          tasks: Array.from({ length: 24 }, (_, i) => ({ name: "quick", payload: i })),
        });
        for (const { id } of after.items) expect((await final(id)).status).toBe("Completed");
      }),
    90_000,
  );

  test.concurrent(
    "a handler that takes its Worker down is charged to crashes, not to retries",
    async () => {
      const { id } = await cluster
        .member(0)
        .post<TaskJson>("/api/tasks", { name: "dies", max_retries: 5 });
      const task = await final(id);
      expect([task.status, task.detail, task.retries]).toEqual(["Failed", "crashed", 0]);
      expect(task.crashes).toBeGreaterThanOrEqual(3);
    },
    90_000,
  );

  test.concurrent(
    "an error keeps its type, message and stack, and is retried by the policy",
    async () => {
      const { id } = await cluster.member(0).post<TaskJson>("/api/tasks", {
        name: "fails",
        max_retries: 1,
        retry: { kind: "fixed", initial_ms: 10, jitter: false },
      });
      const task = await final(id);
      expect([task.status, task.detail, task.attempt]).toEqual(["Failed", "exhausted", 2]);
      expect(task.last_error).toMatchObject({ type: "TypeError", message: "on purpose" });
      const { items } = await cluster
        .member(1)
        .json<{ items: { outcome: string }[] }>(`/api/tasks/${id}/attempts`);
      expect(items.map(({ outcome }) => outcome)).toEqual(["failed", "failed"]);
    },
    60_000,
  );

  test.concurrent(
    "a running task is cancelled: signal, then Cancelled, and the slot is free again",
    async () => {
      const { id } = await cluster
        .member(0)
        .post<TaskJson>("/api/tasks", { name: "sleep", payload: { ms: 60_000 } });
      await eventually(
        "it to run",
        async () =>
          (await cluster.member(0).json<TaskJson>(`/api/tasks/${id}`)).status === "Running",
      );
      expect((await cluster.member(1).fetch(`/api/tasks/${id}`, { method: "DELETE" })).status).toBe(
        204,
      );
      const task = await final(id);
      expect([task.status, task.detail]).toEqual(["Cancelled", "user"]);
    },
    60_000,
  );
});

describe("consensus beside busy executors", () => {
  // Ten of the shortest election timeouts.
  const seconds = Number(process.env.FLOTILLA_BUSY_SECONDS ?? 3);
  test(
    `30 endless compute tasks for ${seconds} s cause no election`,
    async () => {
      const tasks = Array.from({ length: 30 }, () => ({
        name: "compute",
        payload: { iterations: 1_000_000_000, data: "x" },
        timeout_ms: null,
      }));
      const { items } = await cluster
        .member(0)
        .post<{ items: { id: string }[] }>("/api/tasks/bulk", { tasks });
      await undisturbed(() => Bun.sleep(seconds * 1_000));
      await Promise.all(
        items.map(({ id }) => cluster.member(0).fetch(`/api/tasks/${id}`, { method: "DELETE" })),
      );
    },
    (seconds + 60) * 1_000,
  );
});
