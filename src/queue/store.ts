/**
 * The task rows and everything counted about them, with the few primitive changes that transitions are
 * made of. Every change of a row goes through here, so that counters, the ready index and signals
 * cannot drift from the tables.
 */
import type { Database, Statement } from "bun:sqlite";
import type { Chain } from "./chain.ts";
import type { Signal } from "./commands.ts";
import { ReadyIndex, type ReadyPair, type ReadyPosition } from "./ready.ts";
import {
  COLUMNS,
  COMPLETED,
  PENDING,
  READY,
  RUNNING,
  SCHEDULED,
  SLIM_COLUMNS,
  type StatusCode,
  statusName,
  type TaskRow,
  WORKING,
} from "./rows.ts";
import { INLINE_PAYLOAD_MAX, INTEGER, TEXT } from "./schema.ts";
import type { Claim, NewTask, Settings } from "./types.ts";
import { LIMITS, STATUSES } from "./types.ts";

/** What an entry says of itself; all that apply knows besides the command and the tables. */
export interface Moment {
  readonly index: number;
  readonly term: number;
  /** Log time, epoch ms. */
  readonly now: number;
  readonly seed: number;
}

/** The parts of a row that a transition out of Pending, Running or a final status decides. */
export interface Move {
  readonly status: StatusCode;
  readonly detail: number | null;
  readonly retries?: number;
  readonly crashes?: number;
  readonly releases?: number;
  readonly run_at?: number;
  /** Set: the task waits for this log time. */
  readonly due_at?: number;
  readonly last_error?: string | null;
}

/** A clear under way: rows of this status not changed after `watermark` are gone for everyone. */
export interface Clear {
  readonly status: StatusCode;
  readonly watermark: number;
  readonly ready_watermark: number;
  readonly cursor: number;
  readonly until: number;
}

interface StateRow {
  readonly changed: number;
  readonly fence: number;
  readonly seq: number;
  readonly ready_seq: number;
  readonly leadership: number;
  readonly pending: number;
  readonly running: number;
  readonly completed: number;
  readonly failed: number;
  readonly cancelled: number;
}

/** A running attempt's end, as remembered. `by_worker`: the worker ended it itself, so a repeat is answered `ok`. */
export interface AttemptRow {
  readonly attempt: number;
  readonly fence: number;
  readonly worker: string;
  readonly principal: string;
  readonly started_at: number;
  readonly finished_at: number;
  readonly outcome: string;
  readonly by_worker: number;
  readonly error: string | null;
}

/** Keeps apart in the chain what happens to have the same numbers; part of the machine version. */
const DECISION = {
  insert: 1,
  claim: 2,
  complete: 3,
  move: 4,
  reset: 5,
  cancelling: 6,
  attempt: 7,
  remove: 8,
  clear: 9,
} as const;

export class TaskStore {
  readonly db: Database;
  /** Every decision that changes a row goes into it, where it is taken (T9). */
  readonly chain: Chain;
  readonly ready = new ReadyIndex();
  settings: Settings;
  moment: Moment = { index: 0, term: 0, now: 0, seed: 0 };
  /** Counts commands; orders a clear against other commands of its entry. */
  changed: number;
  fence: number;
  leadership: number;
  seq: number;
  readySeq: number;
  signals: Signal[] = [];

  readonly counts: [number, number, number, number, number];
  readonly #clears = new Map<StatusCode, Clear>();
  /** Tasks that became ready in this transaction, by queue and name: one signal for each pair. */
  readonly #becameReady = new Map<string, Map<string, number>>();

  readonly #byId: Statement<TaskRow, [string]>;
  readonly #slimById: Statement<TaskRow, [string]>;
  readonly #bySeq: Statement<TaskRow, [number]>;
  readonly #head: Statement<TaskRow, [string, string, number]>;
  readonly #headAt: Statement<TaskRow, [string, string, number, number, number]>;
  readonly #insert: Statement<unknown, (string | number | null)[]>;
  readonly #insertPayload: Statement<unknown, [number, string]>;
  readonly #claim: Statement<unknown, (string | number | null)[]>;
  readonly #complete: Statement<
    unknown,
    [number, string | null, string | null, number, number, number]
  >;
  readonly #move: Statement<unknown, (string | number | null)[]>;
  readonly #reset: Statement<unknown, [number]>;
  readonly #cancelling: Statement<unknown, [number, number, number, number]>;
  readonly #insertAttempt: Statement<unknown, (string | number | null)[]>;
  readonly #dropAttempt: Statement<unknown, [number, number]>;
  readonly #dropAttemptLogs: Statement<unknown, [number, number]>;
  readonly #attempt: Statement<AttemptRow, [number, number]>;
  readonly #deleteTask: Statement<unknown, [number]>;
  readonly #deletePayload: Statement<unknown, [number]>;
  readonly #deleteAttempts: Statement<unknown, [number]>;
  readonly #deleteLogs: Statement<unknown, [number]>;
  readonly #bury: Statement<unknown, [string, number]>;
  readonly #saveClear: Statement<unknown, [number, number, number, number, number]>;
  readonly #endClear: Statement<unknown, [number]>;

  constructor(db: Database, settings: Settings, chain: Chain) {
    this.db = db;
    this.chain = chain;
    this.settings = settings;
    const state = db
      .query<StateRow, []>(
        "SELECT changed, fence, seq, ready_seq, leadership, pending, running, completed, failed, cancelled FROM state",
      )
      .get();
    if (state === null) throw new Error("the state row is missing");
    this.changed = state.changed;
    this.fence = state.fence;
    this.seq = state.seq;
    this.readySeq = state.ready_seq;
    this.leadership = state.leadership;
    this.counts = [state.pending, state.running, state.completed, state.failed, state.cancelled];
    for (const clear of db
      .query<Clear, []>(
        "SELECT status, watermark, ready_watermark, cursor, until FROM clears ORDER BY status",
      )
      .all()) {
      this.#clears.set(clear.status, clear);
    }
    const groups = db.query<{ queue: string; name: string; n: number }, [number]>(
      "SELECT queue, name, count(*) AS n FROM tasks WHERE ready_seq IS NOT NULL AND ready_seq > ? GROUP BY queue, name ORDER BY queue, name",
    );
    for (const { queue, name, n } of groups.iterate(this.#readyWatermark())) {
      this.ready.load(queue, name, n);
    }

    this.#byId = db.prepare(`SELECT ${COLUMNS} FROM tasks t WHERE t.id = ?`);
    this.#slimById = db.prepare(`SELECT ${SLIM_COLUMNS} FROM tasks t WHERE t.id = ?`);
    this.#bySeq = db.prepare(`SELECT ${COLUMNS} FROM tasks t WHERE t.seq = ?`);
    this.#head = db.prepare(
      `SELECT ${COLUMNS} FROM tasks t WHERE t.queue = ${TEXT} AND t.name = ${TEXT} AND t.ready_seq IS NOT NULL
       ORDER BY t.priority DESC, t.ready_seq LIMIT ${INTEGER}`,
    );
    this.#headAt = db.prepare(
      `SELECT ${COLUMNS} FROM tasks t WHERE t.queue = ${TEXT} AND t.name = ${TEXT} AND t.priority = ${INTEGER}
       AND t.ready_seq > ${INTEGER} ORDER BY t.ready_seq LIMIT ${INTEGER}`,
    );
    this.#insert = db.prepare(
      `INSERT INTO tasks (seq, id, name, queue, status, detail, priority, created_at, run_at, due_at, ready_seq,
         retries, max_retries, attempt, crashes, releases, timeout_ms, retry, body_hash, version, changed, large, payload)
       VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, 0, ?, 0, 0, 0, ?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#insertPayload = db.prepare("INSERT INTO payloads (seq, payload) VALUES (?, ?)");
    this.#claim = db.prepare(
      `UPDATE tasks SET status = 1, detail = ${WORKING}, ready_seq = NULL, attempt = attempt + 1, started_at = ?,
         fence = ?, worker = ?, principal = ?, member = ?, boot = ?, confirmed = ?, seen = 0, log_bytes = 0,
         progress = NULL, version = ?, changed = ? WHERE seq = ?`,
    );
    this.#complete = db.prepare(
      "UPDATE tasks SET status = 2, detail = NULL, completed_at = ?, result = ?, progress = ?, version = ?, changed = ? WHERE seq = ?",
    );
    this.#move = db.prepare(
      `UPDATE tasks SET status = ?, detail = ?, retries = ?, crashes = ?, releases = ?, run_at = ?, due_at = ?,
         ready_seq = ?, completed_at = ?, last_error = ?, version = ?, changed = ? WHERE seq = ?`,
    );
    this.#reset = db.prepare(
      "UPDATE tasks SET result = NULL, progress = NULL, started_at = NULL WHERE seq = ?",
    );
    this.#cancelling = db.prepare(
      "UPDATE tasks SET detail = ?, version = ?, changed = ? WHERE seq = ?",
    );
    this.#insertAttempt = db.prepare(
      `INSERT INTO attempts (seq, attempt, fence, worker, principal, started_at, finished_at, outcome, by_worker, error)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#dropAttempt = db.prepare("DELETE FROM attempts WHERE seq = ? AND attempt = ?");
    this.#dropAttemptLogs = db.prepare("DELETE FROM logs WHERE seq = ? AND attempt = ?");
    this.#attempt = db.prepare(
      `SELECT attempt, fence, worker, principal, started_at, finished_at, outcome, by_worker, error
       FROM attempts WHERE seq = ? AND attempt = ?`,
    );
    this.#deleteTask = db.prepare("DELETE FROM tasks WHERE seq = ?");
    this.#deletePayload = db.prepare("DELETE FROM payloads WHERE seq = ?");
    this.#deleteAttempts = db.prepare("DELETE FROM attempts WHERE seq = ?");
    this.#deleteLogs = db.prepare("DELETE FROM logs WHERE seq = ?");
    this.#bury = db.prepare("INSERT OR IGNORE INTO tombstones (id, expires_at) VALUES (?, ?)");
    this.#saveClear = db.prepare(
      `INSERT INTO clears (status, watermark, ready_watermark, cursor, until) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (status) DO UPDATE SET watermark = excluded.watermark,
         ready_watermark = excluded.ready_watermark, cursor = excluded.cursor, until = excluded.until`,
    );
    this.#endClear = db.prepare("DELETE FROM clears WHERE status = ?");
  }

  // --- reading

  /** A clear made the row vanish; it is only not deleted yet. */
  hidden(row: Pick<TaskRow, "status" | "changed">): boolean {
    if (this.#clears.size === 0) return false;
    const clear = this.#clears.get(row.status);
    return clear !== undefined && row.changed <= clear.watermark;
  }

  /** With its bodies; null when unknown or cleared. */
  byId(id: string): TaskRow | null {
    const row = this.#byId.get(id);
    return row === null || this.hidden(row) ? null : row;
  }

  /** Without payload and result; null when unknown or cleared. */
  slimById(id: string): TaskRow | null {
    const row = this.#slimById.get(id);
    return row === null || this.hidden(row) ? null : row;
  }

  /** Whether a row bears this id, cleared or not. */
  rowById(id: string): TaskRow | null {
    return this.#slimById.get(id);
  }

  bySeq(seq: number): TaskRow | null {
    const row = this.#bySeq.get(seq);
    return row === null || this.hidden(row) ? null : row;
  }

  /** The first ready tasks of a pair, in the order of service; at most `max`. */
  heads(pair: ReadyPair, max: number): TaskRow[] {
    const watermark = this.#readyWatermark();
    if (watermark === 0) return this.#head.all(pair.queue, pair.name, max);
    // Cleared rows come first within a priority: seek past them instead of reading them.
    const found: TaskRow[] = [];
    for (let priority = 9; priority >= 0 && found.length < max; priority--) {
      const left = max - found.length;
      found.push(...this.#headAt.all(pair.queue, pair.name, priority, watermark, left));
    }
    return found;
  }

  /** How an ended attempt ended; null when it runs, never was, or is kept no longer. */
  endedAttempt(seq: number, attempt: number): AttemptRow | null {
    return this.#attempt.get(seq, attempt);
  }

  // --- primitive changes of a row

  insert(task: NewTask): void {
    const { index, now } = this.moment;
    const seq = ++this.seq;
    const priority = Math.max(0, Math.min(9, Math.trunc(task.priority)));
    const runAt = Math.trunc(task.run_at ?? now);
    const waits = runAt > now;
    const position = waits ? null : this.#nextPosition(priority);
    const { payload } = task;
    const large = payload !== null && payload.length > INLINE_PAYLOAD_MAX;
    this.#insert.run(
      seq,
      task.id,
      task.name,
      task.queue,
      waits ? SCHEDULED : READY,
      priority,
      now,
      runAt,
      waits ? runAt : null,
      position?.ready_seq ?? null,
      Math.trunc(task.max_retries),
      task.timeout_ms === null ? null : Math.trunc(task.timeout_ms),
      JSON.stringify(task.retry),
      task.body_hash,
      index,
      this.changed,
      large ? 1 : 0,
      large ? null : payload,
    );
    if (large) this.#insertPayload.run(seq, payload);
    this.#decided(DECISION.insert, seq, waits ? SCHEDULED : READY, runAt, payload?.length ?? null);
    this.chain.mixText(task.id);
    this.counts[PENDING]++;
    this.signals.push({ type: "changed", id: task.id, from: null, to: "Pending" });
    if (position !== null) this.#listReady(task.queue, task.name, position);
  }

  /** Pending/ready to Running, under the next fence. Returns the row as it is now. */
  claim(row: TaskRow, claim: Claim): TaskRow {
    const { index, now } = this.moment;
    const fence = ++this.fence;
    const member = claim.local?.member ?? null;
    const boot = claim.local?.boot ?? null;
    this.#claim.run(
      now,
      fence,
      claim.worker_id,
      claim.principal,
      member,
      boot,
      this.leadership,
      index,
      this.changed,
      row.seq,
    );
    this.#decided(DECISION.claim, row.seq, row.attempt + 1, fence, boot);
    this.chain.mixText(claim.worker_id);
    this.#unlist(row);
    this.#count(row, RUNNING);
    return {
      ...row,
      status: RUNNING,
      detail: WORKING,
      ready_seq: null,
      attempt: row.attempt + 1,
      started_at: now,
      fence,
      worker: claim.worker_id,
      principal: claim.principal,
      member,
      boot,
      confirmed: this.leadership,
      seen: 0,
      log_bytes: 0,
      progress: null,
      version: index,
      changed: this.changed,
    };
  }

  complete(row: TaskRow, result: string | null): void {
    const { index, now } = this.moment;
    this.#complete.run(now, result, row.progress, index, this.changed, row.seq);
    this.#decided(DECISION.complete, row.seq, row.attempt, row.fence, result?.length ?? null);
    this.#count(row, COMPLETED);
    this.signals.push({ type: "final", id: row.id, status: "Completed" });
  }

  /** Any other transition: to Pending (ready, or waiting for `due_at`), or to Failed or Cancelled. */
  move(row: TaskRow, to: Move): void {
    const { index, now } = this.moment;
    const ready = to.status === PENDING && to.detail === READY;
    const position = ready ? this.#nextPosition(row.priority) : null;
    const final = to.status > RUNNING;
    if (row.ready_seq !== null) this.#unlist(row);
    this.#move.run(
      to.status,
      to.detail,
      to.retries ?? row.retries,
      to.crashes ?? row.crashes,
      to.releases ?? row.releases,
      to.run_at ?? row.run_at,
      to.due_at ?? null,
      position?.ready_seq ?? null,
      final ? now : null,
      to.last_error === undefined ? row.last_error : to.last_error,
      index,
      this.changed,
      row.seq,
    );
    this.#decided(DECISION.move, row.seq, to.status, to.detail, to.due_at ?? null);
    this.#decided(
      DECISION.move,
      to.run_at ?? row.run_at,
      to.retries ?? row.retries,
      to.crashes ?? row.crashes,
      to.releases ?? row.releases,
    );
    this.#count(row, to.status);
    if (final) this.signals.push({ type: "final", id: row.id, status: statusName(to.status) });
    if (position !== null) this.#listReady(row.queue, row.name, position);
  }

  /** Forgets what an earlier run left: result, progress, start. */
  reset(row: TaskRow): void {
    this.#reset.run(row.seq);
    this.#decided(DECISION.reset, row.seq, null, null, null);
  }

  /** Running/running to Running/cancelling. */
  markCancelling(row: TaskRow, detail: number): void {
    this.#cancelling.run(detail, this.moment.index, this.changed, row.seq);
    this.#decided(DECISION.cancelling, row.seq, detail, row.attempt, row.fence);
    this.signals.push({ type: "lease-cancel", id: row.id, fence: row.fence ?? 0 });
    this.#count(row, RUNNING);
  }

  /** Writes the running attempt's end into the history and gives its lease up. */
  endAttempt(row: TaskRow, outcome: string, byWorker: boolean, error: string | null): void {
    const { now } = this.moment;
    const fence = row.fence ?? 0;
    this.#insertAttempt.run(
      row.seq,
      row.attempt,
      fence,
      row.worker ?? "",
      row.principal ?? "",
      row.started_at ?? now,
      now,
      outcome,
      byWorker ? 1 : 0,
      error,
    );
    this.#decided(DECISION.attempt, row.seq, row.attempt, fence, byWorker ? 1 : 0);
    this.chain.mixText(outcome);
    // The first and the last `attemptsKept - 1`: attempts are numbered without gaps.
    const surplus = row.attempt - (LIMITS.attemptsKept - 1);
    if (surplus > 1) {
      this.#dropAttempt.run(row.seq, surplus);
      if (row.log_rows > 0) this.#dropAttemptLogs.run(row.seq, surplus);
    }
    this.signals.push({ type: "lease-end", id: row.id, fence });
  }

  /** Deletes a row and all that hangs on it; leaves a tombstone for a client-given id (T8). Returns rows touched. */
  remove(row: TaskRow): number {
    const visible = !this.hidden(row);
    if (visible && row.ready_seq !== null) this.#unlist(row);
    let rows = this.#deleteTask.run(row.seq).changes;
    if (row.large === 1) rows += this.#deletePayload.run(row.seq).changes;
    if (row.attempt > 0) rows += this.#deleteAttempts.run(row.seq).changes;
    if (row.log_rows > 0) rows += this.#deleteLogs.run(row.seq).changes;
    if (row.body_hash !== null) {
      const expires = uuidTime(row.id) + LIMITS.clientIdAgeMs;
      if (expires > this.moment.now) rows += this.#bury.run(row.id, expires).changes;
    }
    this.#decided(DECISION.remove, row.seq, row.status, visible ? 1 : 0, rows);
    if (visible) {
      this.counts[row.status]--;
      const from = statusName(row.status);
      this.signals.push({ type: "changed", id: row.id, from, to: null });
    }
    return rows;
  }

  // --- clears

  /** A clear of any status is under way. */
  get clearing(): boolean {
    return this.#clears.size > 0;
  }

  clears(): readonly Clear[] {
    return [...this.#clears.values()];
  }

  /** Makes every task of this status vanish; returns how many that were. */
  startClear(status: StatusCode): number {
    const gone = this.counts[status];
    if (gone === 0) return 0;
    const readyWatermark = status === PENDING ? this.readySeq : 0;
    this.saveClear({
      status,
      watermark: this.changed,
      ready_watermark: readyWatermark,
      cursor: 0,
      until: this.seq,
    });
    this.counts[status] = 0;
    if (status === PENDING) {
      this.ready.clear();
      this.#becameReady.clear();
    }
    return gone;
  }

  saveClear(clear: Clear): void {
    const { status, watermark, ready_watermark, cursor, until } = clear;
    this.#clears.set(status, clear);
    this.#decided(DECISION.clear, status, watermark, cursor, until);
    this.#saveClear.run(status, watermark, ready_watermark, cursor, until);
  }

  endClear(status: StatusCode): void {
    this.#clears.delete(status);
    this.#decided(DECISION.clear, status, null, null, null);
    this.#endClear.run(status);
  }

  // --- signals

  /** What the transaction changed, and starts anew. */
  takeSignals(): Signal[] {
    const signals = this.signals;
    this.signals = [];
    for (const [queue, names] of this.#becameReady) {
      for (const [name, count] of names) signals.push({ type: "ready", queue, name, count });
    }
    this.#becameReady.clear();
    return signals;
  }

  #decided(
    what: number,
    one: number | null,
    two: number | null,
    three: number | null,
    four: number | null,
  ): void {
    const { chain } = this;
    chain.mix(what);
    chain.mix(one);
    chain.mix(two);
    chain.mix(three);
    chain.mix(four);
  }

  #readyWatermark(): number {
    return this.#clears.get(PENDING)?.ready_watermark ?? 0;
  }

  #nextPosition(priority: number): ReadyPosition {
    return { priority, ready_seq: ++this.readySeq };
  }

  #listReady(queue: string, name: string, position: ReadyPosition): void {
    this.ready.add(queue, name, position);
    const names = this.#becameReady.get(queue);
    if (names === undefined) this.#becameReady.set(queue, new Map([[name, 1]]));
    else names.set(name, (names.get(name) ?? 0) + 1);
  }

  #unlist(row: TaskRow): void {
    if (row.ready_seq === null) return;
    this.ready.remove(row.queue, row.name, { priority: row.priority, ready_seq: row.ready_seq });
  }

  #count(row: TaskRow, to: StatusCode): void {
    this.counts[row.status]--;
    this.counts[to]++;
    this.signals.push({
      type: "changed",
      id: row.id,
      from: STATUSES[row.status],
      to: STATUSES[to],
    });
  }
}

/** Epoch ms inside a UUIDv7; 0 when the text is none. */
export function uuidTime(id: string): number {
  const time = Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
  return Number.isFinite(time) ? time : 0;
}
