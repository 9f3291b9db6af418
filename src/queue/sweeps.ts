/**
 * Work that may touch more rows than one entry should (T3): clearing, tasks that come due, retention.
 * Each call is one step, bounded by rows, and says whether there is more.
 */
import type { Statement } from "bun:sqlite";
import { BLOCK_ROWS, blockOf } from "./blocks.ts";
import type { ClaimMemory } from "./claims.ts";
import type { IdempotencyKeys } from "./idempotency.ts";
import {
  COMPLETED,
  FAILED,
  FINAL_CODES,
  PENDING,
  READY,
  RUNNING,
  SLIM_COLUMNS,
  type StatusCode,
  type TaskRow,
} from "./rows.ts";
import { INTEGER } from "./schema.ts";
import type { Clear, TaskStore } from "./store.ts";
import type { Settings } from "./types.ts";

/** Tasks that one step may look at or delete, whatever it asks for. */
const STEP_MAX = 1_000;
/** Rows of all tables that one step may delete: attempts and logs hang on tasks. */
const STEP_ROWS_MAX = 2_000;

/** Blocks of tasks that one step of a clear may read: some milliseconds, though little of them is to be cleared. */
const STEP_BLOCKS_MAX = 8;

/** What is left of a step's limits. */
interface ClearStep {
  tasks: number;
  rows: number;
  blocks: number;
}

export interface Step {
  readonly count: number;
  readonly more: boolean;
}

const limited = (max: number): number => Math.max(1, Math.min(STEP_MAX, Math.trunc(max) || 0));

export class Sweeps {
  readonly #store: TaskStore;
  readonly #keys: IdempotencyKeys;
  readonly #claims: ClaimMemory;
  readonly #due: Statement<TaskRow, [number, number]>;
  readonly #clearable: Statement<TaskRow, [number, number, number, number]>;
  readonly #expired: Statement<TaskRow, [number, number, number]>;
  readonly #oldest: Statement<{ at: number }, [number]>;
  readonly #nextTombstone: Statement<{ at: number }, []>;
  readonly #leases: Statement<TaskRow, []>;

  constructor(store: TaskStore, keys: IdempotencyKeys, claims: ClaimMemory) {
    this.#store = store;
    this.#keys = keys;
    this.#claims = claims;
    const { db } = store;
    this.#due = db.prepare(
      `SELECT ${SLIM_COLUMNS} FROM tasks t WHERE t.due_at IS NOT NULL AND t.due_at <= ${INTEGER} ORDER BY t.due_at, t.seq LIMIT ${INTEGER}`,
    );
    this.#clearable = db.prepare(
      `SELECT ${SLIM_COLUMNS} FROM tasks t WHERE +t.status = ${INTEGER} AND t.seq > ${INTEGER} AND t.seq <= ${INTEGER} ORDER BY t.seq LIMIT ${INTEGER}`,
    );
    this.#expired = db.prepare(
      `SELECT ${SLIM_COLUMNS} FROM tasks t WHERE t.status = ${INTEGER} AND t.completed_at IS NOT NULL AND t.completed_at <= ${INTEGER}
       ORDER BY t.completed_at, t.seq LIMIT ${INTEGER}`,
    );
    this.#oldest = db.prepare(
      `SELECT completed_at AS at FROM tasks WHERE status = ${INTEGER} AND completed_at IS NOT NULL
       ORDER BY completed_at, seq LIMIT 1`,
    );
    this.#nextTombstone = db.prepare(
      "SELECT expires_at AS at FROM tombstones ORDER BY expires_at, id LIMIT 1",
    );
    this.#leases = db.prepare(
      `SELECT ${SLIM_COLUMNS} FROM tasks t WHERE t.status = ${RUNNING} ORDER BY t.seq`,
    );
  }

  /** Makes every task of `status` (null: each) vanish at once; returns how many. Rows go by {@link clearStep}. */
  clear(status: StatusCode | null): number {
    const store = this.#store;
    const statuses: readonly StatusCode[] = status === null ? [0, 1, 2, 3, 4] : [status];
    if (statuses.includes(RUNNING)) {
      for (const row of this.leases()) {
        const fence = row.fence ?? 0;
        store.signals.push({ type: "lease-lost", id: row.id, fence, reason: "cleared" });
        store.signals.push({ type: "lease-end", id: row.id, fence });
      }
    }
    let gone = 0;
    for (const each of statuses) gone += store.startClear(each);
    return gone;
  }

  /** Deletes rows that a clear made invisible. */
  clearStep(max: number): Step {
    const store = this.#store;
    const step: ClearStep = { tasks: limited(max), rows: STEP_ROWS_MAX, blocks: STEP_BLOCKS_MAX };
    let removed = 0;
    store.save();
    for (const clear of store.clears()) {
      if (step.tasks <= 0 || step.rows <= 0 || step.blocks <= 0) break;
      removed += this.#clearSome(clear, step);
    }
    return { count: removed, more: store.clearing };
  }

  /** Goes on with one clear as far as `step` allows; returns how many tasks it removed. */
  #clearSome(clear: Clear, step: ClearStep): number {
    const store = this.#store;
    const { status, until } = clear;
    let { cursor } = clear;
    let removed = 0;
    while (step.tasks > 0 && step.rows > 0 && step.blocks > 0) {
      const block = store.blocks.nextWith(status, blockOf(cursor + 1));
      if (block === null || block * BLOCK_ROWS > until) {
        store.endClear(status);
        return removed;
      }
      step.blocks--;
      const end = Math.min(until, (block + 1) * BLOCK_ROWS - 1);
      const asked = step.tasks;
      const found = store.table.adopt(this.#clearable.all(status, cursor, end, asked));
      let looked = 0;
      for (const row of found) {
        if (step.rows <= 0) break;
        looked++;
        step.tasks--;
        cursor = row.seq;
        // One that came to this status after the clear stays.
        if (!store.hidden(row)) continue;
        step.rows -= store.remove(row);
        removed++;
      }
      if (looked === found.length && found.length < asked) cursor = end;
    }
    if (cursor >= until) store.endClear(status);
    else store.saveClear({ ...clear, cursor });
    return removed;
  }

  /** Scheduled and retrying tasks whose time has come (in log time) become ready, earliest first. */
  due(max: number): Step {
    const store = this.#store;
    const limit = limited(max);
    store.save();
    const rows = store.table.adopt(this.#due.all(store.moment.now, limit));
    for (const row of rows) {
      if (store.hidden(row)) store.remove(row);
      else store.move(row, { status: PENDING, detail: READY });
    }
    return { count: rows.length, more: rows.length === limit };
  }

  /** Final tasks past their retention, expired idempotency keys, tombstones and claim answers. */
  purge(max: number): Step {
    const store = this.#store;
    const { now } = store.moment;
    const limit = limited(max);
    let count = 0;
    let rows = 0;
    let stopped = false;
    store.save();
    for (const status of FINAL_CODES) {
      if (count >= limit) break;
      const before = now - retentionOf(store.settings, status);
      for (const row of store.table.adopt(this.#expired.all(status, before, limit - count))) {
        stopped = rows >= STEP_ROWS_MAX;
        if (stopped) break;
        rows += store.remove(row);
        count++;
      }
    }
    if (count < limit && !stopped) count += this.#keys.purge(now, limit - count);
    if (count < limit && !stopped) count += this.#claims.purge(now, limit - count);
    if (count < limit && !stopped) count += store.purgeTombstones(limit - count);
    return { count, more: stopped || count >= limit };
  }

  nextPurgeAt(): number | null {
    const times = [
      this.#keys.nextExpiry(),
      this.#claims.nextExpiry(),
      this.#nextTombstone.get()?.at ?? null,
    ];
    for (const status of FINAL_CODES) {
      const oldest = this.#oldest.get(status);
      if (oldest !== null) times.push(oldest.at + retentionOf(this.#store.settings, status));
    }
    let next: number | null = null;
    for (const at of times) {
      if (at !== null && (next === null || at < next)) next = at;
    }
    return next;
  }

  /** Every lease in force, in the order of the tasks' submission. */
  leases(): TaskRow[] {
    this.#store.save();
    return this.#store.table.adopt(this.#leases.all()).filter((row) => !this.#store.hidden(row));
  }
}

function retentionOf(settings: Settings, status: StatusCode): number {
  const { retention } = settings;
  if (status === COMPLETED) return retention.completed;
  return status === FAILED ? retention.failed : retention.cancelled;
}
