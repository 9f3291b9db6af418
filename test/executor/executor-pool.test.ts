import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  ExecutorPool,
  HandlersError,
  type ExecutorPoolOptions,
} from "../../src/executor/executor-pool.ts";
import type { Slot, SlotEvents } from "../../src/executor/slot.ts";
import type { ClaimedTask, LeaseEnd, TaskError } from "../../src/queue/types.ts";
import { asNodeId } from "../../src/raft/types.ts";
import { NodeClock, World } from "../sim/world.ts";
import { FakeQueue, memoryLog, realClock } from "./fake-queue.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const FIXTURE = new URL("./fixtures/handlers.ts", import.meta.url).pathname;
const pools: ExecutorPool[] = [];

function poolOf(queue: FakeQueue, options: Partial<ExecutorPoolOptions> = {}): ExecutorPool {
  const pool = new ExecutorPool({
    queue,
    member: asNodeId("n1"),
    boot: 7,
    concurrency: 2,
    handlers: { kind: "module", path: FIXTURE, builtin: [] },
    ioRoots: [],
    allowNet: [],
    clock: realClock,
    log: memoryLog(),
    graceMs: 100,
    leaseMs: () => 15_000,
    ...options,
  });
  pools.push(pool);
  return pool;
}

async function started(
  options: Partial<ExecutorPoolOptions> = {},
): Promise<{ queue: FakeQueue; pool: ExecutorPool }> {
  const queue = new FakeQueue();
  const pool = poolOf(queue, options);
  await pool.start();
  return { queue, pool };
}

function errorOf(end: LeaseEnd): TaskError {
  if (end.kind !== "fail") throw new Error(`ended with ${end.kind}`);
  return end.error;
}

/** A pool whose Workers are all loaded, so that a handler is entered as soon as its task is claimed. */
async function warmed(
  options: Partial<ExecutorPoolOptions> & { readonly concurrency: number },
): Promise<{ queue: FakeQueue; pool: ExecutorPool }> {
  const { queue, pool } = await started(options);
  const ids = Array.from({ length: options.concurrency }, () => queue.add("wait", { ms: 50 }));
  await Promise.all(ids.map((id) => queue.ended(id)));
  queue.endCalls.length = 0;
  return { queue, pool };
}

afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.stop()));
});

describe("tasks claimed ahead of a free slot", () => {
  /** One slot in virtual time; `runMs`: how long each task takes in it. */
  function virtual(runMs: () => number) {
    const world = new World(1);
    const clock = new NodeClock(world);
    const queue = new FakeQueue();
    queue.serveAhead = true;
    let running = 0;
    let peak = 0;
    const open = (events: SlotEvents): Slot => {
      let current: ClaimedTask | null = null;
      const end = (task: ClaimedTask): void => {
        if (current !== task) return;
        current = null;
        running -= 1;
        const rest = { progress: null, lines: [] };
        events.ended(task, { kind: "outcome", outcome: { kind: "result", result: null }, rest });
        events.changed();
      };
      return {
        get free() {
          return current === null;
        },
        blocked: false,
        run(task) {
          current = task;
          running += 1;
          peak = Math.max(peak, running);
          clock.after(runMs(), () => end(task));
        },
        abort: end,
        kill: end,
        unblock: () => undefined,
        stop: () => Promise.resolve(),
      };
    };
    const pool = poolOf(queue, { concurrency: 2, clock, slots: { names: ["n"], open } });
    /** Virtual time goes on while real turns let the queue answer. */
    const run = async (ms: number): Promise<void> => {
      for (let at = 0; at < ms; at++) {
        await world.run(world.now + 1);
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    return { pool, queue, run, peak: () => peak };
  }

  test("wait for moments while runs are short, and no more handlers run for it", async () => {
    const { pool, queue, run, peak } = virtual(() => 1);
    await pool.start();
    const ids = Array.from({ length: 60 }, () => queue.add("n"));
    await run(200);
    expect(ids.every((id) => queue.ends.get(id)?.kind === "complete")).toBe(true);
    expect(peak()).toBe(2);
    const ahead = queue.claims.filter((claim) => claim.ahead === true);
    expect(ahead.length).toBeGreaterThan(0);
    for (const { max } of ahead) expect(max).toBeLessThanOrEqual(8);
    // Far fewer claims than tasks: most came with others.
    expect(queue.claims.length).toBeLessThan(40);
  });

  test("are none while runs take long", async () => {
    const { pool, queue, run } = virtual(() => 200);
    await pool.start();
    for (let i = 0; i < 6; i++) queue.add("n");
    await run(1_000);
    expect(queue.claims.filter((claim) => claim.ahead === true)).toEqual([]);
    expect(queue.ends.size).toBe(6);
  });

  test("are handed back when runs turn out long, and claimed no more", async () => {
    let runMs = 1;
    const { pool, queue, run } = virtual(() => runMs);
    await pool.start();
    for (let i = 0; i < 10; i++) queue.add("n");
    await run(50);
    runMs = 10_000;
    const ids = Array.from({ length: 10 }, () => queue.add("n"));
    await run(40);
    expect(queue.leased.size).toBeGreaterThan(2);
    await run(100);
    // The two that run; whoever claims next gets the others.
    expect(queue.leased.size).toBe(2);
    expect(ids.filter((id) => queue.ends.get(id)?.kind === "release")).toHaveLength(8);
    expect(queue.asked).toBe(0);
  });

  test("are given back when cancelled, and all of them when the member drains", async () => {
    let runMs = 1;
    const { pool, queue, run } = virtual(() => runMs);
    await pool.start();
    for (let i = 0; i < 10; i++) queue.add("n");
    await run(50);
    runMs = 30;
    const ids = Array.from({ length: 6 }, () => queue.add("n"));
    await run(2);
    const [one, two, cancelled, lost, ...others] = ids;
    if (cancelled === undefined || lost === undefined) throw new Error("none waits");
    expect(queue.leased.has(lost)).toBe(true);
    queue.cancel(cancelled);
    queue.cancel(lost, "lost", "expired");
    await run(2);
    expect(queue.ends.get(cancelled)).toEqual({ kind: "release" });
    expect(queue.ends.has(lost)).toBe(false);
    void pool.drain(5_000);
    await run(60);
    expect(others.map((id) => queue.ends.get(id)?.kind)).toEqual(["release", "release"]);
    for (const id of [one, two]) expect(queue.ends.get(id ?? "")?.kind).toBe("complete");
    expect(queue.ends.has(lost)).toBe(false);
  });
});

describe("running tasks", () => {
  test("a task's payload reaches its handler and the result comes back as JSON text", async () => {
    const { queue } = await started();
    const id = queue.add("double", { n: 21 });
    expect(await queue.ended(id)).toEqual({ kind: "complete", result: '{"doubled":42}' });
  });

  test("a handler sees attempt, fence, id and name; no payload is null", async () => {
    const { queue } = await started();
    const id = queue.add("context");
    const end = await queue.ended(id);
    expect(end.kind === "complete" && JSON.parse(end.result ?? "")).toEqual({
      payload: null,
      attempt: 1,
      fence: 1,
      taskId: id,
      name: "context",
    });
  });

  test("claims name the handlers, the member and its boot, and take no other names", async () => {
    const { queue } = await started();
    await queue.until(() => queue.claims.length > 0, "a claim");
    const [claim] = queue.claims;
    expect(claim?.worker_id).toBe("n1/7");
    expect(claim?.local).toEqual({ member: asNodeId("n1"), boot: 7 });
    expect(claim?.names).toContain("double");
    expect(claim?.star).toBe(false);
  });

  test("the built-in pool claims with star, and its star is an echo", async () => {
    const { queue } = await started({ handlers: { kind: "builtin", names: null } });
    const id = queue.add("whatever", [1, "two"]);
    expect(await queue.ended(id)).toEqual({ kind: "complete", result: '[1,"two"]' });
    expect(queue.claims[0]?.star).toBe(true);
    expect(queue.claims[0]?.names).toEqual(["echo", "compute", "io", "http", "sleep", "fail"]);
  });

  test("an echo answers with the text that came, to the digit, within the limit of results", async () => {
    const { queue } = await started({ handlers: { kind: "builtin", names: null } });
    const text = '{ "big": 9007199254740993, "float": 1.0, "huge": 1e400, "twice": 1, "twice": 2 }';
    for (const name of ["echo", "by-the-star"]) {
      const ended = await queue.ended(queue.addText(name, text));
      expect(ended).toEqual({ kind: "complete", result: text });
    }
    const none = await queue.ended(queue.addText("echo", null));
    expect(none).toEqual({ kind: "complete", result: "null" });
    const large = await queue.ended(queue.addText("echo", `"${"x".repeat(300_000)}"`));
    expect(large).toMatchObject({ kind: "fail", error: { type: "ResultTooLarge" } });
  });

  test("built-in handlers can be kept beside a module", async () => {
    const { queue } = await started({
      handlers: { kind: "module", path: FIXTURE, builtin: ["echo"] },
    });
    expect(await queue.ended(queue.add("echo", 5))).toEqual({ kind: "complete", result: "5" });
    expect(queue.claims[0]?.names).toContain("double");
    expect(queue.claims[0]?.names).not.toContain("http");
  });

  test("the slots are all used and never exceeded, whatever the load", async () => {
    const { queue, pool } = await started({ concurrency: 3 });
    const ids = Array.from({ length: 40 }, () => queue.add("wait", { ms: 5 }));
    let most = 0;
    await queue.until(() => {
      most = Math.max(most, pool.running);
      return ids.every((id) => queue.ends.has(id));
    }, "all to end");
    expect(most).toBe(3);
    expect(queue.peak).toBe(3);
  });

  test("idle slots stay covered by claims whose sum is the number of free slots", async () => {
    const { queue } = await started({ concurrency: 4 });
    await queue.until(() => queue.asked === 4, "four slots to be asked for");
    const id = queue.add("abortable");
    await queue.until(() => queue.leased.has(id) && queue.asked === 3, "three to be left");
    expect(queue.peak).toBe(4);
  });

  test("every claim has a request id of its own", async () => {
    const { queue } = await started();
    for (let round = 0; round < 5; round += 1) await queue.ended(queue.add("double", { n: 1 }));
    const ids = queue.claims.map((claim) => claim.request_id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  test("a member that comes back with an empty folder, in its first boot again, repeats no claim of the earlier one", async () => {
    const ids: string[] = [];
    for (const random of [() => 0.1, () => 0.2]) {
      const queue = new FakeQueue();
      const pool = poolOf(queue, { concurrency: 1, random });
      await pool.start();
      await queue.until(() => queue.claims.length > 0, "a claim");
      ids.push(...queue.claims.map((claim) => `${claim.worker_id} ${claim.request_id}`));
    }
    expect(new Set(ids).size).toBe(ids.length);
  });

  test("with no slots nothing is claimed and no Worker is started", async () => {
    const { queue, pool } = await started({ concurrency: 0 });
    expect(queue.claims).toEqual([]);
    expect(pool.names).toEqual([]);
    await pool.drain(1_000);
  });
});

describe("results and errors", () => {
  test("no result is null; a result that JSON cannot hold fails for good and says so", async () => {
    const { queue } = await started();
    expect(await queue.ended(queue.add("nothing"))).toEqual({ kind: "complete", result: null });
    for (const name of ["bigint", "functionResult"]) {
      const error = errorOf(await queue.ended(queue.add(name)));
      expect(error.type).toBe("UnserialisableResult");
      expect(error.message).toContain("not JSON");
      expect(error.retryable).toBe(false);
    }
  });

  test("a result above the limit fails and names the limit; one at the limit passes", async () => {
    const { queue } = await started({ resultMaxBytes: () => 1_000 });
    expect((await queue.ended(queue.add("large", { length: 998 }))).kind).toBe("complete");
    const error = errorOf(await queue.ended(queue.add("large", { length: 999 })));
    expect(error.type).toBe("ResultTooLarge");
    expect(error.message).toContain("1001 bytes");
    expect(error.message).toContain("1000");
  });

  test("what a handler throws becomes type, message and stack", async () => {
    const { queue } = await started();
    const end = await queue.ended(queue.add("throws"));
    expect(end).toMatchObject({ kind: "fail", crashed: false, retry_after_ms: null });
    const error = errorOf(end);
    expect(error).toMatchObject({ type: "TypeError", message: "no good", retryable: true });
    expect(error.stack).toContain("fixtures/handlers.ts");
  });

  test("a thrown non-error and a hostile one are failures like any other", async () => {
    const { queue } = await started();
    expect(errorOf(await queue.ended(queue.add("throwsText"))).message).toContain("just text");
    expect(errorOf(await queue.ended(queue.add("throwsHostile"))).retryable).toBe(true);
  });

  test("a long message is cut inside its limit, between characters, and marked", async () => {
    const { queue } = await started();
    const { message } = errorOf(await queue.ended(queue.add("throwsLong")));
    expect(Buffer.byteLength(message)).toBeLessThanOrEqual(4_096);
    expect(message).toEndWith("é… [cut]");
  });

  test("NonRetryableError, RetryAfter and Snooze say what they mean, from any copy of their module", async () => {
    const { queue } = await started();
    expect(errorOf(await queue.ended(queue.add("nonRetryable"))).retryable).toBe(false);
    expect(await queue.ended(queue.add("retryAfter"))).toMatchObject({ retry_after_ms: 1_234 });
    expect(await queue.ended(queue.add("foreignRetryAfter"))).toMatchObject({ retry_after_ms: 99 });
    expect(await queue.ended(queue.add("snooze"))).toEqual({ kind: "snooze", delay_ms: 5_000 });
  });

  test("a handler's console goes to the log, and the members' secret does not go to it", async () => {
    process.env.FLOTILLA_SECRET = "hush";
    try {
      const log = memoryLog();
      const { queue } = await started({ log });
      await queue.ended(queue.add("usesConsole"));
      expect(log.lines.map(({ level, message }) => [level, message])).toContainEqual([
        "info",
        "hello world { a: 1 }",
      ]);
      expect(log.lines.some(({ level, message }) => level === "error" && message === "bad")).toBe(
        true,
      );
      expect(await queue.ended(queue.add("secret"))).toMatchObject({ result: "null" });
    } finally {
      delete process.env.FLOTILLA_SECRET;
    }
  });
});

describe("a flood", () => {
  test("console lines beyond 200 a second are counted and dropped", async () => {
    const log = memoryLog();
    const { queue } = await started({ log, concurrency: 1 });
    await queue.ended(queue.add("floodsConsole"));
    const lines = log.lines.filter(({ message }) => message.startsWith("line "));
    expect(lines.length).toBeGreaterThanOrEqual(200);
    expect(lines.length).toBeLessThan(5_000);
  });
});

describe("progress and log lines", () => {
  test("they are gathered into few reports, in order, and nothing is missing at the end", async () => {
    const { queue } = await started();
    const id = queue.add("chatty");
    await queue.ended(id);
    const lines = queue.reports.flatMap((report) => report.lines);
    expect(lines).toEqual([...Array.from({ length: 1_000 }, (_, line) => `line ${line}`), "last"]);
    expect(queue.reports.length).toBeLessThanOrEqual(3);
    expect(queue.reports.findLast((report) => report.progress !== null)?.progress?.percent).toBe(
      100,
    );
  });

  test("an attempt's log is cut at 64 KiB and marked", async () => {
    const { queue } = await started();
    await queue.ended(queue.add("floods"));
    const lines = queue.reports.flatMap((report) => report.lines);
    const bytes = lines.reduce((sum, line) => sum + Buffer.byteLength(line) + 1, 0);
    expect(bytes).toBeLessThanOrEqual(64 * 1_024);
    expect(bytes).toBeGreaterThan(60 * 1_024);
    expect(lines.at(-1)).toContain("cut");
  });
});

describe("stopping tasks", () => {
  test("a cancel aborts the signal with its reason and is confirmed with a release", async () => {
    const { queue, pool } = await started();
    const id = queue.add("tellsReason");
    await queue.until(() => queue.reports.length > 0, "the handler to begin");
    queue.cancel(id, "cancel", "cancelled by ann");
    expect(await queue.ended(id)).toEqual({ kind: "release" });
    expect(queue.reports.flatMap((report) => report.lines)).toContain("aborted: cancelled by ann");
    expect(pool.info().kills).toBe(0);
  });

  test("a cancel that only a heartbeat's answer tells is obeyed too", async () => {
    const { queue } = await started({ leaseMs: () => 300 });
    const id = queue.add("abortable");
    await queue.until(() => queue.leased.has(id), "the claim");
    queue.cancelling.add(id);
    expect(await queue.ended(id)).toEqual({ kind: "release" });
  });

  test("an endless loop is killed after the grace and its slot works again", async () => {
    const { queue, pool } = await warmed({ concurrency: 1 });
    const id = queue.add("spin");
    await queue.until(() => pool.running === 1, "the claim");
    queue.cancel(id);
    expect(await queue.ended(id)).toEqual({ kind: "release" });
    expect(pool.info()).toMatchObject({ kills: 1, stuck: 0 });
    expect((await queue.ended(queue.add("double", { n: 1 }))).kind).toBe("complete");
    expect(pool.info().restarts).toBe(1);
  });

  test("a handler deaf to its signal is killed, and no slot is asked for before", async () => {
    const { queue, pool } = await warmed({ concurrency: 1, graceMs: 300 });
    const id = queue.add("deaf");
    await queue.until(() => pool.running === 1, "the claim");
    queue.cancel(id);
    await Bun.sleep(100);
    expect(pool.running).toBe(1);
    expect(queue.asked).toBe(0);
    await queue.ended(id);
    expect(pool.info().kills).toBe(1);
  });

  test("a lost lease stops the task and is not reported", async () => {
    const { queue } = await warmed({ concurrency: 1 });
    const id = queue.add("spin");
    await queue.until(() => queue.leased.has(id), "the claim");
    queue.cancel(id, "lost", "timeout");
    const next = queue.add("double", { n: 2 });
    await queue.ended(next);
    expect(queue.endCalls.flatMap(({ items }) => items).map((item) => item.task_id)).toEqual([
      next,
    ]);
  });

  test("a cancel after which the lease is lost is not confirmed any more", async () => {
    const { queue, pool } = await warmed({ concurrency: 1 });
    const id = queue.add("deaf");
    await queue.until(() => pool.running === 1, "the claim");
    queue.cancel(id);
    queue.cancel(id, "lost", "expired");
    await queue.until(() => pool.running === 0, "the kill");
    await Bun.sleep(20);
    expect(queue.endCalls).toEqual([]);
  });

  test("after a snapshot was installed, what runs under no lease any more is stopped, and what was cancelled too", async () => {
    const { queue, pool } = await warmed({ concurrency: 3 });
    const ids = ["wait", "wait", "wait"].map((name) => queue.add(name, { ms: 400 }));
    await queue.until(() => pool.running === 3, "the claims");
    const [kept = "", gone = "", cancelled = ""] = ids;
    const fences = new Map(ids.map((id) => [id, queue.leased.get(id)?.lease.fence ?? 0]));
    pool.recheck((id) => {
      if (id === gone) return null;
      return { fence: fences.get(id) ?? 0, cancelling: id === cancelled };
    });
    expect((await queue.ended(kept)).kind).toBe("complete");
    // A release confirms a cancel.
    expect((await queue.ended(cancelled)).kind).toBe("release");
    await queue.until(() => pool.running === 0, "the stop");
    const reported = queue.endCalls.flatMap(({ items }) => items).map(({ task_id }) => task_id);
    expect(reported).not.toContain(gone);
  });

  test("a Worker held by native code is counted as stuck, replaced, and forgotten once it ends", async () => {
    const log = memoryLog();
    const { queue, pool } = await warmed({ concurrency: 1, graceMs: 20, stuckAfterMs: 300, log });
    const id = queue.add("nativeSleep", { ms: 1_500 });
    await queue.until(() => pool.running === 1, "the claim");
    await Bun.sleep(50);
    queue.cancel(id);
    await queue.ended(id);
    expect(pool.info().stuck).toBe(1);
    expect((await queue.ended(queue.add("double", { n: 1 }))).kind).toBe("complete");
    await queue.until(() => pool.info().stuck === 0, "the stuck Worker to end");
    expect(log.lines.some(({ message }) => message.includes("stuck; it was replaced"))).toBe(true);
  }, 20_000);

  test("with more stuck Workers than slots the pool claims less, and recovers when one ends", async () => {
    const log = memoryLog();
    const { queue, pool } = await warmed({ concurrency: 1, graceMs: 10, stuckAfterMs: 300, log });
    for (const ms of [3_500, 3_500]) {
      const id = queue.add("nativeSleep", { ms });
      await queue.until(() => pool.running === 1, "the claim");
      // The second one's Worker starts anew, and the handler that blocks it cannot say that it has begun.
      await Bun.sleep(400);
      queue.cancel(id);
      await queue.ended(id);
    }
    expect(pool.info().stuck).toBe(2);
    await Bun.sleep(50);
    expect(queue.asked).toBe(0);
    expect(log.lines.some(({ message }) => message.includes("claims less"))).toBe(true);
    expect((await queue.ended(queue.add("double", { n: 3 }))).kind).toBe("complete");
  }, 30_000);
});

describe("Workers that die", () => {
  for (const name of ["exits", "exitsClean", "rejects", "throwsLater"]) {
    test(`a handler that takes its Worker down counts as a crash: ${name}`, async () => {
      const { queue, pool } = await started({ concurrency: 1 });
      const end = await queue.ended(queue.add(name));
      expect(end).toMatchObject({ kind: "fail", crashed: true });
      expect(errorOf(end).type).toBe("WorkerCrashed");
      expect((await queue.ended(queue.add("double", { n: 1 }))).kind).toBe("complete");
      expect(pool.info()).toMatchObject({ kills: 0, restarts: 1 });
    });
  }

  test("the crash says what was thrown", async () => {
    const { queue } = await started({ concurrency: 1 });
    expect(errorOf(await queue.ended(queue.add("rejects"))).message).toContain(
      "TypeError: nobody awaited me",
    );
    expect(errorOf(await queue.ended(queue.add("exits"))).message).toContain("code 7");
  });

  test("a module that does not load fails the start with a sentence", async () => {
    const cases = [
      ["./fixtures/absent.ts", "absent.ts"],
      ["./fixtures/throws-on-load.ts", "broken at load"],
      ["./fixtures/no-default.ts", "no default export"],
      ["./fixtures/not-a-function.ts", '"oops" is not a function'],
      ["./fixtures/exits-on-load.ts", "code 3"],
    ] as const;
    for (const [file, words] of cases) {
      const queue = new FakeQueue();
      const path = new URL(file, import.meta.url).pathname;
      const pool = poolOf(queue, { handlers: { kind: "module", path, builtin: [] } });
      const error: unknown = await pool.start().catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(HandlersError);
      expect((error as Error).message).toContain(words);
      expect(queue.claims).toEqual([]);
    }
  });

  test("a Worker that keeps dying idle is started again ever more slowly", async () => {
    const path = new URL("./fixtures/dies-idle.ts", import.meta.url).pathname;
    const { queue, pool } = await started({
      concurrency: 1,
      handlers: { kind: "module", path, builtin: [] },
    });
    await queue.ended(queue.add("ok"));
    await Bun.sleep(1_200);
    expect(pool.info().restarts).toBeGreaterThan(0);
    expect(pool.info().restarts).toBeLessThan(6);
  });

  test("the built-in star is refused beside a module", async () => {
    const handlers = { kind: "module", path: FIXTURE, builtin: ["*"] } as const;
    const error: unknown = await poolOf(new FakeQueue(), { handlers })
      .start()
      .catch((reason: unknown) => reason);
    expect((error as Error).message).toContain('"*" exists only without');
  });

  test("an unknown built-in name fails the start and names the known ones", async () => {
    const pool = poolOf(new FakeQueue(), { handlers: { kind: "builtin", names: ["ehco"] } });
    const error: unknown = await pool.start().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(HandlersError);
    expect((error as Error).message).toContain("ehco; there are echo, compute");
  });

  test("when a Worker cannot be loaded any more its task is handed back, not failed", async () => {
    const folder = await mkdtemp(join(tmpdir(), "flotilla-executor-"));
    try {
      const path = join(folder, "handlers.ts");
      await Bun.write(path, "export default { exits: () => process.exit(1), ok: () => 1 };");
      const { queue } = await started({
        concurrency: 1,
        handlers: { kind: "module", path, builtin: [] },
      });
      await Bun.write(path, "throw new Error('edited badly');");
      const id = queue.add("ok");
      expect(await queue.ended(id)).toEqual({ kind: "release" });
      await Bun.write(path, "export default { ok: () => 2 };");
      expect(await queue.ended(queue.add("ok"))).toEqual({ kind: "complete", result: "2" });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("leases and failures of the queue", () => {
  test("running tasks are named in heartbeats, with what the pool is", async () => {
    const { queue } = await started({ leaseMs: () => 150 });
    const id = queue.add("abortable");
    await queue.until(
      () => queue.heartbeats.some(({ leases }) => leases.some((lease) => lease.task_id === id)),
      "a heartbeat",
    );
    expect(queue.heartbeats.at(-1)?.info).toMatchObject({ member: "n1", slots: 2, stuck: 0 });
  });

  test("answered heartbeats keep a task alive for many lease periods", async () => {
    const { queue } = await started({ leaseMs: () => 200 });
    const id = queue.add("wait", { ms: 900 });
    expect((await queue.ended(id)).kind).toBe("complete");
  });

  for (const mode of ["down", "hang"] as const) {
    test(`a task whose heartbeats are not answered stops by itself and reports nothing: ${mode}`, async () => {
      const { queue, pool } = await started({ leaseMs: () => 300, concurrency: 1 });
      const id = queue.add("tellsReason");
      await queue.until(() => queue.reports.length > 0, "the handler to begin");
      queue.mode = mode;
      await queue.until(() => pool.running === 0, "the task to stop");
      queue.mode = "up";
      await queue.until(() => queue.asked === 1, "the slot to be offered again");
      expect(queue.endCalls).toEqual([]);
      expect(queue.leased.has(id)).toBe(true);
      // Calls that were never answered do not keep later ones from being sent.
      expect((await queue.ended(queue.add("wait", { ms: 900 }))).kind).toBe("complete");
    });
  }

  test("a claim that failed is repeated with its request id, and brings the tasks of the lost answer", async () => {
    const { queue } = await started({ concurrency: 1 });
    queue.loseClaimAnswers = 1;
    const id = queue.add("double", { n: 4 });
    expect((await queue.ended(id)).kind).toBe("complete");
    const ids = queue.claims.map((claim) => claim.request_id);
    expect(ids[1]).toBe(ids[0]);
    expect(queue.peak).toBe(1);
  });

  test("an end that failed is repeated until it is answered", async () => {
    const { queue } = await started({ concurrency: 1 });
    const id = queue.add("wait", { ms: 150 });
    await queue.until(() => queue.leased.has(id), "the claim");
    queue.mode = "down";
    await queue.until(() => queue.endCalls.length >= 2, "two tries");
    queue.mode = "up";
    expect((await queue.ended(id)).kind).toBe("complete");
  });

  test("with a leader that is away claims are tried again and again, but not in a tight loop", async () => {
    const queue = new FakeQueue();
    queue.mode = "down";
    const pool = poolOf(queue, { concurrency: 1 });
    await pool.start();
    await Bun.sleep(300);
    expect(queue.claims.length).toBeLessThan(8);
    expect(new Set(queue.claims.map((claim) => claim.request_id)).size).toBe(1);
    queue.mode = "up";
    expect((await queue.ended(queue.add("double", { n: 1 }))).kind).toBe("complete");
  });

  test("tasks that end in one turn travel in one call", async () => {
    const { queue } = await warmed({ concurrency: 4 });
    const ids = Array.from({ length: 4 }, () => queue.add("wait", { ms: 150 }));
    await queue.until(() => queue.leased.size === 4, "the claims");
    // The main thread is away while the handlers end: one turn finds all that they said.
    await Bun.sleep(20);
    Bun.sleepSync(600);
    const claimsBefore = queue.claims.length;
    await Promise.all(ids.map((id) => queue.ended(id)));
    await queue.until(() => queue.asked === 4, "the slots to be offered again");
    expect(queue.endCalls.map(({ items }) => items.length)).toEqual([4]);
    expect(queue.claims.slice(claimsBefore).map((claim) => claim.max)).toEqual([4]);
  });

  test("a quiet pool finishes what runs and claims nothing until it is told to go on", async () => {
    const { queue } = await started({ leaseMs: () => 600, concurrency: 1 });
    queue.directive = "quiet";
    await queue.until(() => queue.asked === 0, "the claim to be withdrawn");
    const id = queue.add("double", { n: 1 });
    await Bun.sleep(150);
    expect(queue.ends.has(id)).toBe(false);
    queue.directive = "ok";
    expect((await queue.ended(id)).kind).toBe("complete");
  });
});

describe("drain and stop", () => {
  test("a drain withdraws the claims and lets what runs finish", async () => {
    const { queue, pool } = await started();
    const id = queue.add("wait", { ms: 200 });
    await queue.until(() => pool.running === 1, "the claim");
    const drained = pool.drain(10_000);
    await queue.until(() => queue.asked === 0, "the claims to be withdrawn");
    const late = queue.add("double", { n: 1 });
    await drained;
    expect(queue.ends.get(id)).toEqual({ kind: "complete", result: '"waited"' });
    expect(queue.ends.has(late)).toBe(false);
  });

  test("what is still running at the deadline is aborted, killed if need be, and handed back", async () => {
    const { queue, pool } = await warmed({ concurrency: 3 });
    const ids = ["abortable", "spin", "deaf"].map((name) => queue.add(name));
    await queue.until(() => queue.leased.size === 3, "the claims");
    await pool.drain(50);
    expect(ids.map((id) => queue.ends.get(id)?.kind)).toEqual(["release", "release", "release"]);
    expect(pool.running).toBe(0);
  });

  test("an idle pool drains at once, twice as well", async () => {
    const { pool } = await started();
    await Promise.all([pool.drain(60_000), pool.drain(60_000)]);
  });

  test("stop ends every Worker, an endless loop too, and reports nothing", async () => {
    const { queue, pool } = await started({ concurrency: 2 });
    queue.add("spin");
    queue.add("abortable");
    await queue.until(() => queue.leased.size === 2, "the claims");
    await pool.stop();
    expect(queue.endCalls).toEqual([]);
    expect(queue.asked).toBe(0);
  });
});
