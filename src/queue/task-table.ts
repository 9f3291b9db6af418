/**
 * The `tasks` table and the rows of it that are in memory. Rows change in memory and are written later: one
 * that is submitted, claimed and completed between two writes costs one INSERT, where each step would cost an
 * UPDATE and its index entries.
 *
 * Whoever reads a row by id or sequence gets the newest state of it. A statement that scans the table sees
 * only what was written: {@link TaskTable.save} comes before it. All writes happen in the machine's
 * transaction, which also holds the applied index: what is not written is not applied either, as far as the
 * file is concerned, and comes again from the log.
 */
import type { Database, Statement } from "bun:sqlite";
import type { LanePiece, ReadyPair } from "./ready.ts";
import {
  COLUMNS,
  HEAD_COLUMNS,
  PAYLOAD,
  ROW,
  RUNNING,
  SLIM_COLUMNS,
  type TaskRow,
  UNSAVED,
} from "./rows.ts";
import { INTEGER, TEXT } from "./schema.ts";
import { TaskWriter } from "./task-writer.ts";

/** Rows kept in memory; beyond it those of running tasks are read from the table when their worker speaks. */
const KEPT_MAX = 32_768;
/** Ended rows that are worth a write of their own. */
const ENDED_ROWS_MIN = 64;

interface Bodies {
  readonly payload: string | null;
  readonly result: string | null;
}

export class TaskTable {
  readonly #byId = new Map<string, TaskRow>();
  readonly #bySeq = new Map<number, TaskRow>();
  /** Every row with something to write, and some that were written since. */
  #unsaved: TaskRow[] = [];
  /** Those of them that have come to an end, most likely for ever. */
  #ended: TaskRow[] = [];
  #unsavedText = 0;
  /** No row bears a greater id. */
  #greatestId: string;

  readonly #selectById: Statement<TaskRow, [string]>;
  readonly #selectSlimById: Statement<TaskRow, [string]>;
  readonly #selectBySeq: Statement<TaskRow, [number]>;
  readonly #selectSeq: Statement<{ seq: number }, [string]>;
  readonly #selectBodies: Statement<Bodies, [number]>;
  readonly #selectLane: Statement<TaskRow, [string, string, number, number, number, number]>;
  readonly #writer: TaskWriter;
  readonly #delete: Statement<unknown, [number]>;
  readonly #deletePayload: Statement<unknown, [number]>;

  constructor(db: Database) {
    const greatest = db.query<{ id: string | null }, []>("SELECT max(id) AS id FROM tasks").get();
    this.#greatestId = greatest?.id ?? "";
    this.#selectById = db.prepare(`SELECT ${COLUMNS} FROM tasks t WHERE t.id = ?`);
    this.#selectSlimById = db.prepare(`SELECT ${SLIM_COLUMNS} FROM tasks t WHERE t.id = ?`);
    this.#selectBySeq = db.prepare(`SELECT ${COLUMNS} FROM tasks t WHERE t.seq = ?`);
    this.#selectSeq = db.prepare("SELECT seq FROM tasks WHERE id = ?");
    this.#selectBodies = db.prepare(
      `SELECT ${PAYLOAD} AS payload, t.result FROM tasks t WHERE t.seq = ?`,
    );
    this.#selectLane = db.prepare(
      `SELECT ${HEAD_COLUMNS} FROM tasks t WHERE t.queue = ${TEXT} AND t.name = ${TEXT} AND t.priority = ${INTEGER}
       AND t.ready_seq > ${INTEGER} AND t.ready_seq < ${INTEGER} ORDER BY t.ready_seq LIMIT ${INTEGER}`,
    );
    this.#writer = new TaskWriter(db);
    this.#delete = db.prepare("DELETE FROM tasks WHERE seq = ?");
    this.#deletePayload = db.prepare("DELETE FROM payloads WHERE seq = ?");
  }

  /** Rows that wait to be written, at most; and about how many characters of bodies. */
  get waiting(): { readonly rows: number; readonly text: number } {
    return { rows: this.#unsaved.length, text: this.#unsavedText };
  }

  // --- reading

  /** With its bodies; to look at, not to change. */
  byId(id: string): TaskRow | null {
    const kept = this.#byId.get(id);
    return kept === undefined ? this.#selectById.get(id) : this.#whole(kept);
  }

  /** With its bodies; to look at, not to change. */
  bySeq(seq: number): TaskRow | null {
    const kept = this.#bySeq.get(seq);
    return kept === undefined ? this.#selectBySeq.get(seq) : this.#whole(kept);
  }

  /** Perhaps without its bodies; may be changed. */
  slimById(id: string): TaskRow | null {
    return this.#byId.get(id) ?? (id > this.#greatestId ? null : this.#selectSlimById.get(id));
  }

  /** The same, for an id that most likely nobody bears. */
  strangerById(id: string): TaskRow | null {
    const kept = this.#byId.get(id);
    if (kept !== undefined) return kept;
    if (id > this.#greatestId || this.#selectSeq.get(id) === null) return null;
    return this.#selectSlimById.get(id);
  }

  /** Rows that a statement read, as they are to be changed: what is in memory takes their place. */
  adopt(rows: readonly TaskRow[]): TaskRow[] {
    return rows.map((row) => this.#bySeq.get(row.seq) ?? row);
  }

  /** For the ready index: rows that wait in the table alone. */
  readLane(
    pair: ReadyPair,
    priority: number,
    after: number,
    until: number,
    max: number,
  ): LanePiece {
    const { queue, name } = pair;
    const found = this.#selectLane.all(queue, name, priority, after, until, max);
    const rows: TaskRow[] = [];
    for (const row of found) {
      const kept = this.#bySeq.get(row.seq);
      if (kept === undefined) {
        this.#keep(row);
        rows.push(row);
      } else if (kept.ready_seq === row.ready_seq) {
        rows.push(kept);
      }
    }
    return {
      rows,
      reached: found.at(-1)?.ready_seq ?? after,
      more: found.length === max,
    };
  }

  /** Reads the bodies into the row, if they are not there. */
  readBodies(row: TaskRow): void {
    if ((row.flags & ROW.slim) === 0) return;
    const bodies = this.#selectBodies.get(row.seq);
    row.payload = bodies?.payload ?? null;
    if ((row.flags & ROW.result) === 0) row.result = bodies?.result ?? null;
    row.flags &= ~ROW.slim;
  }

  #whole(row: TaskRow): TaskRow {
    if ((row.flags & ROW.slim) === 0) return row;
    const copy = { ...row };
    this.readBodies(copy);
    return copy;
  }

  // --- changing

  /** A new row; the table does not know it yet. */
  add(row: TaskRow): void {
    row.flags |= ROW.born;
    this.#unsaved.push(row);
    this.#unsavedText += row.payload?.length ?? 0;
    this.#keep(row);
    if (row.id > this.#greatestId) this.#greatestId = row.id;
  }

  /** The row was changed, but for its result. */
  changed(row: TaskRow): void {
    if ((row.flags & UNSAVED) === 0) this.#unsaved.push(row);
    row.flags |= ROW.changed;
    if ((row.flags & ROW.kept) === 0) this.#keep(row);
    if (row.status > RUNNING) this.#ended.push(row);
  }

  setResult(row: TaskRow, result: string | null): void {
    row.result = result;
    this.#unsavedText += result?.length ?? 0;
    row.flags |= ROW.result;
  }

  /** Deletes the row and its payload; returns rows of tables touched. */
  remove(row: TaskRow): number {
    this.#forget(row);
    const inTable = (row.flags & ROW.born) === 0;
    row.flags &= ~(UNSAVED | ROW.result);
    if (!inTable) return 1 + row.large;
    const rows = this.#delete.run(row.seq).changes;
    return row.large === 1 ? rows + this.#deletePayload.run(row.seq).changes : rows;
  }

  // --- writing

  /**
   * Writes the rows of tasks that have ended, and need them in memory no more; few of them wait for more of their
   * kind, or for {@link save}.
   */
  saveEnded(): void {
    if (this.#ended.length < ENDED_ROWS_MIN) return;
    const ended = this.#ended;
    this.#ended = [];
    for (const row of ended) {
      if (row.status <= RUNNING || (row.flags & UNSAVED) === 0) continue;
      this.#writer.write(row);
      this.#forget(row);
    }
    this.#writer.end();
  }

  /** Writes every row. Scans see all of them from here on. */
  save(): void {
    const rows = this.#unsaved;
    this.#unsaved = [];
    this.#ended = [];
    this.#unsavedText = 0;
    for (const row of rows) {
      if ((row.flags & UNSAVED) === 0) continue;
      this.#writer.write(row);
      // What has ended is not shown again: its place in a window is passed over, by whatever stands there.
      if (row.shown > 0 && row.status <= RUNNING) continue;
      if (row.status === RUNNING && this.#bySeq.size <= KEPT_MAX) {
        row.payload = null;
        row.result = null;
        row.flags |= ROW.slim;
      } else {
        this.#forget(row);
      }
    }
    this.#writer.end();
  }

  #keep(row: TaskRow): void {
    row.flags |= ROW.kept;
    this.#byId.set(row.id, row);
    this.#bySeq.set(row.seq, row);
  }

  #forget(row: TaskRow): void {
    if ((row.flags & ROW.kept) === 0) return;
    row.flags &= ~ROW.kept;
    this.#byId.delete(row.id);
    this.#bySeq.delete(row.seq);
  }
}
