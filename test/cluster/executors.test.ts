import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { readCap } from "./cap-trace.ts";
import { type ClusterView, eventually, RealCluster, type TaskJson } from "./harness.ts";

/** Windows in which the members may be left in peace. */
const WINDOWS = 3;
const SLOTS = 4;
const ON_LINUX = process.platform === "linux";

let cluster: RealCluster;
beforeAll(async () => {
  cluster = await RealCluster.start({
    args: [
      "--concurrency",
      String(SLOTS),
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
 * Whether the members were left in peace while `run` ran: then the term is the same afterwards. An election may be the
 * machine's own, which holds a core or a disk up for longer than the shortest election timeout; what `run` causes
 * comes every time, so one window without an election is enough, and each that had one is told.
 */
async function undisturbed(run: () => Promise<void>): Promise<void> {
  const term = async (): Promise<number> =>
    (await cluster.member(0).json<ClusterView>("/api/cluster")).term;
  const elections: string[] = [];
  for (let window = 1; window <= WINDOWS; window++) {
    const [before, said] = [await term(), cluster.members.map(({ output }) => output.length)];
    await run();
    const after = await term();
    if (after === before) return;
    const words = cluster.members.map(({ output }, i) => output.slice(said[i]));
    elections.push(`term ${before} became ${after} in window ${window}:\n${words.join("")}`);
    console.log(elections.at(-1));
  }
  expect(elections).toEqual([]);
}

/** Niceness of each thread of a process; its main thread's first. */
async function threadNiceness(pid: number): Promise<number[]> {
  const threads = await readdir(`/proc/${pid}/task`);
  const own = String(pid);
  threads.sort((a, b) => Number(b === own) - Number(a === own));
  const stats = threads.map((thread) =>
    readFile(`/proc/${pid}/task/${thread}/stat`, "latin1").catch(() => null),
  );
  // The name, in brackets, may hold blanks; the state behind it is field 3 of proc(5), the niceness field 19.
  return (await Promise.all(stats))
    .filter((stat) => stat !== null)
    .map((stat) => Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16]));
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
  const endless = async (run: () => Promise<void>): Promise<void> => {
    const tasks = Array.from({ length: 30 }, () => ({
      name: "compute",
      payload: { iterations: 1_000_000_000, data: "x" },
      timeout_ms: null,
    }));
    const { items } = await cluster
      .member(0)
      .post<{ items: { id: string }[] }>("/api/tasks/bulk", { tasks });
    try {
      await run();
    } finally {
      await Promise.all(
        items.map(({ id }) => cluster.member(0).fetch(`/api/tasks/${id}`, { method: "DELETE" })),
      );
    }
  };

  test(
    `30 endless compute tasks for ${seconds} s cause no election`,
    () => endless(() => undisturbed(() => Bun.sleep(seconds * 1_000))),
    (WINDOWS * seconds + 60) * 1_000,
  );

  test.if(ON_LINUX)(
    `the threads of handlers give way to the member's own${ON_LINUX ? "" : " (Linux only: read from /proc)"}`,
    () =>
      endless(async () => {
        for (const member of cluster.members) {
          const pid = member.process?.pid ?? 0;
          await eventually(`${SLOTS} threads of ${member.id} to give way`, async () => {
            const [main, ...others] = await threadNiceness(pid);
            expect(main).toBe(0);
            // The log's thread, and the runtime's own.
            expect(others).toContain(0);
            return others.filter((niceness) => niceness === 19).length >= SLOTS;
          });
        }
      }),
    60_000,
  );
});
