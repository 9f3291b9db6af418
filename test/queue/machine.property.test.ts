/**
 * Random histories from a seed: one machine applies them entry by entry, another in batches, a third from
 * a file that is closed and opened in between. All must agree (Q9), every counter must equal a recount
 * (Q10), and the queue's invariants must hold after every entry.
 */
import { decodeCommand } from "../../src/queue/command-codec.ts";
import { Database } from "bun:sqlite";
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asNodeId } from "../../src/raft/types.ts";
import type { CommittedEntry, LoggedRequest } from "../../src/replica/ports.ts";
import type { Answer, Command } from "../../src/queue/commands.ts";
import { TaskMachine } from "../../src/queue/machine.ts";
import {
  type ClaimedTask,
  DEFAULT_RETRY,
  type LeaseEnd,
  type LeaseRef,
  type NewTask,
  STATUSES,
} from "../../src/queue/types.ts";
import {
  complete,
  counted,
  failure,
  Harness,
  idAt,
  newTask,
  NO_DELAY,
  misplaced,
  recount,
  recountBlocks,
  refOf,
  request,
} from "./machine-harness.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const folder = mkdtempSync(join(tmpdir(), "flotilla-property-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** A small generator of its own, so that a seed prints as a number and replays anywhere. */
class Dice {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }
  below(n: number): number {
    return this.next() % n;
  }
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }
  pick<T>(items: readonly T[]): T | undefined {
    return items[this.below(items.length)];
  }
}

const NAMES = ["a", "b", "c", "d"];
const QUEUES = ["q1", "q2"];

/** Draws commands that mean something in the state they meet, and some that do not. */
class Generator {
  readonly ids: string[] = [];
  readonly leases: LeaseRef[] = [];
  #serial = 0;

  constructor(
    readonly dice: Dice,
    readonly h: Harness,
  ) {}

  task(): NewTask {
    const { dice, h } = this;
    const reuse = dice.chance(8) ? dice.pick(this.ids) : undefined;
    const id = reuse ?? idAt(h.now, ++this.#serial);
    if (reuse === undefined) this.ids.push(id);
    return newTask(id, {
      name: dice.pick(NAMES) ?? "a",
      queue: dice.pick(QUEUES) ?? "q1",
      priority: dice.below(10),
      max_retries: dice.below(3),
      run_at: dice.chance(30) ? h.now + dice.below(4_000) - 1_000 : null,
      timeout_ms: dice.chance(50) ? dice.below(3_000) : null,
      retry: dice.chance(50) ? DEFAULT_RETRY : NO_DELAY,
      body_hash: dice.chance(50) ? `h${dice.below(2)}` : null,
      payload: dice.chance(5) ? JSON.stringify("x".repeat(3_000)) : '{"n":1}',
    });
  }

  ref(): LeaseRef {
    const lease = this.dice.chance(70)
      ? this.leases.at(-1 - this.dice.below(12))
      : this.dice.pick(this.leases);
    return lease ?? { task_id: "none", attempt: 1, fence: 1 };
  }

  end(): LeaseEnd {
    const { dice } = this;
    switch (dice.below(6)) {
      case 0:
        return { kind: "release" };
      case 1:
        return { kind: "snooze", delay_ms: dice.below(1_500) };
      case 2:
        return failure({ crashed: true });
      case 3:
        return failure({ retry_after_ms: dice.chance(30) ? dice.below(800) : null });
      default:
        return complete;
    }
  }

  command(): Command {
    const { dice, h } = this;
    const term = dice.chance(90) ? h.term : h.term - 1;
    const max = 1 + dice.below(6);
    switch (dice.below(20)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        const tasks = Array.from({ length: 1 + dice.below(3) }, () => this.task());
        const key = dice.below(12);
        const scope = { principal: "p", route: "r", key: `k${key}`, hash: `${key % 3}` };
        const command: Command = { type: "submit", tasks };
        return dice.chance(25) ? { ...command, idem: scope } : command;
      }
      case 4:
      case 5:
      case 6:
      case 7:
        return {
          type: "claim",
          worker_id: `w${dice.below(2)}`,
          request_id: `r${dice.chance(10) ? dice.below(20) : ++this.#serial}`,
          principal: "p",
          queues: dice.chance(50) ? null : QUEUES.slice(0, 1 + dice.below(2)),
          names: dice.chance(50) ? null : NAMES.slice(dice.below(3)),
          star: dice.chance(20),
          max,
          local: dice.chance(40)
            ? { member: asNodeId(`n${dice.below(2)}`), boot: 1 + dice.below(3) }
            : null,
        };
      case 8:
      case 9:
      case 10:
      case 11:
        return {
          type: "end",
          worker_id: `w${dice.below(2)}`,
          principal: dice.chance(95) ? "p" : "q",
          items: Array.from({ length: max }, () => ({ ...this.ref(), end: this.end() })),
        };
      case 12:
        return { type: "cancel", id: dice.pick(this.ids) ?? "none" };
      case 13:
        return { type: "retry", id: dice.pick(this.ids) ?? "none", if_version: null };
      case 14:
        return {
          type: "expire",
          term,
          items: Array.from({ length: max }, () => ({ ...this.ref(), seen: dice.chance(50) })),
        };
      case 15:
        return { type: "timeout", term, items: Array.from({ length: max }, () => this.ref()) };
      case 16:
        return { type: "due", term, max: max * 2 };
      case 17:
        return dice.chance(50)
          ? { type: "confirm", term, items: [this.ref()] }
          : {
              type: "report",
              worker_id: "w0",
              principal: "p",
              items: [{ ...this.ref(), progress: { percent: 5, message: null }, lines: ["l"] }],
            };
      case 18:
        if (dice.chance(40)) return { type: "clear-step", term, max };
        if (dice.chance(50)) return { type: "purge", term, max };
        if (dice.chance(30)) return { type: "takeover", term };
        return {
          type: "boot",
          member: asNodeId(`n${dice.below(2)}`),
          boot: 1 + dice.below(3),
          names: NAMES.slice(0, dice.below(2)),
        };
      default:
        if (dice.chance(25)) return { type: "clear", status: dice.pick(STATUSES) ?? null };
        return { type: "clear-step", term, max };
    }
  }
}

/** What must hold of tasks between two entries. */
class Invariants {
  #fence = 0;
  readonly #claimed = new Map<string, Set<number>>();
  readonly #completed = new Set<string>();

  constructor(readonly h: Harness) {}

  claimed(task: ClaimedTask, now: number): void {
    expect(task.run_at).toBeLessThanOrEqual(now); // Q8
    const attempts = this.#claimed.get(task.id) ?? new Set();
    if (!attempts.has(task.lease.attempt)) {
      // Q4, Q5: a new claim has a greater fence and the next attempt; a repeat has neither.
      expect(task.lease.fence).toBeGreaterThan(this.#fence);
      expect(task.lease.attempt).toBe(attempts.size + 1);
      this.#fence = task.lease.fence;
      attempts.add(task.lease.attempt);
    }
    this.#claimed.set(task.id, attempts);
  }

  /** Q6: an `ok` of a completion ended the lease in force, or it is the repeat of one that did. */
  completed(ref: LeaseRef, heldBefore: boolean, sinceFence: number): void {
    const key = `${ref.task_id}/${ref.fence}`;
    const repeat = this.#completed.has(key);
    expect(heldBefore && repeat).toBe(false);
    // Q4: what was neither in force before this entry, nor claimed in it, nor completed, is stale.
    expect(heldBefore || repeat || ref.fence > sinceFence).toBe(true);
    this.#completed.add(key);
  }

  get fence(): number {
    return this.#fence;
  }

  check(): void {
    const { db, machine } = this.h;
    const { counts, ready, keys } = recount(db);
    expect(counted(machine)).toEqual({ counts, ready }); // Q10
    expect(db.query("SELECT idempotency_keys AS n FROM state").get()).toEqual({ n: keys });
    expect(db.query("SELECT idempotency_bytes AS n FROM state").get()).toEqual(
      db.query("SELECT coalesce(sum(size), 0) AS n FROM idempotency").get(),
    );
    const broken = db
      .query(
        `SELECT id FROM tasks WHERE
           (status = 0) <> (ready_seq IS NOT NULL OR due_at IS NOT NULL)
           OR (ready_seq IS NOT NULL AND due_at IS NOT NULL)
           OR (status >= 2) <> (completed_at IS NOT NULL)
           OR retries > max_retries OR crashes > 3
           OR (status = 1 AND (fence IS NULL OR worker IS NULL))
           OR (large = 1) <> EXISTS (SELECT 1 FROM payloads p WHERE p.seq = tasks.seq)`,
      )
      .all();
    expect(broken).toEqual([]);
    const blocks = recountBlocks(db);
    expect(blocks.kept).toEqual(blocks.counted);
    expect(misplaced(db)).toEqual([]);
    const orphans = db.query(
      `SELECT seq FROM attempts WHERE seq NOT IN (SELECT seq FROM tasks)
       UNION ALL SELECT seq FROM payloads WHERE seq NOT IN (SELECT seq FROM tasks)
       UNION ALL SELECT seq FROM logs WHERE seq NOT IN (SELECT seq FROM tasks)`,
    );
    expect(orphans.all()).toEqual([]);
    // Q5: the history has as many ends as there were claims, less the one under way; a completion is in the row.
    const gaps = db.query(
      `SELECT id FROM tasks t WHERE attempt - (status IN (1, 2)) <> (SELECT count(*) FROM attempts a WHERE a.seq = t.seq)`,
    );
    expect(gaps.all()).toEqual([]);
  }
}

function history(
  seed: number,
  length: number,
): { entries: readonly CommittedEntry[]; hash: string; answers: unknown[] } {
  const dice = new Dice(seed);
  const h = new Harness({ idempotencyKeys: 10 });
  const generator = new Generator(dice, h);
  const invariants = new Invariants(h);
  const sent: LoggedRequest[] = [];
  const answered = new Map<string, Answer>();
  const given: Answer[] = [];
  let below = 1;
  for (let i = 0; i < length; i++) {
    h.now += dice.below(900);
    if (dice.chance(3)) h.now += 90_000_000;
    if (dice.chance(4)) h.term++;
    const requests: LoggedRequest[] = [];
    for (let n = dice.below(5); n > 0; n--) {
      const repeat = dice.chance(10) ? dice.pick(sent) : undefined;
      const fresh = repeat ?? request(++h.seq, generator.command());
      requests.push(fresh);
      sent.push(fresh);
    }
    if (dice.chance(15)) below = Math.max(below, h.seq - dice.below(6));
    const acks = dice.chance(30) ? [{ member: asNodeId("n1"), boot: 1, below }] : [];
    const was = new Map(generator.ids.map((id) => [id, h.machine.leaseOf(id)?.fence]));
    const ended = new Set<string>();
    const sinceFence = invariants.fence;
    const answers = h.entry(requests, acks, dice.next());
    given.push(...answers);
    for (const [at, answer] of answers.entries()) {
      const asked = requests[at];
      if (asked === undefined || !answer.ok) continue;
      const seen = answered.get(`${asked.seq}`);
      answered.set(`${asked.seq}`, answer);
      if (seen?.ok === true && answer.value.type !== "claimed") expect(answer).toEqual(seen); // T2
      const command = decodeCommand(asked.command);
      if (answer.value.type === "claimed") {
        for (const task of answer.value.tasks) {
          generator.leases.push(refOf(task));
          invariants.claimed(task, h.now);
        }
      } else if (command.type === "end" && seen === undefined && answer.value.type === "ended") {
        for (const [n, item] of command.items.entries()) {
          const key = `${item.task_id}/${item.fence}`;
          // Only the first end of a lease in an entry can be told apart from its repeats by what was before.
          if (item.end.kind === "complete" && answer.value.items[n] === "ok" && !ended.has(key)) {
            invariants.completed(item, was.get(item.task_id) === item.fence, sinceFence);
          }
          ended.add(key);
        }
      }
    }
    invariants.check();
  }
  return { entries: h.entries, hash: h.machine.hash(), answers: given };
}

const idsOf = (command: Command): string[] =>
  command.type === "submit" ? command.tasks.map(({ id }) => id) : [];

/** A member that writes behind: flushed at some moments, killed at others, with next to no room in memory. */
function writeBehind(entries: readonly CommittedEntry[], dice: Dice): TaskMachine {
  const db = new Database(":memory:");
  const open = (): TaskMachine =>
    TaskMachine.open(db, {
      idempotencyKeys: 10,
      writeBehind: 1 + dice.below(60),
      ready: { rows: 1 + dice.below(8), text: 100, piece: 1 + dice.below(4) },
    });
  let machine = open();
  let at = 0;
  while (at < entries.length) {
    const next = Math.min(entries.length, at + 1 + dice.below(8));
    machine.apply(entries.slice(at, next));
    at = next;
    if (dice.chance(20)) machine.flush();
    if (dice.chance(20)) machine.nextDueAt();
    if (dice.chance(10)) machine.running();
    if (dice.chance(10)) {
      // What was not committed is gone with the process, all of it, and comes again from the log.
      if (db.inTransaction) db.run("ROLLBACK");
      machine = open();
      expect(machine.applied().index).toBeLessThanOrEqual(at);
      at = machine.applied().index;
      const whole = TaskMachine.open(new Database(":memory:"), { idempotencyKeys: 10 });
      whole.apply(entries.slice(0, at));
      expect(machine.hash()).toBe(whole.hash());
    }
  }
  return machine;
}

describe("random histories", () => {
  for (let seed = 1; seed <= 12; seed++) {
    test(`of seed ${seed} give the same state and answers whenever rows are written, whatever a crash forgets`, () => {
      const { entries, hash, answers } = history(seed + 100, 150);
      const machine = writeBehind(entries, new Dice(seed));
      expect(machine.hash()).toBe(hash);
      const again = TaskMachine.open(new Database(":memory:"), {
        idempotencyKeys: 10,
        writeBehind: 1_000_000,
        ready: { rows: 3, text: 1_000, piece: 2 },
      });
      const given = entries.flatMap((entry) => again.apply([entry]).map(({ answer }) => answer));
      expect(given).toEqual(answers);
      expect(counted(again)).toEqual(counted(machine));
      for (const entry of entries) {
        for (const { command } of entry.requests) {
          const ids = idsOf(decodeCommand(command));
          expect(again.tasksByIds(ids)).toEqual(machine.tasksByIds(ids));
          expect(ids.map((id) => again.attempts(id))).toEqual(
            ids.map((id) => machine.attempts(id)),
          );
        }
      }
      expect(again.hash()).toBe(hash);
    });
  }

  for (let seed = 1; seed <= 12; seed++) {
    test(`of seed ${seed} give the same state however they are batched or interrupted`, () => {
      const { entries, hash } = history(seed, 150);
      const whole = TaskMachine.open(new Database(":memory:"), { idempotencyKeys: 10 });
      whole.apply(entries);
      expect(whole.hash()).toBe(hash);

      const dice = new Dice(seed + 1_000);
      const path = join(folder, `${seed}.db`);
      let at = 0;
      while (at < entries.length) {
        const db = new Database(path);
        db.run("PRAGMA synchronous = OFF");
        const machine = TaskMachine.open(db, { idempotencyKeys: 10 });
        for (let part = 0; part < 3 && at < entries.length; part++) {
          const next = at + 1 + dice.below(30);
          machine.apply(entries.slice(at, next));
          at = Math.min(entries.length, next);
        }
        if (at === entries.length) expect(machine.hash()).toBe(hash);
        db.close();
      }
    });
  }

  test("an apply that fails half-way leaves the state of the transaction before it", () => {
    const { entries } = history(77, 40);
    const db = new Database(":memory:");
    const machine = TaskMachine.open(db, { idempotencyKeys: 10 });
    machine.apply(entries.slice(0, 20));
    const before = machine.hash();
    const odd = { ...entries[25], index: 999 } as CommittedEntry;
    expect(() => machine.apply([...entries.slice(20, 25), odd])).toThrow("does not follow");
    const again = TaskMachine.open(db, { idempotencyKeys: 10 });
    expect(again.hash()).toBe(before);
    again.apply(entries.slice(20));
    const whole = TaskMachine.open(new Database(":memory:"), { idempotencyKeys: 10 });
    whole.apply(entries);
    expect(again.hash()).toBe(whole.hash());
  });

  test("the hash tells one changed row", () => {
    const h = new Harness();
    h.submit();
    const before = h.machine.hash();
    h.db.run("UPDATE tasks SET priority = 6");
    expect(h.machine.hash()).not.toBe(before);
  });
});
