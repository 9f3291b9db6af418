/** How what runs is stopped: by a cancel, with its Worker, and with the member. Most of it is waiting: all at once. */
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { HandlersError } from "../../src/executor/executor-pool.ts";
import { FakeQueue, memoryLog } from "./fake-queue.ts";
import { errorOf, FIXTURE, withPools } from "./pool-fixture.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

/** A task whose handler blocks its thread by now, in native code. */
async function blocked(queue: FakeQueue, ms: number): Promise<string> {
  const begun = join(tmpdir(), `flotilla-blocked-${Bun.randomUUIDv7()}`);
  const id = queue.add("nativeSleep", { ms, begun });
  await queue.until(() => existsSync(begun), "the handler to begin");
  await rm(begun);
  return id;
}

describe("stopping tasks", () => {
  test.concurrent(
    "a cancel aborts the signal with its reason and is confirmed with a release",
    withPools(async ({ started }) => {
      const { queue, pool } = await started();
      const id = queue.add("tellsReason");
      await queue.until(() => queue.reports.length > 0, "the handler to begin");
      queue.cancel(id, "cancel", "cancelled by ann");
      expect(await queue.ended(id)).toEqual({ kind: "release" });
      expect(queue.reports.flatMap((report) => report.lines)).toContain(
        "aborted: cancelled by ann",
      );
      expect(pool.info().kills).toBe(0);
    }),
  );

  test.concurrent(
    "a cancel that only a heartbeat's answer tells is obeyed too",
    withPools(async ({ started }) => {
      const { queue } = await started({ leaseMs: () => 2_000 });
      const id = queue.add("abortable");
      await queue.until(() => queue.leased.has(id), "the claim");
      queue.cancelling.add(id);
      expect(await queue.ended(id)).toEqual({ kind: "release" });
    }),
  );

  test.concurrent(
    "while the member's state is wrong nothing is claimed, and what runs is handed back whatever it says",
    withPools(async ({ warmed }) => {
      const { queue, pool } = await warmed({ concurrency: 2 });
      const ids = [queue.add("wait", { ms: 100 }), queue.add("abortable")];
      await queue.until(() => pool.running === 2, "the claims");
      pool.suspend("its state is wrong");
      for (const id of ids) expect(await queue.ended(id)).toEqual({ kind: "release" });
      await queue.until(() => queue.asked === 0, "the claims to be withdrawn");
      const later = queue.add("double", { n: 1 });
      await Bun.sleep(50);
      expect(queue.leased.has(later)).toBe(false);
      pool.resume();
      expect((await queue.ended(later)).kind).toBe("complete");
    }),
  );

  test.concurrent(
    "an endless loop is killed after the grace and its slot works again",
    withPools(async ({ warmed }) => {
      const { queue, pool } = await warmed({ concurrency: 1, graceMs: 100 });
      const id = queue.add("spin");
      await queue.until(() => pool.running === 1, "the claim");
      queue.cancel(id);
      expect(await queue.ended(id)).toEqual({ kind: "release" });
      expect(pool.info().kills).toBe(1);
      expect((await queue.ended(queue.add("double", { n: 1 }))).kind).toBe("complete");
      // On a busy machine its end takes longer than it may, but comes.
      await queue.until(() => pool.info().stuck === 0, "the Worker's end");
      expect(pool.info().restarts).toBe(1);
    }),
  );

  test.concurrent(
    "a handler deaf to its signal is killed, and no slot is asked for before",
    withPools(async ({ warmed }) => {
      const { queue, pool } = await warmed({ concurrency: 1, graceMs: 300 });
      const id = queue.add("deaf");
      await queue.until(() => pool.running === 1, "the claim");
      queue.cancel(id);
      await Bun.sleep(100);
      expect(pool.running).toBe(1);
      expect(queue.asked).toBe(0);
      await queue.ended(id);
      expect(pool.info().kills).toBe(1);
    }),
  );

  test.concurrent(
    "a lost lease stops the task and is not reported",
    withPools(async ({ warmed }) => {
      const { queue } = await warmed({ concurrency: 1, graceMs: 100 });
      const id = queue.add("spin");
      await queue.until(() => queue.leased.has(id), "the claim");
      queue.cancel(id, "lost", "timeout");
      const next = queue.add("double", { n: 2 });
      await queue.ended(next);
      expect(queue.endCalls.flatMap(({ items }) => items).map((item) => item.task_id)).toEqual([
        next,
      ]);
    }),
  );

  test.concurrent(
    "a cancel after which the lease is lost is not confirmed any more",
    withPools(async ({ warmed }) => {
      const { queue, pool } = await warmed({ concurrency: 1, graceMs: 100 });
      const id = queue.add("deaf");
      await queue.until(() => pool.running === 1, "the claim");
      queue.cancel(id);
      queue.cancel(id, "lost", "expired");
      await queue.until(() => pool.running === 0, "the kill");
      await Bun.sleep(20);
      expect(queue.endCalls).toEqual([]);
    }),
  );

  test.concurrent(
    "after a snapshot was installed, what runs under no lease any more is stopped, and what was cancelled too",
    withPools(async ({ warmed }) => {
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
    }),
  );

  test.concurrent(
    "a Worker held by native code is counted as stuck, replaced, and forgotten once it ends",
    withPools(async ({ warmed }) => {
      const log = memoryLog();
      const { queue, pool } = await warmed({ concurrency: 1, graceMs: 20, stuckAfterMs: 300, log });
      const id = await blocked(queue, 1_500);
      queue.cancel(id);
      await queue.ended(id);
      expect(pool.info().stuck).toBe(1);
      expect((await queue.ended(queue.add("double", { n: 1 }))).kind).toBe("complete");
      await queue.until(() => pool.info().stuck === 0, "the stuck Worker to end");
      expect(log.lines.some(({ message }) => message.includes("stuck; it was replaced"))).toBe(
        true,
      );
    }),
    20_000,
  );

  test.concurrent(
    "with more stuck Workers than slots the pool claims less, and recovers when one ends",
    withPools(async ({ warmed }) => {
      const log = memoryLog();
      const { queue, pool } = await warmed({ concurrency: 1, graceMs: 10, stuckAfterMs: 300, log });
      for (let each = 0; each < 2; each++) {
        const id = await blocked(queue, 3_000);
        queue.cancel(id);
        await queue.ended(id);
      }
      expect(pool.info().stuck).toBe(2);
      await Bun.sleep(50);
      expect(queue.asked).toBe(0);
      expect(log.lines.some(({ message }) => message.includes("claims less"))).toBe(true);
      expect((await queue.ended(queue.add("double", { n: 3 }))).kind).toBe("complete");
    }),
    30_000,
  );
});

describe("Workers that die", () => {
  for (const name of ["exits", "exitsClean", "rejects", "throwsLater"]) {
    test.concurrent(
      `a handler that takes its Worker down counts as a crash: ${name}`,
      withPools(async ({ started }) => {
        const { queue, pool } = await started({ concurrency: 1 });
        const end = await queue.ended(queue.add(name));
        expect(end).toMatchObject({ kind: "fail", crashed: true });
        expect(errorOf(end).type).toBe("WorkerCrashed");
        expect((await queue.ended(queue.add("double", { n: 1 }))).kind).toBe("complete");
        expect(pool.info()).toMatchObject({ kills: 0, restarts: 1 });
      }),
    );
  }

  test.concurrent(
    "the crash says what was thrown",
    withPools(async ({ started }) => {
      const { queue } = await started({ concurrency: 1 });
      expect(errorOf(await queue.ended(queue.add("rejects"))).message).toContain(
        "TypeError: nobody awaited me",
      );
      expect(errorOf(await queue.ended(queue.add("exits"))).message).toContain("code 7");
    }),
  );

  test.concurrent(
    "a module that does not load fails the start with a sentence",
    withPools(async ({ poolOf }) => {
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
    }),
  );

  test.concurrent(
    "a Worker that keeps dying idle is started again ever more slowly",
    withPools(async ({ started }) => {
      const path = new URL("./fixtures/dies-idle.ts", import.meta.url).pathname;
      const { queue, pool } = await started({
        concurrency: 1,
        handlers: { kind: "module", path, builtin: [] },
      });
      await queue.ended(queue.add("ok"));
      await queue.until(() => pool.info().restarts > 0, "the first restart");
      await Bun.sleep(1_200);
      expect(pool.info().restarts).toBeLessThan(6);
    }),
  );

  test.concurrent(
    "the built-in star is refused beside a module",
    withPools(async ({ poolOf }) => {
      const handlers = { kind: "module", path: FIXTURE, builtin: ["*"] } as const;
      const error: unknown = await poolOf(new FakeQueue(), { handlers })
        .start()
        .catch((reason: unknown) => reason);
      expect((error as Error).message).toContain('"*" exists only without');
    }),
  );

  test.concurrent(
    "an unknown built-in name fails the start and names the known ones",
    withPools(async ({ poolOf }) => {
      const pool = poolOf(new FakeQueue(), { handlers: { kind: "builtin", names: ["ehco"] } });
      const error: unknown = await pool.start().catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(HandlersError);
      expect((error as Error).message).toContain("ehco; there are echo, compute");
    }),
  );

  test.concurrent(
    "when a Worker cannot be loaded any more its task is handed back, not failed",
    withPools(async ({ started }) => {
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
    }),
  );
});

describe("drain and stop", () => {
  test.concurrent(
    "a drain withdraws the claims and lets what runs finish",
    withPools(async ({ started }) => {
      const { queue, pool } = await started();
      const id = queue.add("wait", { ms: 200 });
      await queue.until(() => pool.running === 1, "the claim");
      const drained = pool.drain(10_000);
      await queue.until(() => queue.asked === 0, "the claims to be withdrawn");
      const late = queue.add("double", { n: 1 });
      await drained;
      expect(queue.ends.get(id)).toEqual({ kind: "complete", result: '"waited"' });
      expect(queue.ends.has(late)).toBe(false);
    }),
  );

  test.concurrent(
    "what is still running at the deadline is aborted, killed if need be, and handed back",
    withPools(async ({ warmed }) => {
      const { queue, pool } = await warmed({ concurrency: 3, graceMs: 100 });
      const ids = ["abortable", "spin", "deaf"].map((name) => queue.add(name));
      await queue.until(() => queue.leased.size === 3, "the claims");
      await pool.drain(50);
      expect(ids.map((id) => queue.ends.get(id)?.kind)).toEqual(["release", "release", "release"]);
      expect(pool.running).toBe(0);
    }),
  );

  test.concurrent(
    "an idle pool drains at once, twice as well",
    withPools(async ({ started }) => {
      const { pool } = await started();
      await Promise.all([pool.drain(60_000), pool.drain(60_000)]);
    }),
  );

  test.concurrent(
    "stop ends every Worker, an endless loop too, and reports nothing",
    withPools(async ({ started }) => {
      const { queue, pool } = await started({ concurrency: 2 });
      queue.add("spin");
      queue.add("abortable");
      await queue.until(() => queue.leased.size === 2, "the claims");
      await pool.stop();
      expect(queue.endCalls).toEqual([]);
      expect(queue.asked).toBe(0);
    }),
  );
});
