import { Database } from "bun:sqlite";
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asIndex, asNodeId, asTerm } from "../../src/raft/types.ts";
import { FatalError } from "../../src/replica/ports.ts";
import { type Answer, type Command, MACHINE_VERSIONS } from "../../src/queue/commands.ts";
import { TaskMachine } from "../../src/queue/machine.ts";
import { type ClaimRef, type IdempotencyScope, LIMITS } from "../../src/queue/types.ts";
import { complete, Harness, idAt, newTask, refOf, request, START } from "./machine-harness.ts";

const folder = mkdtempSync(join(tmpdir(), "flotilla-machine-"));
afterAll(() => rmSync(folder, { recursive: true }));

const submit = (n: number): Command => ({ type: "submit", tasks: [newTask(idAt(START, n))] });
const claim = (id: string, max = 1): Command => ({
  type: "claim",
  worker_id: "w1",
  request_id: id,
  principal: "p",
  queues: null,
  names: null,
  star: false,
  max,
  local: null,
});

describe("sessions", () => {
  test("a repeated request gives the stored answer, changes nothing and signals nothing", () => {
    const h = new Harness();
    const [first] = h.entry([request(1, submit(1))]);
    expect(first?.ok).toBe(true);
    const [again] = h.entry([request(1, submit(1))]);
    expect(again).toEqual(first as Answer);
    expect(h.signals).toEqual([]);
    expect(h.machine.counts().Pending).toBe(1);
  });

  test("a repeat within one entry is answered once and the same", () => {
    const h = new Harness();
    const answers = h.entry([request(1, submit(1)), request(1, submit(1))]);
    expect(answers[0]).toEqual(answers[1] as Answer);
    expect(h.machine.counts().Pending).toBe(1);
  });

  test("requests that overtake each other each happen once", () => {
    const h = new Harness();
    h.entry([request(3, submit(3))]);
    h.entry([request(1, submit(1)), request(2, submit(2)), request(3, submit(3))]);
    expect(h.machine.counts().Pending).toBe(3);
  });

  test("below the watermark, and of an older boot, a request is stale", () => {
    const h = new Harness();
    h.entry([request(1, submit(1)), request(2, submit(2))]);
    const member = asNodeId("n1");
    h.entry([], [{ member, boot: 1, below: 2 }]);
    expect(h.entry([request(1, submit(1))])).toEqual([{ ok: false, code: "stale-session" }]);
    expect(h.entry([request(2, submit(2))])[0]?.ok).toBe(true);
    expect(h.entry([request(1, submit(9), "n1", 2)])[0]?.ok).toBe(true);
    expect(h.entry([request(3, submit(3), "n1", 1)])).toEqual([
      { ok: false, code: "stale-session" },
    ]);
    h.entry([], [{ member, boot: 1, below: 99 }]);
    expect(h.entry([request(2, submit(8), "n1", 2)])[0]?.ok).toBe(true);
    expect(h.machine.counts().Pending).toBe(4);
  });

  test("answers outlive a restart, and go once acknowledged", () => {
    const path = join(folder, "sessions.db");
    const h = new Harness({}, new Database(path));
    const [first] = h.entry([request(1, submit(1)), request(2, submit(2))]);
    h.db.close();
    const db = new Database(path);
    const machine = TaskMachine.open(db);
    const entry = (index: number, acks: { member: string; boot: number; below: number }[]) => ({
      index: asIndex(index),
      term: asTerm(1),
      now: START,
      seed: 1,
      requests: [request(1, submit(1))],
      acks: acks.map((ack) => ({ ...ack, member: asNodeId(ack.member) })),
      bootstrap: null,
    });
    expect(machine.apply([entry(2, [])])[0]?.answer).toEqual(first);
    machine.apply([entry(3, [{ member: "n1", boot: 1, below: 3 }])]);
    expect(db.query("SELECT count(*) AS n FROM answers").get()).toEqual({ n: 0 });
    expect(machine.counts().Pending).toBe(2);
    db.close();
  });

  test("a session that never acknowledges is closed, and none of its answers is forgotten", () => {
    const h = new Harness({ sessionAnswers: 3 });
    for (let n = 1; n <= 3; n++) h.entry([request(n, submit(n))]);
    expect(h.entry([request(4, submit(4))])).toEqual([{ ok: false, code: "stale-session" }]);
    h.entry([], [{ member: asNodeId("n1"), boot: 1, below: 3 }]);
    // Refused once, refused for ever: the refusal was an answer.
    expect(h.entry([request(4, submit(4))])).toEqual([{ ok: false, code: "stale-session" }]);
    expect(h.entry([request(3, submit(3))])[0]?.ok).toBe(true);
    expect(h.machine.counts().Pending).toBe(3);
    expect(h.entry([request(1, submit(4), "n1", 2)])[0]?.ok).toBe(true);
  });

  test("a repeated claim gives the tasks still leased, never a second set", () => {
    const h = new Harness();
    h.seq = 100;
    h.entry([request(1, submit(1)), request(2, submit(2)), request(3, submit(3))]);
    const [first] = h.entry([request(4, claim("a", 2))]);
    expect(h.entry([request(4, claim("a", 2))])[0]).toEqual(first as Answer);
    expect(h.entry([request(5, claim("a", 2))])[0]).toEqual(first as Answer);
    if (first?.ok !== true || first.value.type !== "claimed") throw new Error("claimed");
    const [one, two] = first.value.tasks;
    if (one === undefined || two === undefined) throw new Error("two tasks");
    h.end(refOf(one), complete);
    h.end(refOf(two), { kind: "release" });
    h.claim(5, { worker_id: "w2" });
    for (const seq of [4, 6]) {
      expect(h.entry([request(seq, claim("a", 2))])[0]).toEqual({
        ok: true,
        value: { type: "claimed", tasks: [] },
      });
    }
    expect(h.machine.claimAnswer(ref("a"))).toEqual([]);
    expect(h.machine.claimAnswer(ref("b"))).toBeNull();
    expect(h.machine.counts()).toMatchObject({ Pending: 0, Running: 2, Completed: 1 });
  });

  test("claim answers are kept for five minutes, and the newest 64 of a worker", () => {
    const h = new Harness();
    for (let i = 0; i < 70; i++) h.submit();
    for (let i = 0; i < 66; i++) h.claim(1, { request_id: `q${i}` });
    expect(h.machine.claimAnswer(ref("q1"))).toBeNull();
    expect(h.machine.claimAnswer(ref("q2"))).toHaveLength(1);
    expect(h.machine.nextPurgeAt()).toBe(START + 300_000);
    h.now += 300_000;
    expect(h.value({ type: "purge", term: 1, max: 40 })).toEqual({
      type: "done",
      count: 40,
      more: true,
    });
    h.value({ type: "purge", term: 1, max: 40 });
    expect(h.machine.claimAnswer(ref("q65"))).toBeNull();
    expect(h.machine.nextPurgeAt()).toBeNull();
  });
});

/** Of worker w1, as the harness claims. */
const ref = (request_id: string): ClaimRef => ({ principal: "p", worker_id: "w1", request_id });

describe("idempotency keys", () => {
  const idem = (key: string, hash = "h"): IdempotencyScope => ({
    principal: "p",
    route: "POST /api/tasks",
    key,
    hash,
  });

  test("the same key and body gives the first outcome, another body is a mismatch", () => {
    const h = new Harness();
    const first = h.do({ ...submit(1), idem: idem("k") });
    const again = h.do({ ...submit(2), idem: idem("k") });
    expect(again).toEqual({ ...first, replayed: true } as Answer);
    expect(h.do({ ...submit(3), idem: idem("k", "other") })).toMatchObject({
      code: "idempotency-mismatch",
    });
    const other = { ...idem("k"), principal: "q" };
    expect(h.do({ ...submit(4), idem: other }).ok).toBe(true);
    expect(h.machine.counts().Pending).toBe(2);
  });

  test("a refusal does not stick to its key", () => {
    const h = new Harness();
    h.value({ type: "settings", settings: { max_waiting: 0 } });
    expect(h.do({ ...submit(1), idem: idem("k") })).toMatchObject({ code: "queue-full" });
    h.value({ type: "settings", settings: { max_waiting: 5 } });
    const answer = h.do({ ...submit(1), idem: idem("k") });
    expect(answer).toMatchObject({ ok: true });
    expect(answer).not.toHaveProperty("replayed");
  });

  test("a key is free again after 24 h of log time", () => {
    const h = new Harness();
    h.do({ ...submit(1), idem: idem("k") });
    h.now += LIMITS.idempotencyTtlMs;
    expect(h.do({ ...submit(2), idem: idem("k", "other") }).ok).toBe(true);
    expect(h.db.query("SELECT count(*) AS n FROM idempotency").get()).toEqual({ n: 1 });
  });

  test("when they are full, an expired one makes room and a live one does not", () => {
    const h = new Harness({ idempotencyKeys: 2 });
    h.do({ ...submit(1), idem: idem("a") });
    h.now += 10;
    h.do({ ...submit(2), idem: idem("b") });
    expect(h.do({ ...submit(3), idem: idem("c") })).toMatchObject({ code: "idempotency-full" });
    expect(h.do({ ...submit(9), idem: idem("a") })).toMatchObject({ replayed: true });
    h.now = START + LIMITS.idempotencyTtlMs;
    expect(h.do({ ...submit(3), idem: idem("c") }).ok).toBe(true);
    expect(h.machine.counts().Pending).toBe(3);
  });
});

describe("the size of a claim", () => {
  const MIB = 1024 * 1024;

  test("ends with the task that passes 8 MiB of payload; the rest stays ready, in its order", () => {
    for (const queues of [["default"], ["default", "other"]]) {
      const h = new Harness();
      const payload = JSON.stringify("x".repeat(MIB));
      const ids = Array.from({ length: 20 }, (_, i) =>
        h.submit({ payload, queue: queues[i % queues.length] ?? "default" }),
      );
      expect(h.claim(100).map(({ id }) => id)).toEqual(ids.slice(0, 8));
      expect(h.claim(100).map(({ id }) => id)).toEqual(ids.slice(8, 16));
      expect(h.claim(100).map(({ id }) => id)).toEqual(ids.slice(16));
    }
  });

  test("takes one task however large it is", () => {
    const h = new Harness();
    const id = h.submit({ payload: JSON.stringify("x".repeat(9 * MIB)) });
    h.submit();
    expect(h.claim(2).map((task) => task.id)).toEqual([id]);
  });
});

describe("order of service", () => {
  const names = (tasks: readonly { id: string }[]) => tasks.map((task) => task.id);

  test("higher priority first, then who became ready first, over all queues and names", () => {
    const h = new Harness();
    const a = h.submit({ queue: "q1", name: "a", priority: 5 });
    const b = h.submit({ queue: "q2", name: "b", priority: 9 });
    const c = h.submit({ queue: "q1", name: "b", priority: 5 });
    const d = h.submit({ queue: "q2", name: "a", priority: 9 });
    const e = h.submit({ queue: "q1", name: "a", priority: 0 });
    const f = h.submit({ queue: "q1", name: "a", priority: 5 });
    expect(names(h.claim(4))).toEqual([b, d, a, c]);
    const g = h.submit({ queue: "q3", priority: 9 });
    expect(names(h.claim(4))).toEqual([g, f, e]);
  });

  test("a merge over more tasks than are read ahead keeps the order", () => {
    const h = new Harness();
    const ids: string[] = [];
    for (let i = 0; i < 120; i++) ids.push(h.submit({ name: `n${i % 3}`, queue: `q${i % 2}` }));
    const urgent = h.submit({ name: "n1", priority: 8 });
    expect(names(h.claim(100))).toEqual([urgent, ...ids.slice(0, 99)]);
    expect(names(h.claim(100))).toEqual(ids.slice(99));
  });

  test("what is put back stands behind what became ready before it", () => {
    const h = new Harness();
    const a = h.submit();
    const b = h.submit();
    h.end(h.claimOne(), { kind: "release" });
    expect(names(h.claim(2))).toEqual([b, a]);
  });

  test("a claim takes only its queues and names; the star only names nobody ever named", () => {
    const h = new Harness();
    const a = h.submit({ queue: "q1", name: "a" });
    const b = h.submit({ queue: "q2", name: "b" });
    const c = h.submit({ queue: "q1", name: "c" });
    expect(names(h.claim(9, { queues: ["q1"], names: ["b", "x"] }))).toEqual([]);
    expect([...h.machine.namedNames()].sort()).toEqual(["b", "x"]);
    expect(names(h.claim(9, { names: ["echo"], star: true }))).toEqual([a, c]);
    expect(names(h.claim(9, { names: ["b"], queues: ["q2", "q2"] }))).toEqual([b]);
  });

  test("names beyond the limit are refused and the claim takes nothing", () => {
    const h = new Harness({ names: 2 });
    h.submit({ name: "c" });
    h.claim(1, { names: ["a", "b"] });
    const more = h.do({ ...claim("x"), names: ["a", "c"] } as Command);
    expect(more).toMatchObject({ ok: false, code: "names-full" });
    expect(h.machine.counts().Running).toBe(0);
  });

  test("fences grow with every claimed task of the cluster", () => {
    const h = new Harness();
    for (let i = 0; i < 5; i++) h.submit();
    const fences = [...h.claim(2), ...h.claim(3)].map((task) => task.lease.fence);
    expect(fences).toEqual([1, 2, 3, 4, 5]);
  });
});

describe("leaderships", () => {
  test("a lease unheard of in too many leaderships, or for too long, is listed", () => {
    const h = new Harness();
    h.submit();
    const ref = h.claimOne();
    const lease = h.machine.settings().lease;
    h.now += 100 * lease;
    expect(h.machine.unconfirmed(h.now, 10)).toEqual([]);
    for (let i = 0; i < 3; i++) {
      h.term++;
      h.do({ type: "takeover", term: h.term });
    }
    h.now += 2 * lease;
    expect(h.machine.unconfirmed(h.now, 10)).toEqual([]);
    h.term++;
    h.do({ type: "takeover", term: h.term });
    expect(h.machine.unconfirmed(h.now, 10).map((l) => l.task_id)).toEqual([ref.task_id]);
    h.do({ type: "confirm", term: h.term, items: [ref] });
    expect(h.machine.unconfirmed(h.now, 10)).toEqual([]);
    h.term++;
    h.do({ type: "takeover", term: h.term });
    expect(h.machine.unconfirmed(h.now + 4 * lease - 1, 10)).toEqual([]);
    expect(h.machine.unconfirmed(h.now + 4 * lease, 10)).toHaveLength(1);
  });

  test("elections in quick succession expire nothing", () => {
    const h = new Harness();
    h.submit();
    h.claimOne();
    for (let i = 0; i < 9; i++) {
      h.term++;
      h.do({ type: "takeover", term: h.term });
    }
    expect(h.machine.unconfirmed(h.now + 1_000, 10)).toEqual([]);
  });
});

describe("reports", () => {
  test("progress and lines are kept, in pages, and only from the lease's holder", () => {
    const h = new Harness();
    const id = h.submit();
    const ref = h.claimOne();
    const report = (lines: string[], worker = "w1") =>
      h.value({
        type: "report",
        worker_id: worker,
        principal: "p",
        items: [{ ...ref, progress: { percent: 140, message: "go" }, lines }],
      });
    expect(report(["a", "b"])).toEqual({ type: "ended", items: ["ok"] });
    expect(report(["x"], "w2")).toEqual({ type: "ended", items: ["forbidden"] });
    report(["c", "", "d"]);
    expect(h.task(id).progress).toEqual({ percent: 100, message: "go" });
    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const page = h.machine.logs(id, cursor, 2);
      for (const line of page?.lines ?? []) seen.push(line.line);
      cursor = page?.next ?? null;
    } while (cursor !== null);
    expect(seen).toEqual(["a", "b", "c", "", "d"]);
    h.end(ref, complete);
    expect(report(["late"])).toEqual({ type: "ended", items: ["stale-lease"] });
    expect(() => h.machine.logs(id, "x", 2)).toThrow("not a cursor");
  });

  test("an attempt's log is cut at 64 KiB and marked; the next attempt starts anew", () => {
    const h = new Harness();
    const id = h.submit();
    const write = (ref: { task_id: string; attempt: number; fence: number }) =>
      h.value({
        type: "report",
        worker_id: "w1",
        principal: "p",
        items: [{ ...ref, progress: null, lines: Array<string>(10).fill("é".repeat(500)) }],
      });
    const first = h.claimOne();
    for (let i = 0; i < 12; i++) write(first);
    const lines = h.machine.logs(id, null, 1_000)?.lines ?? [];
    const bytes = lines.reduce((sum, { line }) => sum + Buffer.byteLength(line) + 1, 0);
    expect(bytes).toBeLessThanOrEqual(LIMITS.attemptLog + 32);
    expect(lines.at(-1)?.line).toContain("cut]");
    h.end(first, { kind: "release" });
    write(h.claimOne());
    expect(h.machine.logs(id, null, 1_000)?.lines.at(-1)?.attempt).toBe(2);
  });
});

describe("entries", () => {
  test("entry 1 names the cluster and its settings, and they outlive a restart", () => {
    const path = join(folder, "bootstrap.db");
    const db = new Database(path);
    const machine = TaskMachine.open(db);
    const bootstrap = {
      clusterId: "c1",
      createdAt: START,
      members: [],
      machineVersion: 1,
      settings: { lease: 9_000 },
    };
    const entry = {
      index: asIndex(1),
      term: asTerm(1),
      now: START,
      seed: 0,
      requests: [],
      acks: [],
    };
    machine.apply([{ ...entry, bootstrap }]);
    db.close();
    const again = TaskMachine.open(new Database(path));
    expect(again.clusterId()).toBe("c1");
    expect(again.settings()).toMatchObject({ lease: 9_000, max_crashes: 3 });
    expect(again.applied()).toEqual({ index: asIndex(1), term: asTerm(1) });
    expect(again.logTime()).toBe(START);
  });

  test("an unknown command, and a gap, stop the machine with nothing applied", () => {
    const h = new Harness();
    h.submit();
    const hash = h.machine.hash();
    const odd = { type: "brew" } as unknown as Command;
    expect(() => h.entry([request(50, submit(77)), request(51, odd)])).toThrow(FatalError);
    expect(() => h.entry([])).toThrow("reopened");
    const again = TaskMachine.open(h.db);
    expect(again.hash()).toBe(hash);
    const entry = { term: asTerm(1), now: START, seed: 0, requests: [], acks: [], bootstrap: null };
    expect(() => again.apply([{ ...entry, index: asIndex(3) }])).toThrow("does not follow");
  });

  test("the machine version is raised by an entry, never lowered, and outlives a restart", () => {
    const h = new Harness({ machineVersions: { oldest: 1, newest: 3 } });
    expect(h.machine.machineVersion()).toBe(1);
    h.value({ type: "raise", term: 1, version: 3 });
    expect(h.machine.machineVersion()).toBe(3);
    h.value({ type: "raise", term: 1, version: 2 });
    expect(h.machine.machineVersion()).toBe(3);
    expect(() => TaskMachine.open(h.db)).toThrow("this build is too old for this data folder");
    const versions = { machineVersions: { oldest: 3, newest: 4 } };
    expect(TaskMachine.open(h.db, versions).machineVersion()).toBe(3);
    const later = { machineVersions: { oldest: 4, newest: 4 } };
    expect(() => TaskMachine.open(h.db, later)).toThrow("too new for this data folder");
  });

  test("a version that this build does not apply stops it before the entry, with nothing applied", () => {
    const h = new Harness();
    const id = h.submit();
    const version = MACHINE_VERSIONS.newest + 1;
    const raise = { type: "raise", term: 1, version } as const;
    expect(() => h.do({ type: "cancel", id }, raise)).toThrow(
      `the cluster was raised to machine version ${version}, this build applies ${MACHINE_VERSIONS.newest} at most: start this member with the build of the others`,
    );
    h.reopen();
    expect(h.machine.applied().index).toBe(asIndex(1));
    expect(h.state(id)).toBe("Pending/ready");
  });

  test("a schema of another version is refused in words", () => {
    const h = new Harness();
    h.db.run("UPDATE state SET schema_version = 99");
    expect(() => TaskMachine.open(h.db)).toThrow("schema version 99");
    h.db.run("UPDATE state SET schema_version = 5, machine_version = 42");
    expect(() => TaskMachine.open(h.db)).toThrow("machine version 42");
  });

  test("listeners hear of a transaction once it is committed, and no more when they stop", () => {
    const h = new Harness();
    const seen: string[] = [];
    const stop = h.machine.onSignals((signals, at) => {
      expect(h.db.inTransaction).toBe(false);
      expect(at.index).toBe(h.index);
      for (const signal of signals) seen.push(signal.type);
    });
    h.submit();
    expect(seen).toEqual(["changed", "ready"]);
    stop();
    h.submit();
    expect(seen).toHaveLength(2);
  });
});
