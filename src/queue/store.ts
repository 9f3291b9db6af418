/**
 * The task rows and everything counted about them, with the few primitive changes that transitions are
 * made of. Every change of a row goes through here, so that counters, the ready index and signals
 * cannot drift from the tables.
 */
import type { Database, Statement } from "bun:sqlite";
import { Blocks } from "./blocks.ts";
import type { Chain } from "./chain.ts";
import type { Signal } from "./commands.ts";
import { ReadyIndex, type ReadyLimits } from "./ready.ts";
import {
  COMPLETED,
  PENDING,
  READY,
  retryText,
  RUNNING,
  SCHEDULED,
  type StatusCode,
  statusName,
  type TaskRow,
  WORKING,
} from "./rows.ts";
import { INLINE_PAYLOAD_MAX, INTEGER } from "./schema.ts";
import { TaskTable } from "./task-table.ts";
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
  readonly table: TaskTable;
  readonly ready: ReadyIndex;
  readonly blocks: Blocks;
  settings: Settings;
  /** In force: what apply does, it does as a build of this version did. */
  machineVersion: number;
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
  /** Earliest `due_at` of all rows; undefined: to be asked of the table. */
  #firstDue: number | null | undefined = undefined;
  #tombstones: number;

  readonly #nextDue: Statement<{ at: number }, []>;
  readonly #insertAttempt: Statement<unknown, (string | number | null)[]>;
  readonly #dropAttempt: Statement<unknown, [number, number]>;
  readonly #dropAttemptLogs: Statement<unknown, [number, number]>;
  readonly #attempt: Statement<AttemptRow, [number, number]>;
  readonly #attempts: Statement<AttemptRow, [number]>;
  readonly #deleteAttempts: Statement<unknown, [number]>;
  readonly #deleteLogs: Statement<unknown, [number]>;
  readonly #bury: Statement<unknown, [string, number]>;
  readonly #buried: Statement<{ one: number }, [string, number]>;
  readonly #dropTombstones: Statement<unknown, [number, number]>;
  readonly #saveClear: Statement<unknown, [number, number, number, number, number]>;
  readonly #endClear: Statement<unknown, [number]>;

  constructor(
    db: Database,
    settings: Settings,
    machineVersion: number,
    chain: Chain,
    readyLimits?: ReadyLimits,
  ) {
    this.db = db;
    this.chain = chain;
    this.settings = settings;
    this.machineVersion = machineVersion;
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
    const table = new TaskTable(db);
    this.table = table;
    this.blocks = new Blocks(db);
    this.ready = new ReadyIndex(
      (pair, priority, after, until, max) => table.readLane(pair, priority, after, until, max),
      readyLimits,
    );
    const watermark = this.#clears.get(PENDING)?.ready_watermark ?? 0;
    const lanes = db.query<{ queue: string; name: string; priority: number; n: number }, [number]>(
      `SELECT queue, name, priority, count(*) AS n FROM tasks WHERE ready_seq IS NOT NULL AND ready_seq > ?
       GROUP BY queue, name, priority ORDER BY queue, name, priority`,
    );
    for (const { queue, name, priority, n } of lanes.iterate(watermark)) {
      this.ready.load(queue, name, priority, n, watermark);
    }
    this.#tombstones =
      db.query<{ n: number }, []>("SELECT count(*) AS n FROM tombstones").get()?.n ?? 0;

    this.#nextDue = db.prepare(
      "SELECT due_at AS at FROM tasks WHERE due_at IS NOT NULL ORDER BY due_at, seq LIMIT 1",
    );
    this.#insertAttempt = db.prepare(
      `INSERT INTO attempts (seq, attempt, fence, worker, principal, started_at, finished_at, outcome, by_worker, error)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#dropAttempt = db.prepare("DELETE FROM attempts WHERE seq = ? AND attempt = ?");
    this.#dropAttemptLogs = db.prepare("DELETE FROM logs WHERE seq = ? AND attempt = ?");
    const columns =
      "attempt, fence, worker, principal, started_at, finished_at, outcome, by_worker, error";
    this.#attempt = db.prepare(`SELECT ${columns} FROM attempts WHERE seq = ? AND attempt = ?`);
    this.#attempts = db.prepare(`SELECT ${columns} FROM attempts WHERE seq = ? ORDER BY attempt`);
    this.#deleteAttempts = db.prepare("DELETE FROM attempts WHERE seq = ?");
    this.#deleteLogs = db.prepare("DELETE FROM logs WHERE seq = ?");
    this.#bury = db.prepare("INSERT OR IGNORE INTO tombstones (id, expires_at) VALUES (?, ?)");
    this.#buried = db.prepare("SELECT 1 AS one FROM tombstones WHERE id = ? AND expires_at > ?");
    this.#dropTombstones = db.prepare(
      `DELETE FROM tombstones WHERE id IN
         (SELECT id FROM tombstones WHERE expires_at <= ? ORDER BY expires_at, id LIMIT ${INTEGER})`,
    );
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

  /** With its bodies, to look at; null when unknown or cleared. */
  byId(id: string): TaskRow | null {
    const row = this.table.byId(id);
    return row === null || this.hidden(row) ? null : row;
  }

  /** Without payload and result; null when unknown or cleared. */
  slimById(id: string): TaskRow | null {
    const row = this.table.slimById(id);
    return row === null || this.hidden(row) ? null : row;
  }

  /** Whether a row bears this id, cleared or not; most likely none. */
  rowById(id: string): TaskRow | null {
    return this.table.strangerById(id);
  }

  bySeq(seq: number): TaskRow | null {
    const row = this.table.bySeq(seq);
    return row === null || this.hidden(row) ? null : row;
  }

  /** How an ended attempt ended; null when it runs, never was, or is kept no longer. */
  endedAttempt(row: TaskRow, attempt: number): AttemptRow | null {
    if (row.status === COMPLETED && row.attempt === attempt) return completedAttempt(row);
    return this.#attempt.get(row.seq, attempt);
  }

  /** Attempts that have ended, oldest first. */
  endedAttempts(row: TaskRow): AttemptRow[] {
    const ended = this.#attempts.all(row.seq);
    if (row.status === COMPLETED) ended.push(completedAttempt(row));
    return ended;
  }

  /** Log time at which the next waiting task is due, cleared or not; null: none waits. */
  nextDueAt(): number | null {
    if (this.#firstDue === undefined) {
      this.table.save();
      this.#firstDue = this.#nextDue.get()?.at ?? null;
    }
    return this.#firstDue;
  }

  /** Whether a task of this id was deleted less than its time ago (T8). */
  isBuried(id: string): boolean {
    return this.#tombstones > 0 && this.#buried.get(id, this.moment.now) !== null;
  }

  // --- primitive changes of a row

  insert(task: NewTask): void {
    const { index, now } = this.moment;
    const seq = ++this.seq;
    const runAt = Math.trunc(task.run_at ?? now);
    const waits = runAt > now;
    const { payload } = task;
    const row: TaskRow = {
      seq,
      id: task.id,
      name: task.name,
      queue: task.queue,
      status: PENDING,
      detail: waits ? SCHEDULED : READY,
      priority: Math.max(0, Math.min(9, Math.trunc(task.priority))),
      created_at: now,
      run_at: runAt,
      due_at: waits ? runAt : null,
      ready_seq: waits ? null : ++this.readySeq,
      started_at: null,
      completed_at: null,
      retries: 0,
      max_retries: Math.trunc(task.max_retries),
      attempt: 0,
      crashes: 0,
      releases: 0,
      timeout_ms: task.timeout_ms === null ? null : Math.trunc(task.timeout_ms),
      retry: retryText(task.retry),
      body_hash: task.body_hash,
      version: index,
      changed: this.changed,
      fence: null,
      worker: null,
      principal: null,
      member: null,
      boot: null,
      confirmed: 0,
      seen: 0,
      log_rows: 0,
      log_bytes: 0,
      progress: null,
      last_error: null,
      large: payload !== null && payload.length > INLINE_PAYLOAD_MAX ? 1 : 0,
      flags: 0,
      shown: 0,
      payload,
      result: null,
    };
    this.table.add(row);
    this.blocks.added(row);
    this.#decided(DECISION.insert, seq, row.detail, runAt, payload?.length ?? null);
    this.chain.mixText(task.id);
    this.counts[PENDING]++;
    this.signals.push({ type: "changed", id: task.id, from: null, to: "Pending" });
    if (waits) this.#becameDue(runAt);
    else this.#listReady(row);
  }

  /** Pending/ready to Running, under the next fence; the row has its payload then. */
  claim(row: TaskRow, claim: Claim): void {
    this.table.readBodies(row);
    this.ready.remove(row);
    row.status = RUNNING;
    row.detail = WORKING;
    row.ready_seq = null;
    row.attempt++;
    row.started_at = this.moment.now;
    row.fence = ++this.fence;
    row.worker = claim.worker_id;
    row.principal = claim.principal;
    row.member = claim.local?.member ?? null;
    row.boot = claim.local?.boot ?? null;
    row.confirmed = this.leadership;
    row.seen = 0;
    row.log_bytes = 0;
    row.progress = null;
    this.#decided(DECISION.claim, row.seq, row.attempt, row.fence, row.boot);
    this.chain.mixText(claim.worker_id);
    this.#changed(row, PENDING);
  }

  /**
   * The running attempt did the work. Its end is in the row itself (worker, fence, start, completion), and goes
   * into the history only when the task runs again: most never do.
   */
  complete(row: TaskRow, result: string | null): void {
    this.#dropSurplus(row);
    row.status = COMPLETED;
    row.detail = null;
    row.completed_at = this.moment.now;
    this.table.setResult(row, result);
    this.#decided(DECISION.complete, row.seq, row.attempt, row.fence, result?.length ?? null);
    this.signals.push({ type: "lease-end", id: row.id, fence: row.fence ?? 0 });
    this.#changed(row, RUNNING);
    this.signals.push({ type: "final", id: row.id, status: "Completed" });
  }

  /** Any other transition: to Pending (ready, or waiting for `due_at`), or to Failed or Cancelled. */
  move(row: TaskRow, to: Move): void {
    const from = row.status;
    const ready = to.status === PENDING && to.detail === READY;
    const final = to.status > RUNNING;
    if (row.ready_seq !== null) this.ready.remove(row);
    if (row.due_at !== null) this.#wasDue(row.due_at);
    row.status = to.status;
    row.detail = to.detail;
    if (to.retries !== undefined) row.retries = to.retries;
    if (to.crashes !== undefined) row.crashes = to.crashes;
    if (to.releases !== undefined) row.releases = to.releases;
    if (to.run_at !== undefined) row.run_at = to.run_at;
    if (to.last_error !== undefined) row.last_error = to.last_error;
    row.due_at = to.due_at ?? null;
    row.ready_seq = ready ? ++this.readySeq : null;
    row.completed_at = final ? this.moment.now : null;
    this.#decided(DECISION.move, row.seq, row.status, row.detail, row.due_at);
    this.#decided(DECISION.move, row.run_at, row.retries, row.crashes, row.releases);
    this.#changed(row, from);
    if (final) this.signals.push({ type: "final", id: row.id, status: statusName(to.status) });
    if (row.due_at !== null) this.#becameDue(row.due_at);
    if (ready) this.#listReady(row);
  }

  /** From a final status back to ready, without what the earlier run left: result, progress, start. */
  revive(row: TaskRow): void {
    if (row.status === COMPLETED) this.#keepAttempt(row, completedAttempt(row));
    this.move(row, {
      status: PENDING,
      detail: READY,
      retries: 0,
      crashes: 0,
      releases: 0,
      run_at: this.moment.now,
    });
    row.progress = null;
    row.started_at = null;
    this.table.setResult(row, null);
    this.#decided(DECISION.reset, row.seq, null, null, null);
  }

  /** Running/running to Running/cancelling. */
  markCancelling(row: TaskRow, detail: number): void {
    row.detail = detail;
    this.#decided(DECISION.cancelling, row.seq, detail, row.attempt, row.fence);
    this.signals.push({ type: "lease-cancel", id: row.id, fence: row.fence ?? 0 });
    this.#changed(row, RUNNING);
  }

  /** The work of this lease was seen to run, in the present leadership. */
  confirm(row: TaskRow): void {
    row.confirmed = this.leadership;
    row.seen = 1;
    this.chain.mix(row.seq);
    this.table.changed(row);
  }

  /** What the running attempt said. */
  report(row: TaskRow, progress: string | null, logRows: number, logBytes: number): void {
    row.progress = progress;
    row.log_rows = logRows;
    row.log_bytes = logBytes;
    row.version = this.moment.index;
    this.chain.mix(row.seq);
    this.chain.mix(logBytes);
    this.chain.mix(progress?.length ?? null);
    this.table.changed(row);
  }

  /** Writes the running attempt's end, but for a completion, into the history and gives its lease up. */
  endAttempt(row: TaskRow, outcome: string, byWorker: boolean, error: string | null): void {
    const { now } = this.moment;
    const fence = row.fence ?? 0;
    this.#keepAttempt(row, {
      attempt: row.attempt,
      fence,
      worker: row.worker ?? "",
      principal: row.principal ?? "",
      started_at: row.started_at ?? now,
      finished_at: now,
      outcome,
      by_worker: byWorker ? 1 : 0,
      error,
    });
    this.#decided(DECISION.attempt, row.seq, row.attempt, fence, byWorker ? 1 : 0);
    this.chain.mixText(outcome);
    this.#dropSurplus(row);
    this.signals.push({ type: "lease-end", id: row.id, fence });
  }

  #keepAttempt(row: TaskRow, ended: AttemptRow): void {
    this.#insertAttempt.run(
      row.seq,
      ended.attempt,
      ended.fence,
      ended.worker,
      ended.principal,
      ended.started_at,
      ended.finished_at,
      ended.outcome,
      ended.by_worker,
      ended.error,
    );
  }

  /** Keeps the first and the last `attemptsKept - 1`: attempts are numbered without gaps. */
  #dropSurplus(row: TaskRow): void {
    const surplus = row.attempt - (LIMITS.attemptsKept - 1);
    if (surplus <= 1) return;
    this.#dropAttempt.run(row.seq, surplus);
    if (row.log_rows > 0) this.#dropAttemptLogs.run(row.seq, surplus);
  }

  /** Deletes a row and all that hangs on it; leaves a tombstone for a client-given id (T8). Returns rows touched. */
  remove(row: TaskRow): number {
    const visible = !this.hidden(row);
    if (visible && row.ready_seq !== null) this.ready.remove(row);
    if (row.due_at !== null) this.#wasDue(row.due_at);
    let rows = this.table.remove(row) + this.blocks.removed(row);
    const inRow = row.status === COMPLETED ? 1 : 0;
    if (row.attempt > inRow) rows += this.#deleteAttempts.run(row.seq).changes;
    if (row.log_rows > 0) rows += this.#deleteLogs.run(row.seq).changes;
    if (row.body_hash !== null) {
      const expires = uuidTime(row.id) + LIMITS.clientIdAgeMs;
      if (expires > this.moment.now) {
        const buried = this.#bury.run(row.id, expires).changes;
        this.#tombstones += buried;
        rows += buried;
      }
    }
    this.#decided(DECISION.remove, row.seq, row.status, visible ? 1 : 0, rows);
    if (visible) {
      this.counts[row.status]--;
      const from = statusName(row.status);
      this.signals.push({ type: "changed", id: row.id, from, to: null });
    }
    return rows;
  }

  /** Drops at most `max` tombstones whose time is over; returns how many. */
  purgeTombstones(max: number): number {
    if (this.#tombstones === 0) return 0;
    const dropped = this.#dropTombstones.run(this.moment.now, max).changes;
    this.#tombstones -= dropped;
    return dropped;
  }

  // --- writing

  /** What the entries of one call left for good is written now, the rest by {@link save}. */
  saveEnded(): void {
    this.table.saveEnded();
  }

  /** Writes every row: the tables are what memory is. */
  save(): void {
    this.table.save();
    this.blocks.save();
    this.ready.written();
  }

  // --- clears

  /** A clear of any status is under way. */
  get clearing(): boolean {
    return this.#clears.size > 0;
  }

  /** By status: in the order in which they began, a member that started since would go another way. */
  clears(): readonly Clear[] {
    return [...this.#clears.values()].sort((a, b) => a.status - b.status);
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

  #listReady(row: TaskRow): void {
    this.ready.add(row);
    const { queue, name } = row;
    const names = this.#becameReady.get(queue);
    if (names === undefined) this.#becameReady.set(queue, new Map([[name, 1]]));
    else names.set(name, (names.get(name) ?? 0) + 1);
  }

  #becameDue(at: number): void {
    if (this.#firstDue === undefined) return;
    if (this.#firstDue === null || at < this.#firstDue) this.#firstDue = at;
  }

  #wasDue(at: number): void {
    if (at === this.#firstDue) this.#firstDue = undefined;
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

  /** The row has changed and left the status `from`. */
  #changed(row: TaskRow, from: StatusCode): void {
    row.version = this.moment.index;
    row.changed = this.changed;
    this.table.changed(row);
    this.blocks.moved(row, from);
    this.counts[from]--;
    this.counts[row.status]++;
    this.signals.push({
      type: "changed",
      id: row.id,
      from: STATUSES[from],
      to: STATUSES[row.status],
    });
  }
}

/** How a Completed task's last attempt ended: the row says it. */
function completedAttempt(row: TaskRow): AttemptRow {
  return {
    attempt: row.attempt,
    fence: row.fence ?? 0,
    worker: row.worker ?? "",
    principal: row.principal ?? "",
    started_at: row.started_at ?? 0,
    finished_at: row.completed_at ?? 0,
    outcome: "completed",
    by_worker: 1,
    error: null,
  };
}

/** Epoch ms inside a UUIDv7; 0 when the text is none. */
export function uuidTime(id: string): number {
  const time = Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
  return Number.isFinite(time) ? time : 0;
}
