/** What an idempotency key is answered with, whatever has become of the tasks since (docs/api.md). */
import { describe, expect, test } from "bun:test";
import type { Answer, Command } from "../../src/queue/commands.ts";
import { TaskMachine } from "../../src/queue/machine.ts";
import {
  type Claim,
  type IdempotencyScope,
  type LeaseRef,
  LIMITS,
  type NewTask,
} from "../../src/queue/types.ts";
import {
  complete,
  failure,
  Harness,
  idAt,
  newTask,
  refOf,
  request,
  START,
} from "./machine-harness.ts";

const idem = (key: string, more: Partial<IdempotencyScope> = {}): IdempotencyScope => ({
  principal: "p",
  route: "POST /api/x",
  key,
  hash: "h",
  ...more,
});

let minted = 0;
/** Every call mints a new id, as the API does for a repeat. */
const submit = (key: string, ...more: Partial<NewTask>[]): Command => ({
  type: "submit",
  tasks: more.map((one) => newTask(idAt(START, ++minted + 1000), one)),
  idem: idem(key),
});

const claim = (key: string, more: Partial<Claim> = {}): Command => ({
  type: "claim",
  worker_id: "w1",
  request_id: `keyed-${key}`,
  principal: "p",
  queues: null,
  names: null,
  star: false,
  max: 5,
  local: null,
  ...more,
  idem: idem(key),
});

/** The answer without the word that it is a repeat. */
function first(answer: Answer): unknown {
  if (!answer.ok) throw new Error(`refused: ${answer.code}`);
  expect(answer.replayed).toBeUndefined();
  return answer.value;
}
function again(answer: Answer): unknown {
  if (!answer.ok) throw new Error(`refused: ${answer.code}`);
  expect(answer.replayed).toBe(true);
  return answer.value;
}

describe("the first answer to a submit", () => {
  test("is given again after the task went on, ended, was cleared and its rows are gone", () => {
    const h = new Harness();
    const sent = { payload: '{ "n": 1.0 }', run_at: null };
    const answer = first(h.do(submit("k", sent)));
    expect(answer).toMatchObject({
      type: "submitted",
      existing: false,
      tasks: [
        { status: "Pending", detail: "ready", payload: '{ "n": 1.0 }', attempt: 0, version: 1 },
      ],
    });
    const ref = h.claimOne();
    expect(again(h.do(submit("k", sent)))).toEqual(answer);
    h.end(ref, complete);
    expect(again(h.do(submit("k", sent)))).toEqual(answer);
    h.value({ type: "clear", status: null });
    expect(again(h.do(submit("k", sent)))).toEqual(answer);
    h.value({ type: "clear-step", term: 1, max: 100 });
    expect(h.db.query("SELECT count(*) AS n FROM tasks").get()).toEqual({ n: 0 });
    h.reopen();
    expect(again(h.do(submit("k", sent)))).toEqual(answer);
    expect(h.machine.counts().Pending).toBe(0);
  });

  test("keeps what was resolved then: time, delay, policy, though the repeat resolves them anew", () => {
    const h = new Harness();
    const answer = first(h.do(submit("k", { run_at: START + 5_000, timeout_ms: 1_000 })));
    expect(answer).toMatchObject({ tasks: [{ detail: "scheduled", run_at: START + 5_000 }] });
    h.now += 60_000;
    h.value({ type: "due", term: 1, max: 10 });
    const repeat = submit("k", { run_at: START + 65_000, timeout_ms: 9_000, max_retries: 7 });
    expect(again(h.do(repeat))).toEqual(answer);
  });

  test("of many is whole and in order, however the tasks differ, and packed small", () => {
    const h = new Harness();
    const many = Array.from({ length: 1_000 }, (_, n) => ({
      payload: n % 3 === 0 ? null : `"${"x".repeat(n)}"`,
      priority: n % 10,
      queue: n % 2 === 0 ? "a" : "b",
      timeout_ms: n % 5 === 0 ? null : n,
    }));
    const answer = first(h.do(submit("k", ...many)));
    h.claim(500);
    expect(again(h.do(submit("k", ...many)))).toEqual(answer);
    const row = h.db.query("SELECT size FROM idempotency").get() as { size: number };
    expect(row.size).toBeLessThan(150_000);
  });

  test("of a client's own id that was there already is the task of that moment", () => {
    const h = new Harness();
    const own = { id: idAt(START, 77), body_hash: "same" };
    h.submit(own);
    h.end(h.claimOne(), complete);
    const answer = first(h.do({ ...submit("k", own), idem: idem("k") }));
    expect(answer).toMatchObject({
      existing: true,
      tasks: [{ status: "Completed", result: '"done"', payload: '{"a":1}' }],
    });
    h.value({ type: "retry", id: own.id, if_version: null });
    expect(again(h.do(submit("k", own)))).toEqual(answer);
  });
});

test("the first answer to a retry is given again after the task ran, and after it is gone", () => {
  const h = new Harness();
  const id = h.submit({ payload: '"kept"', max_retries: 0 });
  h.end(h.claimOne(), failure());
  const retry: Command = { type: "retry", id, if_version: null, idem: idem("k") };
  const answer = first(h.do(retry));
  expect(answer).toMatchObject({ task: { status: "Pending", payload: '"kept"' } });
  h.end(h.claimOne(), complete);
  expect(again(h.do(retry))).toEqual(answer);
  expect(h.state(id)).toBe("Completed");
  h.value({ type: "clear", status: null });
  h.value({ type: "clear-step", term: 1, max: 100 });
  expect(again(h.do(retry))).toEqual(answer);
});

describe("the first answer to a claim", () => {
  test("is given again after its tasks ended and went, and takes no second set", () => {
    const h = new Harness();
    for (let n = 0; n < 9; n++) h.submit({ payload: `${n}` });
    const answer = first(h.do(claim("k")));
    const { tasks } = answer as Extract<ReturnType<Harness["value"]>, { type: "claimed" }>;
    expect(tasks.map((task) => task.payload)).toEqual(["0", "1", "2", "3", "4"]);
    for (const task of tasks) h.end(refOf(task), complete);
    h.value({ type: "clear", status: "Completed" });
    h.value({ type: "clear-step", term: 1, max: 100 });
    h.now += 3_600_000;
    h.value({ type: "purge", term: 1, max: 100 });
    expect(again(h.do(claim("k")))).toEqual(answer);
    expect(h.machine.counts()).toMatchObject({ Pending: 4, Running: 0 });
    expect(h.do({ ...claim("k"), idem: idem("k", { hash: "other" }) })).toMatchObject({
      code: "idempotency-mismatch",
    });
  });

  test("that found nothing is not kept: the repeat may find something", () => {
    const h = new Harness();
    expect(first(h.do(claim("k")))).toEqual({ type: "claimed", tasks: [] });
    const id = h.submit();
    expect(first(h.do(claim("k")))).toMatchObject({ tasks: [{ id }] });
  });

  test("never holds tasks that another principal claimed as the same worker and request", () => {
    const h = new Harness();
    h.submit();
    h.do(claim("k"));
    const thief = { ...claim("k"), principal: "q", idem: idem("k", { principal: "q" }) } as Command;
    expect(first(h.do(thief))).toEqual({ type: "claimed", tasks: [] });
  });
});

describe("the first answer to an end or a report", () => {
  const end = (ref: LeaseRef, key: string): Command => ({
    type: "end",
    worker_id: "w1",
    principal: "p",
    items: [{ ...ref, end: complete }],
    idem: idem(key),
  });

  test("is kept when it changed something, and not when every item was refused", () => {
    const h = new Harness();
    h.submit();
    const ref = h.claimOne();
    const stale = { ...ref, fence: ref.fence + 1 };
    expect(first(h.do(end(stale, "a")))).toEqual({ type: "ended", items: ["stale-lease"] });
    expect(first(h.do(end(stale, "a")))).toEqual({ type: "ended", items: ["stale-lease"] });
    expect(first(h.do(end(ref, "b")))).toEqual({ type: "ended", items: ["ok"] });
    h.value({ type: "clear", status: null });
    expect(again(h.do(end(ref, "b")))).toEqual({ type: "ended", items: ["ok"] });
  });

  test("appends lines once", () => {
    const h = new Harness();
    const id = h.submit();
    const ref = h.claimOne();
    const report: Command = {
      type: "report",
      worker_id: "w1",
      principal: "p",
      items: [{ ...ref, progress: null, lines: ["one"] }],
      idem: idem("k"),
    };
    expect(first(h.do(report))).toEqual(again(h.do(report)));
    expect(h.machine.logs(id, null, 10)?.lines.map(({ line }) => line)).toEqual(["one"]);
  });
});

test("of two answers to remember under one key the first in the log is given to both", () => {
  const h = new Harness();
  const remember = (verdict: "ok" | "lost"): Command => ({
    type: "remember",
    answer: { kind: "heartbeat", verdicts: [verdict], directive: "ok" },
    idem: idem("k"),
  });
  const [one, two] = h.entry([request(1, remember("ok")), request(2, remember("lost"))]);
  if (one === undefined || two === undefined) throw new Error("no answers");
  expect(again(two)).toEqual(first(one));
  expect(h.machine.keyedAnswer(idem("k"))).toMatchObject({ ok: true, replayed: true });
  expect(h.machine.keyedAnswer(idem("k", { hash: "x" }))).toMatchObject({ ok: false });
  expect(h.machine.keyedAnswer(idem("other"))).toBeNull();
});

test("a forwarded request that arrives twice is answered alike, as first or as a repeat", () => {
  const h = new Harness();
  const command = submit("k", { payload: "1" });
  const [one] = h.entry([request(901, command)]);
  const [two] = h.entry([request(902, command)]);
  h.claimOne();
  h.reopen();
  expect(h.entry([request(901, command)])).toEqual([one as Answer]);
  expect(h.entry([request(902, command)])).toEqual([two as Answer]);
  expect(one).not.toHaveProperty("replayed");
  expect(two).toMatchObject({ replayed: true });
});

describe("what is kept", () => {
  test("is bounded in bytes; a new key is refused beyond, a known one answered, an expired one dropped", () => {
    const h = new Harness({ idempotencyBytes: 600 });
    const answers = ["a", "b"].map((key) => first(h.do(submit(key, {}))));
    expect(h.do(submit("c", {}))).toMatchObject({ code: "idempotency-full" });
    expect(again(h.do(submit("a", {})))).toEqual(answers[0]);
    h.now += LIMITS.idempotencyTtlMs;
    expect(h.do(submit("c", {})).ok).toBe(true);
    const sum = h.db.query("SELECT count(*) AS n, sum(size) AS bytes FROM idempotency").get();
    const state = "SELECT idempotency_keys AS n, idempotency_bytes AS bytes FROM state";
    expect(h.db.query(state).get()).toEqual(sum);
  });

  test("is the same on a member that applied one by one and on one that applied all at once", () => {
    const h = new Harness();
    for (let n = 0; n < 3; n++) h.submit({ payload: `${n}` });
    h.do(submit("a", { payload: "[1]" }));
    h.do(claim("b"));
    h.do(submit("a", { payload: "[1]" }));
    const all = new Harness();
    all.machine.apply(h.entries);
    const rows = "SELECT * FROM idempotency ORDER BY key";
    expect(all.db.query(rows).all()).toEqual(h.db.query(rows).all());
    expect(TaskMachine.open(all.db).hash()).toBe(h.machine.hash());
  });
});
