import { describe, expect, test } from "bun:test";
import type { Status } from "../../src/queue/types.ts";
import {
  complete,
  counted,
  failure,
  Harness,
  newTask,
  idAt,
  recount,
  refOf,
  START,
} from "./machine-harness.ts";

const step = (h: Harness, max = 1_000) => h.value({ type: "clear-step", term: h.term, max });

/** One task in each status, in the order of STATUSES. */
function oneOfEach(h: Harness): [string, string, string, string, string] {
  const done = h.submit();
  h.end(h.claimOne(), complete);
  const failed = h.submit();
  const error = { type: "E", message: "m", stack: null, retryable: false };
  h.end(h.claimOne(), failure({ error }));
  const cancelled = h.submit();
  h.value({ type: "cancel", id: cancelled });
  const running = h.submit();
  h.claimOne();
  const pending = h.submit();
  return [pending, running, done, failed, cancelled];
}

describe("clear", () => {
  test("everything vanishes at once from reads, counts and claims; rows go in steps", () => {
    const h = new Harness();
    const ids = oneOfEach(h);
    expect(h.value({ type: "clear", status: null })).toEqual({ type: "cleared", cleared: 5 });
    expect(h.machine.clearing()).toBe(true);
    expect(ids.map((id) => h.state(id))).toEqual(Array<string>(5).fill("none"));
    expect(Object.values(h.machine.counts())).toEqual([0, 0, 0, 0, 0]);
    expect(h.machine.ready().size).toBe(0);
    expect(h.claim(10)).toEqual([]);
    expect(h.machine.running()).toEqual([]);
    expect(h.do({ type: "cancel", id: ids[0] })).toMatchObject({ code: "not-found" });
    expect(h.do({ type: "retry", id: ids[3], if_version: null })).toMatchObject({
      code: "not-found",
    });
    expect(h.value({ type: "clear", status: null })).toEqual({ type: "cleared", cleared: 0 });
    while (h.machine.clearing()) expect(step(h, 2)).toMatchObject({ type: "done" });
    for (const table of ["tasks", "attempts", "logs", "payloads", "clears"]) {
      expect(h.db.query(`SELECT count(*) AS n FROM ${table}`).get()).toEqual({ n: 0 });
    }
  });

  test("running tasks lose their lease, and their worker's end finds nothing", () => {
    const h = new Harness();
    const id = h.submit();
    const ref = h.claimOne();
    h.value({ type: "clear", status: "Running" });
    expect(h.signals).toContainEqual({
      type: "lease-lost",
      id,
      fence: ref.fence,
      reason: "cleared",
    });
    expect(h.signals).toContainEqual({ type: "cleared", status: "Running" });
    expect(h.end(ref, complete)).toBe("not-found");
    h.expire(ref, true);
    h.do({ type: "timeout", term: 1, items: [ref] });
    expect(Object.values(h.machine.counts())).toEqual([0, 0, 0, 0, 0]);
  });

  for (const [i, status] of (
    ["Pending", "Running", "Completed", "Failed", "Cancelled"] satisfies Status[]
  ).entries()) {
    test(`clearing ${status} leaves every other status alone`, () => {
      const h = new Harness();
      const ids = oneOfEach(h);
      const before = ids.map((id) => h.state(id));
      expect(h.value({ type: "clear", status })).toEqual({ type: "cleared", cleared: 1 });
      const expected = before.map((state, at) => (at === i ? "none" : state));
      expect(ids.map((id) => h.state(id))).toEqual(expected);
      while (h.machine.clearing()) step(h, 1);
      expect(ids.map((id) => h.state(id))).toEqual(expected);
      expect(counted(h.machine).counts).toEqual(recount(h.db).counts);
    });
  }

  test("what comes to a cleared status later is seen, in the entry of the clear too", () => {
    const h = new Harness();
    const old = h.submit();
    const fresh = idAt(START, 900);
    h.value(
      { type: "submit", tasks: [newTask(idAt(START, 899))] },
      { type: "clear", status: "Pending" },
      { type: "submit", tasks: [newTask(fresh)] },
    );
    expect(h.state(old)).toBe("none");
    expect(h.state(fresh)).toBe("Pending/ready");
    expect(h.machine.counts().Pending).toBe(1);
    step(h, 1);
    expect(h.claim(5).map((task) => task.id)).toEqual([fresh]);
    while (h.machine.clearing()) step(h);
    expect(h.state(fresh)).toBe("Running/running");
  });

  test("tasks that run while finished ones are cleared finish, fail and retry as ever", () => {
    const h = new Harness();
    const done = h.submit();
    h.end(h.claimOne(), complete);
    const [a, b] = [h.submit({ max_retries: 0 }), h.submit()];
    const leases = h.claim(2).map(refOf);
    h.value({ type: "clear", status: "Completed" });
    h.value({ type: "clear", status: "Failed" });
    const [first, second] = leases;
    if (first === undefined || second === undefined) throw new Error("two leases");
    expect(h.end(first, failure())).toBe("ok");
    expect(h.end(second, complete)).toBe("ok");
    expect([done, a, b].map((id) => h.state(id))).toEqual([
      "none",
      "Failed/exhausted",
      "Completed",
    ]);
    while (h.machine.clearing()) step(h, 1);
    h.value({ type: "retry", id: a, if_version: null });
    expect(h.state(a)).toBe("Pending/ready");
    expect(counted(h.machine)).toEqual({
      counts: recount(h.db).counts,
      ready: recount(h.db).ready,
    });
  });

  test("a second clear while the first is under way takes what came in between", () => {
    const h = new Harness();
    for (let i = 0; i < 5; i++) h.submit();
    h.value({ type: "clear", status: "Pending" });
    step(h, 3);
    const between = h.submit();
    expect(h.value({ type: "clear", status: "Pending" })).toEqual({ type: "cleared", cleared: 1 });
    const after = h.submit();
    while (h.machine.clearing()) step(h, 2);
    expect([h.state(between), h.state(after)]).toEqual(["none", "Pending/ready"]);
    expect(h.db.query("SELECT count(*) AS n FROM tasks").get()).toEqual({ n: 1 });
  });

  test("cleared tasks that come due do not hold up those that were not", () => {
    const h = new Harness();
    for (let i = 0; i < 20; i++) h.submit({ run_at: START + 10 });
    h.value({ type: "clear", status: "Pending" });
    const id = h.submit({ run_at: START + 20 });
    h.now += 30;
    for (let i = 0; i < 5; i++) h.do({ type: "due", term: 1, max: 5 });
    expect(h.state(id)).toBe("Pending/ready");
    expect(h.machine.counts().Pending).toBe(1);
  });

  test("a clear under way goes on after a restart", () => {
    const h = new Harness();
    for (let i = 0; i < 5; i++) h.submit();
    h.value({ type: "clear", status: null });
    const kept = h.submit({ name: "other" });
    const hash = h.machine.hash();
    h.reopen();
    expect(h.machine.hash()).toBe(hash);
    expect(h.machine.clearing()).toBe(true);
    expect(counted(h.machine).ready).toBe("default/other=1");
    expect(h.claim(9).map((task) => task.id)).toEqual([kept]);
  });
});

describe("purge", () => {
  test("removes final tasks past their retention, each status by its own", () => {
    const h = new Harness();
    const [pending, running, done, failed, cancelled] = oneOfEach(h);
    const { retention } = h.machine.settings();
    const purge = () => h.value({ type: "purge", term: 1, max: 100 });
    h.now = START + retention.completed - 1;
    purge();
    expect(h.state(done)).toBe("Completed");
    h.now = START + retention.completed;
    purge();
    expect([done, cancelled, failed].map((id) => h.state(id))).toEqual([
      "none",
      "none",
      "Failed/non_retryable",
    ]);
    expect(h.machine.nextPurgeAt()).toBe(START + retention.failed);
    h.now = START + retention.failed;
    purge();
    expect(h.state(failed)).toBe("none");
    expect([h.state(pending), h.state(running)]).toEqual(["Pending/ready", "Running/running"]);
    expect(counted(h.machine).counts).toEqual(recount(h.db).counts);
  });

  test("goes in steps and says whether there is more", () => {
    const h = new Harness();
    for (let i = 0; i < 10; i++) {
      h.submit();
      h.end(h.claimOne(), complete);
    }
    h.now += h.machine.settings().retention.completed;
    expect(h.value({ type: "purge", term: 1, max: 4 })).toEqual({
      type: "done",
      count: 4,
      more: true,
    });
    expect(h.machine.counts().Completed).toBe(6);
    h.value({ type: "purge", term: 1, max: 1_000 });
    expect(h.machine.counts().Completed).toBe(0);
    expect(h.machine.nextPurgeAt()).toBeNull();
  });
});
