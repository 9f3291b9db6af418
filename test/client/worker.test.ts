import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  FlotillaWorker,
  type FlotillaWorkerOptions,
  NonRetryableError,
  RetryAfter,
  Snooze,
  type Task,
  type TaskHandle,
  type WorkerContext,
  type WorkerHandlers,
} from "../../src/client/index.ts";
import type { Handler } from "../../src/executor/handler.ts";
import { eventually, RealCluster } from "../cluster/harness.ts";
import { clientOf, type DisposableClient, ScriptedMember } from "./scripted-member.ts";

/** A machine that is busy with other work may keep a process waiting for a second or two. */
const LEASE = "6s";
const LONGER_THAN_A_LEASE_MS = 8_000;

let cluster: RealCluster;
let client: DisposableClient;
beforeAll(async () => {
  cluster = await RealCluster.start({ size: 1, args: ["--concurrency", "0", "--lease", LEASE] });
  client = clientOf([cluster.member(0)]);
}, 60_000);
afterAll(async () => {
  client.close();
  await cluster.stop();
});

interface Started {
  readonly worker: FlotillaWorker;
  readonly errors: string[];
}

function started(handlers: WorkerHandlers, options: Partial<FlotillaWorkerOptions> = {}): Started {
  const errors: string[] = [];
  const onError = (error: Error): void => void errors.push(error.message);
  const worker = new FlotillaWorker({ client, handlers, onError, ...options });
  worker.start();
  return { worker, errors };
}

const final = async (handle: TaskHandle): Promise<Task> => {
  await handle.result({ timeoutMs: 30_000 }).catch(() => null);
  const task = await handle.task();
  if (task === null) throw new Error(`task ${handle.id} is gone`);
  return task;
};

/** A handler that ends when its signal aborts, and says so. */
function stoppable(): {
  handler: (payload: unknown, context: WorkerContext) => Promise<never>;
  running: Promise<void>;
  reasons: string[];
} {
  const { promise: running, resolve } = Promise.withResolvers<void>();
  const reasons: string[] = [];
  return {
    running,
    reasons,
    handler: async (_, { signal }) => {
      resolve();
      await new Promise((wake) => signal.addEventListener("abort", wake));
      reasons.push((signal.reason as Error).message);
      throw signal.reason;
    },
  };
}

/** Most of it is waiting: all at once, over one member. Each test has names of its own. */
describe("A worker", () => {
  test.concurrent(
    "runs many tasks, at most so many at once, and reports them in batches",
    async () => {
      let now = 0;
      let most = 0;
      const { worker, errors } = started(
        {
          square: async (payload: number) => {
            most = Math.max(most, ++now);
            await Bun.sleep(payload % 3);
            now -= 1;
            return payload * payload;
          },
        },
        { concurrency: 20 },
      );
      const handles = await client.enqueueMany<number>(
        Array.from({ length: 300 }, (_, n) => ({ name: "square", payload: n })),
      );
      const results = await Promise.all(handles.map((handle) => handle.result()));
      expect(results).toEqual(handles.map((_, n) => n * n));
      expect(most).toBeLessThanOrEqual(20);
      expect(most).toBeGreaterThan(1);
      await worker.stop();
      expect(worker.running).toBe(0);
      expect(errors).toEqual([]);
    },
    30_000,
  );

  test.concurrent(
    "tells how handlers end: results, failures of each kind, snoozes",
    async () => {
      const { worker, errors } = started({
        returns: (payload, { task }) => ({ payload, name: task.name }),
        "returns-nothing": () => undefined,
        throws: () => {
          throw Object.assign(new Error("it broke"), { name: "Odd\nName" });
        },
        "throws-text": () => {
          // eslint-disable-next-line typescript/only-throw-error -- handlers may
          throw "just text";
        },
        never: () => {
          throw new NonRetryableError("no use");
        },
        later: (_, { attempt }) => {
          if (attempt === 1) throw new RetryAfter(1);
          return attempt;
        },
        snoozes: (_, { attempt }) => {
          if (attempt === 1) throw new Snooze(1);
          return attempt;
        },
        cyclic: () => {
          const cycle: Record<string, unknown> = {};
          cycle["self"] = cycle;
          return cycle;
        },
        huge: () => "x".repeat(300_000),
        deep: () => JSON.parse("[".repeat(200) + "]".repeat(200)) as unknown,
      });
      const once = { max_retries: 0 };
      const run = async (name: string, payload?: unknown, options = {}): Promise<Task> =>
        final(await client.enqueue(name, payload, options));
      const outcomes = await Promise.all([
        run("returns", { a: [1] }),
        run("returns-nothing"),
        run("throws", null, once),
        run("throws-text", null, once),
        run("never"),
        run("later"),
        run("snoozes", null, once),
        run("cyclic"),
        run("huge"),
        run("deep"),
      ]);
      expect(
        outcomes.map(({ status, detail, result, last_error }) => [
          status,
          detail,
          result,
          last_error?.type ?? null,
        ]),
      ).toEqual([
        ["Completed", null, { payload: { a: [1] }, name: "returns" }, null],
        ["Completed", null, null, null],
        ["Failed", "exhausted", null, "Odd?Name"],
        ["Failed", "exhausted", null, "NonError"],
        ["Failed", "non_retryable", null, "NonRetryableError"],
        ["Completed", null, 2, "RetryAfter"],
        ["Completed", null, 2, null],
        ["Failed", "non_retryable", null, "UnserialisableResult"],
        ["Failed", "non_retryable", null, "ResultTooLarge"],
        ["Failed", "non_retryable", null, "UnacceptableResult"],
      ]);
      expect(outcomes[2]?.last_error?.stack).toContain("worker.test.ts");
      await worker.stop();
      expect(errors).toEqual([]);
    },
    30_000,
  );

  test.concurrent(
    "sends progress and the log, in order and before the end",
    async () => {
      const gate = Promise.withResolvers<void>();
      let talks = 0;
      const { worker, errors } = started({
        talks: async (_, { progress, log }) => {
          talks += 1;
          expect(() => progress(Number.NaN)).toThrow(TypeError);
          progress(40, "under way");
          log("one");
          await gate.promise;
          log("two");
          progress(900);
          log("three");
        },
      });
      const handle = await client.enqueue("talks");
      await eventually("the progress", async () => (await handle.task())?.progress?.percent === 40);
      gate.resolve();
      await handle.result();
      const logs = await cluster
        .member(0)
        .json<{ items: { line: string }[] }>(`/api/tasks/${handle.id}/logs`);
      expect(logs.items.map(({ line }) => line)).toEqual(["one", "two", "three"]);
      // Also those of the last moment, while it drains.
      const last = await client.enqueue("talks");
      await eventually("it to run", async () => talks === 2);
      await worker.stop();
      expect(await last.task()).toMatchObject({ status: "Completed" });
      expect(errors).toEqual([]);
    },
    30_000,
  );

  test.concurrent(
    "keeps its leases for as long as handlers run",
    async () => {
      const { worker, errors } = started({
        slow: () => Bun.sleep(LONGER_THAN_A_LEASE_MS).then(() => "done"),
      });
      const handle = await client.enqueue("slow");
      expect(await handle.result()).toBe("done");
      expect(await handle.task()).toMatchObject({ attempt: 1, crashes: 0 });
      await worker.stop();
      expect(errors).toEqual([]);
    },
    30_000,
  );

  test.concurrent(
    "aborts the signal on a cancel, and confirms it",
    async () => {
      const { handler, running, reasons } = stoppable();
      const { worker, errors } = started({ waits: handler });
      const handle = await client.enqueue("waits");
      await running;
      await handle.cancel();
      expect(await final(handle)).toMatchObject({ status: "Cancelled", attempt: 1 });
      expect(reasons).toEqual(["the task was cancelled"]);
      await worker.stop();
      expect(errors).toEqual([]);
    },
    30_000,
  );

  test.concurrent(
    "confirms a cancel without a handler that ignores its signal; the slot stays taken until it ends",
    async () => {
      const gate = Promise.withResolvers<void>();
      const { worker, errors } = started({ deaf: () => gate.promise }, { graceMs: 20 });
      const handle = await client.enqueue("deaf");
      await eventually("it to run", async () => worker.running === 1);
      await handle.cancel();
      expect(await final(handle)).toMatchObject({ status: "Cancelled" });
      expect(worker.running).toBe(1);
      gate.resolve();
      await eventually("it to end", async () => worker.running === 0);
      await worker.stop();
      expect(errors).toEqual([]);
    },
    30_000,
  );

  test.concurrent(
    "aborts the signal on a time-out, which is the task's failure",
    async () => {
      const { handler, reasons } = stoppable();
      const { worker } = started({ late: handler });
      const handle = await client.enqueue("late", null, { timeout_ms: 1_000, max_retries: 0 });
      expect(await final(handle)).toMatchObject({ status: "Failed", retries: 0, crashes: 0 });
      // The leader times it out by its own clock; the worker hears of it with a heartbeat.
      await eventually("the signal", async () => reasons.length === 1);
      await worker.stop();
    },
    30_000,
  );

  test.concurrent(
    "gives a task all of its time, however long its poll was held before",
    async () => {
      const { worker, errors } = started({
        brief: async (_, { signal }) => {
          await Promise.race([
            Bun.sleep(1_000),
            new Promise((_, reject) => signal.addEventListener("abort", reject)),
          ]);
          return signal.aborted;
        },
      });
      // Its poll waits at the member for less than a third of a lease: the claim counts from when it was sent.
      await Bun.sleep(1_500);
      const handle = await client.enqueue("brief", null, { timeout_ms: 1_500, max_retries: 0 });
      expect(await final(handle)).toMatchObject({ status: "Completed", result: false });
      await worker.stop();
      expect(errors).toEqual([]);
    },
    30_000,
  );

  test.concurrent(
    "takes a task that is named like something that every object has",
    async () => {
      const { worker } = started(
        { "*": (payload, { name }) => ({ name, payload }) },
        { queues: ["odd-names"] },
      );
      for (const name of ["constructor", "toString", "__proto__", "hasOwnProperty"]) {
        const handle = await client.enqueue(name, 1, { queue: "odd-names" });
        expect(await handle.result()).toEqual({ name, payload: 1 });
      }
      await worker.stop();
    },
    30_000,
  );

  test.concurrent(
    "goes on reporting when those it tells throw",
    async () => {
      const told: string[] = [];
      const { worker } = started(
        { heard: () => "done" },
        {
          onReported: () => {
            throw new Error("of the listener");
          },
          onError: (error) => {
            told.push(error.message);
            throw error;
          },
        },
      );
      const handles = await client.enqueueMany(
        Array.from({ length: 20 }, () => ({ name: "heard" })),
      );
      for (const handle of handles) expect(await handle.result()).toBe("done");
      await worker.stop();
      expect(told).toEqual(handles.map(() => "of the listener"));
    },
    30_000,
  );

  test.concurrent(
    "drains: what ends in time is reported, the rest goes back at no cost",
    async () => {
      const { handler, running } = stoppable();
      const { worker, errors } = started({
        stays: handler,
        quick: () => Bun.sleep(50).then(() => 1),
      });
      const stays = await client.enqueue("stays");
      await running;
      const ends = await client.enqueue("quick");
      await eventually("both to run", async () => worker.running === 2);
      await worker.stop({ drainMs: 2_000 });
      expect(await ends.task()).toMatchObject({ status: "Completed", result: 1 });
      expect(await stays.task()).toMatchObject({ status: "Pending", retries: 0, crashes: 0 });
      expect(errors).toEqual([]);
      const next = started({ stays: () => "second" });
      expect(await stays.result()).toBe("second");
      await next.worker.stop();
    },
    30_000,
  );

  test.concurrent(
    "that is told to be quiet finishes what it runs and claims no more",
    async () => {
      const gate = Promise.withResolvers<string>();
      const { worker } = started({ gated: () => gate.promise });
      const first = await client.enqueue("gated");
      await eventually("the first to run", async () => worker.running === 1);
      await cluster.member(0).post(`/api/workers/${worker.workerId}/quiet`, {});
      await Bun.sleep(2_500);
      const second = await client.enqueue("gated");
      gate.resolve("done");
      expect(await first.result()).toBe("done");
      await Bun.sleep(200);
      expect(await second.task()).toMatchObject({ status: "Pending", attempt: 0 });
      await worker.stop();
      await second.cancel();
    },
    30_000,
  );

  test.concurrent(
    'of some queues leaves the others alone; "*" takes every name',
    async () => {
      const { worker } = started({ "*": (_, { name }) => name }, { queues: ["mine"] });
      const theirs = await client.enqueue("any", null, { queue: "theirs" });
      const mine = await client.enqueue("whatever", null, { queue: "mine" });
      expect(await mine.result()).toBe("whatever");
      expect(await theirs.task()).toMatchObject({ status: "Pending", attempt: 0 });
      await worker.stop();
      await theirs.cancel();
    },
    30_000,
  );

  test.concurrent("runs handlers that were written for a member", () => {
    const written: Handler = (payload, context) => {
      context.progress(1);
      return payload;
    };
    // A matter of types: what a member's handler needs, a worker's context has.
    expect(() => new FlotillaWorker({ client, handlers: { written } })).not.toThrow();
  });
});

describe("A worker on its own", () => {
  const claimed = (leaseMs: number): object => {
    const startedAt = new Date("2026-01-01T00:00:00Z");
    const expires_at = new Date(startedAt.getTime() + leaseMs).toISOString();
    const lease = { worker: "w", attempt: 1, fence: 7, expires_at };
    return {
      tasks: [
        {
          id: "0192f6f1-7c3a-7d1e-9b52-3f6c1a2b4c5d",
          name: "waits",
          payload: null,
          timeout_ms: null,
          started_at: startedAt.toISOString(),
          lease,
        },
      ],
      directive: "ok",
    };
  };
  const never = new Promise<Response>(() => {});

  test.concurrent(
    "stops its tasks when no heartbeat was answered for a lease period, and reports nothing",
    async () => {
      let claims = 0;
      await using member = new ScriptedMember(({ path }) =>
        path === "/api/leases/claim" && claims++ === 0 ? Response.json(claimed(300)) : never,
      );
      using lonely = clientOf([member]);
      const { handler, reasons, running } = stoppable();
      const since = performance.now();
      const { worker } = started({ waits: handler }, { client: lonely });
      await running;
      await eventually("the self-stop", async () => worker.running === 0);
      expect(performance.now() - since).toBeGreaterThan(250);
      expect(reasons).toEqual(["no heartbeat was answered for a lease period"]);
      await worker.stop();
      const paths = new Set(member.asked.map(({ path }) => path));
      expect([...paths].filter((path) => !/claim|heartbeat|config/.test(path))).toEqual([]);
    },
  );

  test.concurrent(
    "repeats a claim under its request id, and a lost lease ends silently",
    async () => {
      await using member: ScriptedMember = new ScriptedMember(({ path, body }) => {
        if (path === "/api/leases/heartbeat") {
          const { leases } = body as { leases: { task_id: string }[] };
          const verdicts = leases.map(({ task_id }) => ({ task_id, status: "lost" }));
          return Response.json({ leases: verdicts, directive: "ok" });
        }
        const claims = member.asked.filter((asked) => asked.path === "/api/leases/claim").length;
        if (path !== "/api/leases/claim" || claims > 2) return never;
        return claims === 1 ? new Response("", { status: 502 }) : Response.json(claimed(6_000));
      });
      using lonely = clientOf([member]);
      const { handler, reasons, running } = stoppable();
      const { worker } = started({ waits: handler }, { client: lonely });
      await running;
      await eventually("the stop", async () => worker.running === 0);
      expect(reasons).toEqual(["the lease was lost"]);
      const ids = member.asked
        .filter(({ path }) => path === "/api/leases/claim")
        .map(({ body }) => (body as { request_id: string }).request_id);
      expect(ids[0]).toBe(ids[1] ?? "");
      expect(ids[2]).not.toBe(ids[0] ?? "");
      await worker.stop();
    },
  );

  test.concurrent(
    "goes on without its client's cluster only until the client is closed",
    async () => {
      await using member = new ScriptedMember(() => never);
      const lonely = clientOf([member]);
      const { worker, errors } = started({ waits: () => 1 }, { client: lonely });
      await eventually("a claim", async () => member.asked.length > 0);
      lonely.close();
      await worker.stop();
      expect(errors).toEqual([]);
    },
  );

  test.concurrent("refuses bad options by name", () => {
    const made = (options: object) => (): FlotillaWorker =>
      new FlotillaWorker({ client, handlers: { a: () => 1 }, ...options });
    expect(made({ handlers: {} })).toThrow(/handlers/);
    expect(made({ handlers: { a: 1 } })).toThrow(/"a" is not a function/);
    expect(made({ concurrency: 0 })).toThrow(/concurrency/);
    expect(made({ concurrency: 1_001 })).toThrow(/concurrency/);
    expect(made({ concurrency: 1.5 })).toThrow(/concurrency/);
    expect(made({ queues: [] })).toThrow(/queues/);
    expect(made({ graceMs: -1 })).toThrow(/graceMs/);
  });
});
