import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Slot, SlotEvents } from "../../src/executor/slot.ts";
import type { ClaimedTask } from "../../src/queue/types.ts";
import { asNodeId } from "../../src/raft/types.ts";
import { NodeClock, World } from "../sim/world.ts";
import { FakeQueue, memoryLog } from "./fake-queue.ts";
import { errorOf, FIXTURE, Pools } from "./pool-fixture.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const pools = new Pools();
const { poolOf, started } = pools;
afterEach(() => pools.stop());

describe("tasks claimed ahead of a free slot", () => {
  /** Slots in virtual time; `runMs`: how long each task takes in it. */
  function virtual(runMs: () => number, concurrency = 2) {
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
        depth: 1,
        blocked: false,
        holds: (task) => task === current,
        isShared: () => false,
        look: () => 0,
        takeBack: () => undefined,
        run([task]) {
          if (task === undefined) throw new Error("nothing was given");
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
    const pool = poolOf(queue, { concurrency, clock, slots: { names: ["n"], open } });
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
    for (const { max } of ahead) expect(max).toBeLessThanOrEqual(10);
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

  test("are none for a slot whose end was not sent yet: no more than the slots are seen running", async () => {
    let started = 0;
    const { pool, queue, run } = virtual(() => 100 + 3 * started++, 12);
    queue.end = () => new Promise(() => undefined);
    await pool.start();
    for (let i = 0; i < 12; i++) queue.add("n");
    await run(500);
    expect(started).toBe(12);
    // As many calls as there may be are never answered; the other four ends wait for one of them.
    expect(queue.asked).toBe(8);
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
