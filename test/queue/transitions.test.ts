import { describe, expect, test } from "bun:test";
import { LIMITS } from "../../src/queue/types.ts";
import { asNodeId } from "../../src/raft/types.ts";
import { complete, failure, Harness, idAt, newTask, NO_DELAY, START } from "./machine-harness.ts";

describe("a task's life", () => {
  test("goes from ready over running to completed, with its history and result", () => {
    const h = new Harness();
    const id = h.submit({ payload: '{"b" :  2}' });
    expect(h.state(id)).toBe("Pending/ready");
    const ref = h.claimOne();
    expect(h.state(id)).toBe("Running/running");
    expect(h.task(id).lease).toEqual({
      worker: "w1",
      attempt: 1,
      fence: 1,
      expires_at: START + 15_000,
    });
    h.now += 5;
    expect(h.end(ref, complete)).toBe("ok");
    const task = h.task(id);
    expect(task.status).toBe("Completed");
    expect(task.result).toBe('"done"');
    expect(task.payload).toBe('{"b" :  2}');
    expect(task.completed_at).toBe(START + 5);
    expect(task.version).toBe(h.index);
    expect(h.machine.attempts(id)).toEqual([
      {
        attempt: 1,
        fence: 1,
        worker: "w1",
        started_at: START,
        finished_at: START + 5,
        outcome: "completed",
        error: null,
      },
    ]);
  });

  test("a payload too long for the row comes back byte for byte", () => {
    const h = new Harness();
    const payload = JSON.stringify({ text: "ä".repeat(50_000) });
    const id = h.submit({ payload });
    expect(h.claim()[0]?.payload).toBe(payload);
    expect(h.task(id).payload).toBe(payload);
    expect(h.db.query("SELECT count(*) AS n FROM payloads").get()).toEqual({ n: 1 });
  });

  test("a task for later is not claimed before its time in log time", () => {
    const h = new Harness();
    const id = h.submit({ run_at: START + 1_000 });
    expect(h.state(id)).toBe("Pending/scheduled");
    expect(h.machine.nextDueAt()).toBe(START + 1_000);
    h.now = START + 999;
    h.do({ type: "due", term: 1, max: 10 });
    expect(h.claim()).toEqual([]);
    h.now = START + 1_000;
    h.do({ type: "due", term: 1, max: 10 });
    expect(h.state(id)).toBe("Pending/ready");
    expect(h.machine.nextDueAt()).toBeNull();
    expect(h.claim()).toHaveLength(1);
  });

  test("tasks that come due together become ready in the order of their times", () => {
    const h = new Harness();
    const ids = [300, 100, 200].map((ms) => h.submit({ run_at: START + ms }));
    h.now = START + 1_000;
    h.do({ type: "due", term: 1, max: 10 });
    expect(h.claim(3).map(({ id }) => id)).toEqual([ids[1], ids[2], ids[0]].map((id) => id ?? ""));
  });

  test("log time that would go back stays where it was", () => {
    const h = new Harness();
    h.submit();
    h.now -= 10_000;
    h.submit();
    expect(h.machine.logTime()).toBe(START);
  });
});

describe("failures", () => {
  test("max_retries failures are retried, one more makes it exhausted", () => {
    const h = new Harness();
    const id = h.submit({ max_retries: 2 });
    for (let i = 1; i <= 2; i++) {
      expect(h.end(h.claimOne(), failure())).toBe("ok");
      expect(h.state(id)).toBe("Pending/ready");
      expect(h.task(id).retries).toBe(i);
    }
    h.end(h.claimOne(), failure());
    expect(h.state(id)).toBe("Failed/exhausted");
    const task = h.task(id);
    expect([task.retries, task.attempt, task.crashes]).toEqual([2, 3, 0]);
    expect(task.last_error?.message).toBe("boom");
  });

  test("a delay makes it wait as retrying; retry_after_ms overrides the policy once", () => {
    const h = new Harness();
    const retry = {
      kind: "fixed",
      initial_ms: 700,
      factor: 1,
      max_ms: 9_000,
      jitter: false,
    } as const;
    const id = h.submit({ retry });
    h.end(h.claimOne(), failure());
    expect(h.state(id)).toBe("Pending/retrying");
    expect(h.task(id).run_at).toBe(START + 700);
    h.now += 700;
    h.do({ type: "due", term: 1, max: 5 });
    h.end(h.claimOne(), failure({ retry_after_ms: 50 }));
    expect(h.task(id).run_at).toBe(h.now + 50);
  });

  test("an error that is not retryable fails it at once", () => {
    const h = new Harness();
    const id = h.submit();
    const error = { type: "Bad", message: "no", stack: null, retryable: false };
    h.end(h.claimOne(), failure({ error }));
    expect(h.state(id)).toBe("Failed/non_retryable");
  });

  test("messages and stacks are cut at their limits in bytes, and marked", () => {
    const h = new Harness();
    const id = h.submit();
    const error = {
      type: "E",
      message: "é".repeat(5_000),
      stack: "€".repeat(20_000),
      retryable: false,
    };
    h.end(h.claimOne(), failure({ error }));
    const kept = h.task(id).last_error;
    expect(Buffer.byteLength(kept?.message ?? "")).toBeLessThanOrEqual(LIMITS.errorMessage);
    expect(Buffer.byteLength(kept?.stack ?? "")).toBeLessThanOrEqual(LIMITS.errorStack);
    expect(kept?.message).toEndWith("… [cut]");
    expect(kept?.message).not.toContain("\ufffd");
    expect(kept?.stack).not.toContain("\ufffd");
  });

  test("a time-out is a failure, retried by the policy, and Failed/timeout at the end", () => {
    const h = new Harness();
    const id = h.submit({ max_retries: 1, timeout_ms: 100 });
    const first = h.claimOne();
    h.now += 99;
    h.do({ type: "timeout", term: 1, items: [first] });
    expect(h.state(id)).toBe("Running/running");
    h.now += 1;
    h.do({ type: "timeout", term: 1, items: [first] });
    expect(h.state(id)).toBe("Pending/ready");
    expect(h.task(id).retries).toBe(1);
    expect(h.end(first, complete)).toBe("stale-lease");
    expect(h.end(first, failure())).toBe("stale-lease");
    // The time of the next attempt begins with that attempt.
    const second = h.claimOne();
    h.now += 99;
    h.do({ type: "timeout", term: 1, items: [second] });
    expect(h.state(id)).toBe("Running/running");
    h.now += 1;
    h.do({ type: "timeout", term: 1, items: [second] });
    expect(h.state(id)).toBe("Failed/timeout");
    expect(h.machine.attempts(id)?.map((a) => a.outcome)).toEqual(["timeout", "timeout"]);
  });

  test("a task without a time-out is never timed out", () => {
    const h = new Harness();
    const id = h.submit({ timeout_ms: null });
    const ref = h.claimOne();
    h.now += 1e10;
    h.do({ type: "timeout", term: 1, items: [ref] });
    expect(h.state(id)).toBe("Running/running");
  });
});

describe("crashes, releases and snoozes", () => {
  test("expired leases whose work was seen are charged to crashes alone, at most max_crashes", () => {
    const h = new Harness();
    const id = h.submit();
    for (let i = 1; i <= 2; i++) {
      h.expire(h.claimOne(), true);
      expect(h.state(id)).toBe("Pending/ready");
      expect(h.task(id).crashes).toBe(i);
    }
    h.expire(h.claimOne(), true);
    expect(h.state(id)).toBe("Failed/crashed");
    const task = h.task(id);
    expect([task.crashes, task.retries, task.attempt]).toEqual([3, 0, 3]);
  });

  test("a worker's own crash report is a crash, not a failure", () => {
    const h = new Harness();
    const id = h.submit();
    const ref = h.claimOne();
    expect(h.end(ref, failure({ crashed: true }))).toBe("ok");
    expect(h.end(ref, failure({ crashed: true }))).toBe("ok");
    expect([h.task(id).crashes, h.task(id).retries]).toEqual([1, 0]);
  });

  test("a lease never heard of is free ten times and a crash from then on", () => {
    const h = new Harness();
    const id = h.submit();
    for (let i = 0; i < LIMITS.freeReleases; i++) h.expire(h.claimOne(), false);
    expect([h.task(id).crashes, h.task(id).retries]).toEqual([0, 0]);
    h.expire(h.claimOne(), false);
    expect(h.task(id).crashes).toBe(1);
  });

  test("a confirmed lease is charged even when the leader that expires it never heard of it", () => {
    const h = new Harness();
    const id = h.submit();
    const ref = h.claimOne();
    h.do({ type: "confirm", term: 1, items: [ref] });
    expect(h.machine.leaseOf(id)?.seen).toBe(true);
    h.expire(ref, false);
    expect(h.task(id).crashes).toBe(1);
  });

  test("release and snooze cost nothing however often, and the attempt is never reused", () => {
    const h = new Harness();
    const id = h.submit();
    for (let i = 0; i < 15; i++) {
      const ref = h.claimOne();
      expect(ref.attempt).toBe(i + 1);
      expect(h.end(ref, { kind: "release" })).toBe("ok");
      expect(h.end(ref, { kind: "release" })).toBe("ok");
    }
    const ref = h.claimOne();
    expect(h.end(ref, { kind: "snooze", delay_ms: 10 })).toBe("ok");
    expect(h.end(ref, { kind: "snooze", delay_ms: 10 })).toBe("ok");
    expect(h.state(id)).toBe("Pending/scheduled");
    const task = h.task(id);
    expect([task.retries, task.crashes, task.attempt]).toEqual([0, 0, 16]);
  });

  test("a boot releases the leases of that member's older boots only", () => {
    const h = new Harness();
    const [a, b, c] = [h.submit(), h.submit(), h.submit()];
    const member = (id: string, boot: number) => ({ local: { member: asNodeId(id), boot } });
    h.claimOne(member("n1", 1));
    h.claimOne(member("n1", 2));
    h.claimOne(member("n2", 1));
    h.do({ type: "boot", member: asNodeId("n1"), boot: 2, names: ["x"] });
    expect([a, b, c].map((id) => h.state(id))).toEqual([
      "Pending/ready",
      "Running/running",
      "Running/running",
    ]);
    expect(h.task(a).crashes).toBe(0);
    expect(h.signals).toContainEqual({ type: "lease-lost", id: a, fence: 1, reason: "released" });
    expect([...h.machine.namedNames()]).toEqual(["x"]);
  });

  test("an expiry of another term, attempt or fence changes nothing", () => {
    const h = new Harness();
    const id = h.submit();
    const old = h.claimOne();
    h.end(old, { kind: "release" });
    const ref = h.claimOne();
    h.term = 2;
    expect(h.expire(ref, true, 1)).toEqual({ ok: false, code: "void" });
    h.expire(old, true);
    h.expire({ ...ref, attempt: ref.attempt + 1 }, true);
    h.expire({ ...ref, fence: ref.fence - 1 }, true);
    expect(h.state(id)).toBe("Running/running");
    expect(h.task(id).crashes).toBe(0);
    h.end(ref, complete);
    h.expire(ref, true);
    expect(h.state(id)).toBe("Completed");
  });

  test("attempts kept are the first and the last 99", () => {
    const h = new Harness();
    const id = h.submit();
    for (let i = 0; i < 130; i++) h.end(h.claimOne(), { kind: "release" });
    const numbers = h.machine.attempts(id)?.map((attempt) => attempt.attempt) ?? [];
    expect(numbers).toHaveLength(LIMITS.attemptsKept);
    expect(numbers[0]).toBe(1);
    expect(numbers[1]).toBe(32);
    expect(numbers.at(-1)).toBe(130);
  });
});

describe("ends of a lease", () => {
  test("an older fence is refused and changes nothing", () => {
    const h = new Harness();
    const id = h.submit();
    const old = h.claimOne();
    h.expire(old, false);
    const fresh = h.claimOne({ worker_id: "w2" });
    const before = h.machine.task(id);
    expect(h.end(old, complete)).toBe("stale-lease");
    expect(h.end({ ...old, fence: fresh.fence }, complete)).toBe("stale-lease");
    expect(h.end({ ...fresh, attempt: 1 }, complete, "w2")).toBe("stale-lease");
    expect(h.machine.task(id)).toEqual(before);
    expect(h.end(fresh, complete, "w2")).toBe("ok");
  });

  test("a repeat of the end that was accepted is ok again, any other end is stale", () => {
    const h = new Harness();
    h.submit();
    const done = h.claimOne();
    h.end(done, complete);
    expect(h.end(done, complete)).toBe("ok");
    expect(h.end(done, failure())).toBe("stale-lease");
    expect(h.end(done, { kind: "release" })).toBe("stale-lease");
    h.submit();
    const failed = h.claimOne();
    h.end(failed, failure());
    expect(h.end(failed, failure())).toBe("ok");
    expect(h.end(failed, complete)).toBe("stale-lease");
    expect(h.machine.counts().Pending).toBe(1);
  });

  test("only the worker and principal that claimed may end it", () => {
    const h = new Harness();
    const id = h.submit();
    const ref = h.claimOne();
    expect(h.end(ref, complete, "w2")).toBe("forbidden");
    expect(h.end(ref, complete, "w1", "q")).toBe("forbidden");
    expect(h.state(id)).toBe("Running/running");
    h.end(ref, complete);
    expect(h.end(ref, complete, "w2")).toBe("forbidden");
    expect(h.end({ ...ref, task_id: idAt(1, 1) }, complete)).toBe("not-found");
  });
});

describe("cancel", () => {
  test("a pending task is cancelled at once, and again", () => {
    const h = new Harness();
    const id = h.submit();
    h.value({ type: "cancel", id });
    expect(h.state(id)).toBe("Cancelled/user");
    expect(h.do({ type: "cancel", id }).ok).toBe(true);
    expect(h.claim()).toEqual([]);
    expect(h.do({ type: "cancel", id: idAt(1, 1) })).toMatchObject({ code: "not-found" });
  });

  test("a final task is refused", () => {
    const h = new Harness();
    const id = h.submit();
    h.end(h.claimOne(), complete);
    expect(h.do({ type: "cancel", id })).toMatchObject({ ok: false, code: "already-final" });
  });

  for (const end of [complete, failure(), { kind: "snooze", delay_ms: 1 } as const]) {
    test(`a cancelling task accepts no ${end.kind}, and is Cancelled when its work ends`, () => {
      const h = new Harness();
      const id = h.submit();
      const ref = h.claimOne();
      h.value({ type: "cancel", id });
      expect(h.state(id)).toBe("Running/cancelling");
      expect(h.signals).toContainEqual({ type: "lease-cancel", id, fence: ref.fence });
      expect(h.do({ type: "cancel", id }).ok).toBe(true);
      expect(h.end(ref, end)).toBe("cancelled");
      expect(h.state(id)).toBe("Cancelled/user");
      expect(h.end(ref, end)).toBe("cancelled");
      expect(h.task(id).result).toBeNull();
    });
  }

  test("a release confirms a cancel, a repeat too", () => {
    const h = new Harness();
    const id = h.submit();
    const ref = h.claimOne();
    h.value({ type: "cancel", id });
    expect(h.end(ref, { kind: "release" })).toBe("ok");
    expect(h.end(ref, { kind: "release" })).toBe("ok");
    expect(h.state(id)).toBe("Cancelled/user");
  });

  test("a cancelling task whose lease ends is Cancelled, never Pending", () => {
    const h = new Harness();
    const ids = [0, 1, 2].map(() => h.submit({ timeout_ms: 10 }));
    const local = { member: asNodeId("n1"), boot: 1 };
    const refs = h.claim(3, { local }).map((task) => ({
      task_id: task.id,
      attempt: task.attempt,
      fence: task.lease.fence,
    }));
    for (const id of ids) h.value({ type: "cancel", id });
    h.now += 20;
    const [a, b] = refs;
    if (a === undefined || b === undefined) throw new Error("two leases");
    h.expire(a, true);
    h.do({ type: "timeout", term: 1, items: [b] });
    h.do({ type: "boot", member: asNodeId("n1"), boot: 2, names: [] });
    expect(ids.map((id) => h.state(id))).toEqual(ids.map(() => "Cancelled/user"));
    expect(ids.map((id) => h.task(id).crashes)).toEqual([0, 0, 0]);
  });
});

describe("retry", () => {
  test("gives a final task fresh budgets and keeps its attempts", () => {
    const h = new Harness();
    const id = h.submit({ max_retries: 1 });
    h.end(h.claimOne(), failure({ crashed: true }));
    h.end(h.claimOne(), failure());
    h.end(h.claimOne(), failure());
    expect(h.state(id)).toBe("Failed/exhausted");
    expect([h.task(id).retries, h.task(id).crashes]).toEqual([1, 1]);
    h.value({ type: "retry", id, if_version: h.task(id).version });
    expect(h.state(id)).toBe("Pending/ready");
    const task = h.task(id);
    expect([task.retries, task.crashes, task.attempt, task.completed_at]).toEqual([0, 0, 3, null]);
    expect(h.claimOne().attempt).toBe(4);
    expect(h.machine.attempts(id)).toHaveLength(4);
  });

  test("refuses what is not final, another version, and an unknown id", () => {
    const h = new Harness();
    const id = h.submit();
    expect(h.do({ type: "retry", id, if_version: null })).toMatchObject({ code: "not-final" });
    h.end(h.claimOne(), complete);
    expect(h.do({ type: "retry", id, if_version: 1 })).toMatchObject({ code: "version-mismatch" });
    expect(h.do({ type: "retry", id: idAt(1, 1), if_version: null })).toMatchObject({
      code: "not-found",
    });
    h.value({ type: "retry", id, if_version: null });
    expect(h.task(id).result).toBeNull();
  });
});

describe("submit", () => {
  test("a repeat of a client's id with an equal body is the same task, with another body a conflict", () => {
    const h = new Harness();
    const id = idAt(START, 1);
    const tasks = [newTask(id, { body_hash: "h1" })];
    h.value({ type: "submit", tasks });
    expect(h.value({ type: "submit", tasks })).toEqual({
      type: "submitted",
      ids: [id],
      existing: true,
    });
    const other = [newTask(id, { body_hash: "h2" })];
    expect(h.do({ type: "submit", tasks: other })).toMatchObject({ code: "id-conflict", id });
    expect(h.machine.counts().Pending).toBe(1);
    // Whatever became of the task since.
    h.end(h.claimOne(), complete);
    expect(h.value({ type: "submit", tasks })).toMatchObject({ ids: [id], existing: true });
    expect(h.do({ type: "submit", tasks: other })).toMatchObject({ code: "id-conflict", id });
    expect(h.state(id)).toBe("Completed");
  });

  test("a bulk is all or nothing", () => {
    const h = new Harness();
    const taken = h.submit({ body_hash: "x" });
    const tasks = [newTask(idAt(START, 91)), newTask(taken, { body_hash: "y" })];
    expect(h.do({ type: "submit", tasks })).toMatchObject({ code: "id-conflict", id: taken });
    expect(h.machine.counts().Pending).toBe(1);
    h.value({ type: "settings", settings: { max_waiting: 3 } });
    const three = [1, 2, 3].map((n) => newTask(idAt(START, 100 + n)));
    expect(h.do({ type: "submit", tasks: three })).toMatchObject({ code: "queue-full" });
    expect(h.machine.counts().Pending).toBe(1);
    h.value({ type: "submit", tasks: three.slice(0, 2) });
    expect(h.machine.counts().Pending).toBe(3);
  });

  test("one id twice in a bulk is one task, or a conflict", () => {
    const h = new Harness();
    const id = idAt(START, 5);
    const twice = [newTask(id, { body_hash: "a" }), newTask(id, { body_hash: "a" })];
    expect(h.value({ type: "submit", tasks: twice })).toMatchObject({ ids: [id, id] });
    expect(h.machine.counts().Pending).toBe(1);
    const other = idAt(START, 6);
    const apart = [newTask(other, { body_hash: "a" }), newTask(other, { body_hash: "b" })];
    expect(h.do({ type: "submit", tasks: apart })).toMatchObject({ code: "id-conflict" });
    expect(h.machine.task(other)).toBeNull();
  });

  test("a deleted client id cannot come back within its hour, and is too old after it", () => {
    const h = new Harness();
    const id = idAt(START, 1);
    const tasks = [newTask(id, { body_hash: "h1" })];
    h.value({ type: "submit", tasks });
    h.value({ type: "clear", status: null });
    expect(h.do({ type: "submit", tasks })).toMatchObject({ code: "id-conflict" });
    h.do({ type: "clear-step", term: 1, max: 10 });
    expect(h.machine.clearing()).toBe(false);
    expect(h.do({ type: "submit", tasks })).toMatchObject({ code: "id-conflict" });
    h.now = START + LIMITS.clientIdAgeMs;
    h.do({ type: "purge", term: 1, max: 10 });
    expect(h.db.query("SELECT count(*) AS n FROM tombstones").get()).toEqual({ n: 0 });
    expect(h.do({ type: "submit", tasks })).toMatchObject({ code: "id-expired" });
  });

  test("numbers that are no whole numbers do not stop the machine", () => {
    const h = new Harness();
    const id = h.submit({ run_at: START + 0.5, priority: 99, timeout_ms: 10.7, retry: NO_DELAY });
    expect(h.task(id)).toMatchObject({ run_at: START, priority: 9, timeout_ms: 10 });
    const ref = h.claimOne();
    expect(h.end(ref, { kind: "snooze", delay_ms: 1e300 })).toBe("ok");
    expect(h.state(id)).toBe("Pending/scheduled");
  });
});
