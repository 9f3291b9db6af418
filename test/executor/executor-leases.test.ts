/** An executor pool and a queue that is slow, away, or of another opinion. Most of it is waiting: all at once. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { FakeQueue } from "./fake-queue.ts";
import { withPools } from "./pool-fixture.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

describe("leases and failures of the queue", () => {
  test.concurrent(
    "running tasks are named in heartbeats, with what the pool is",
    withPools(async ({ started }) => {
      const { queue } = await started({ leaseMs: () => 700 });
      const id = queue.add("abortable");
      await queue.until(
        () => queue.heartbeats.some(({ leases }) => leases.some((lease) => lease.task_id === id)),
        "a heartbeat",
      );
      expect(queue.heartbeats.at(-1)?.info).toMatchObject({ member: "n1", slots: 2, stuck: 0 });
    }),
  );

  test.concurrent(
    "answered heartbeats keep a task alive for many lease periods",
    withPools(async ({ started }) => {
      const { queue } = await started({ leaseMs: () => 700 });
      const id = queue.add("wait", { ms: 2_200 });
      expect((await queue.ended(id)).kind).toBe("complete");
    }),
  );

  for (const mode of ["down", "hang"] as const) {
    test.concurrent(
      `a task whose heartbeats are not answered stops by itself and reports nothing: ${mode}`,
      withPools(async ({ started }) => {
        const { queue, pool } = await started({ leaseMs: () => 700, concurrency: 1 });
        const id = queue.add("tellsReason");
        await queue.until(() => queue.reports.length > 0, "the handler to begin");
        queue.mode = mode;
        await queue.until(() => pool.running === 0, "the task to stop");
        queue.mode = "up";
        await queue.until(() => queue.asked === 1, "the slot to be offered again");
        expect(queue.endCalls).toEqual([]);
        expect(queue.leased.has(id)).toBe(true);
        // Calls that were never answered do not keep later ones from being sent.
        expect((await queue.ended(queue.add("wait", { ms: 1_500 }))).kind).toBe("complete");
      }),
    );
  }

  test.concurrent(
    "a claim that failed is repeated with its request id, and brings the tasks of the lost answer",
    withPools(async ({ started }) => {
      const { queue } = await started({ concurrency: 1 });
      queue.loseClaimAnswers = 1;
      const id = queue.add("double", { n: 4 });
      expect((await queue.ended(id)).kind).toBe("complete");
      const ids = queue.claims.map((claim) => claim.request_id);
      expect(ids[1]).toBe(ids[0]);
      expect(queue.peak).toBe(1);
    }),
  );

  test.concurrent(
    "an end that failed is repeated until it is answered",
    withPools(async ({ started }) => {
      const { queue } = await started({ concurrency: 1 });
      const id = queue.add("wait", { ms: 150 });
      await queue.until(() => queue.leased.has(id), "the claim");
      queue.mode = "down";
      await queue.until(() => queue.endCalls.length >= 2, "two tries");
      queue.mode = "up";
      expect((await queue.ended(id)).kind).toBe("complete");
    }),
  );

  test.concurrent(
    "with a leader that is away claims are tried again and again, but not in a tight loop",
    withPools(async ({ poolOf }) => {
      const queue = new FakeQueue();
      queue.mode = "down";
      const pool = poolOf(queue, { concurrency: 1 });
      await pool.start();
      await Bun.sleep(300);
      expect(queue.claims.length).toBeLessThan(8);
      expect(new Set(queue.claims.map((claim) => claim.request_id)).size).toBe(1);
      queue.mode = "up";
      expect((await queue.ended(queue.add("double", { n: 1 }))).kind).toBe("complete");
    }),
  );

  test(
    "tasks that end in one turn travel in one call",
    withPools(async ({ warmed }) => {
      const { queue } = await warmed({ concurrency: 4 });
      const ids = Array.from({ length: 4 }, () => queue.add("wait", { ms: 150 }));
      await queue.until(() => queue.leased.size === 4, "the claims");
      // The main thread is away while the handlers end: one turn finds all that they said.
      await Bun.sleep(20);
      Bun.sleepSync(1_000);
      const claimsBefore = queue.claims.length;
      await Promise.all(ids.map((id) => queue.ended(id)));
      await queue.until(() => queue.asked === 4, "the slots to be offered again");
      expect(queue.endCalls.map(({ items }) => items.length)).toEqual([4]);
      expect(queue.claims.slice(claimsBefore).map((claim) => claim.max)).toEqual([4]);
    }),
  );

  test.concurrent(
    "a quiet pool finishes what runs and claims nothing until it is told to go on",
    withPools(async ({ started }) => {
      const { queue } = await started({ leaseMs: () => 600, concurrency: 1 });
      queue.directive = "quiet";
      await queue.until(() => queue.asked === 0, "the claim to be withdrawn");
      const id = queue.add("double", { n: 1 });
      await Bun.sleep(150);
      expect(queue.ends.has(id)).toBe(false);
      queue.directive = "ok";
      expect((await queue.ended(id)).kind).toBe("complete");
    }),
  );
});
