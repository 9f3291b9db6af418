/**
 * Where in the table tasks of a status, a queue or a name lie, by blocks of neighbouring sequences. A list or a
 * clear reads only blocks that hold what it looks for; an index over (status, seq), (queue, seq) and (name, seq)
 * would serve as well, but each of them costs every task an entry, and a block costs a thousand tasks one row.
 *
 * Counts are exact and of the rows as memory has them; those that a clear made invisible count until they are
 * deleted. They change at once, and are written with the rows. Names and queues of a block only gather: they go
 * when its last row does.
 */
import type { Database, Statement } from "bun:sqlite";
import type { StatusCode, TaskRow } from "./rows.ts";

/** Sequences in a block; part of the file format. */
export const BLOCK_ROWS = 1_024;

export const blockOf = (seq: number): number => Math.floor(seq / BLOCK_ROWS);

/** What a value in the table `places` is. */
export const PLACE = { queue: 0, name: 1 } as const;
type PlaceKind = (typeof PLACE)[keyof typeof PLACE];

type Counts = [number, number, number, number, number];

interface Block {
  readonly number: number;
  /** By status. */
  readonly counts: Counts;
  total: number;
  /** The table has a row of it. */
  written: boolean;
  dirty: boolean;
}

interface BlockRow {
  readonly block: number;
  readonly pending: number;
  readonly running: number;
  readonly completed: number;
  readonly failed: number;
  readonly cancelled: number;
}

export class Blocks {
  /** Ascending: a block is begun by the greatest sequence of its time, and gone for ever once it was left empty. */
  readonly #blocks = new Map<number, Block>();
  readonly #dirty: Block[] = [];
  /** The one used last: neighbours come together. */
  #last: Block | null = null;
  /** What `places` says of the block of the newest task. */
  #newest = -1;
  readonly #queues = new Set<string>();
  readonly #names = new Set<string>();

  readonly #save: Statement<unknown, number[]>;
  readonly #drop: Statement<unknown, [number]>;
  readonly #place: Statement<unknown, [PlaceKind, string, number]>;
  readonly #dropPlaces: Statement<unknown, [number]>;

  constructor(db: Database) {
    this.#save = db.prepare(
      "INSERT OR REPLACE INTO blocks (block, pending, running, completed, failed, cancelled) VALUES (?, ?, ?, ?, ?, ?)",
    );
    this.#drop = db.prepare("DELETE FROM blocks WHERE block = ?");
    this.#place = db.prepare("INSERT INTO places (kind, value, block) VALUES (?, ?, ?)");
    this.#dropPlaces = db.prepare("DELETE FROM places WHERE block = ?");
    const rows = db.query<BlockRow, []>(
      "SELECT block, pending, running, completed, failed, cancelled FROM blocks ORDER BY block",
    );
    for (const { block, pending, running, completed, failed, cancelled } of rows.iterate()) {
      const counts: Counts = [pending, running, completed, failed, cancelled];
      const total = pending + running + completed + failed + cancelled;
      this.#blocks.set(block, { number: block, counts, total, written: true, dirty: false });
      this.#newest = block;
    }
    const places = db.query<{ kind: PlaceKind; value: string }, [number]>(
      "SELECT kind, value FROM places WHERE block = ?",
    );
    for (const { kind, value } of places.iterate(this.#newest)) {
      (kind === PLACE.queue ? this.#queues : this.#names).add(value);
    }
  }

  /** A new row, with a greater sequence than any before. */
  added({ seq, status, queue, name }: TaskRow): void {
    const block = this.#of(seq);
    block.counts[status]++;
    block.total++;
    this.#touch(block);
    if (block.number !== this.#newest) {
      this.#newest = block.number;
      this.#queues.clear();
      this.#names.clear();
    }
    if (!this.#queues.has(queue)) {
      this.#queues.add(queue);
      this.#place.run(PLACE.queue, queue, block.number);
    }
    if (!this.#names.has(name)) {
      this.#names.add(name);
      this.#place.run(PLACE.name, name, block.number);
    }
  }

  /** The row has its new status already. */
  moved({ seq, status }: TaskRow, from: StatusCode): void {
    if (status === from) return;
    const block = this.#of(seq);
    block.counts[from]--;
    block.counts[status]++;
    this.#touch(block);
  }

  /** The row is deleted. Returns how many rows of other tables went with it. */
  removed({ seq, status }: TaskRow): number {
    const block = this.#of(seq);
    block.counts[status]--;
    block.total--;
    this.#touch(block);
    if (block.total > 0) return 0;
    this.#blocks.delete(block.number);
    this.#last = null;
    if (block.number === this.#newest) {
      this.#newest = -1;
      this.#queues.clear();
      this.#names.clear();
    }
    if (block.written) this.#drop.run(block.number);
    return this.#dropPlaces.run(block.number).changes;
  }

  /** First block from `from` on that holds a row of this status; null: none does. */
  nextWith(status: StatusCode, from: number): number | null {
    for (const { number, counts } of this.#blocks.values()) {
      if (number >= from && counts[status] > 0) return number;
    }
    return null;
  }

  /** Writes what has changed. */
  save(): void {
    for (const block of this.#dirty) {
      block.dirty = false;
      if (block.total === 0) continue;
      block.written = true;
      this.#save.run(block.number, ...block.counts);
    }
    this.#dirty.length = 0;
  }

  #of(seq: number): Block {
    const number = blockOf(seq);
    if (this.#last?.number === number) return this.#last;
    let block = this.#blocks.get(number);
    if (block === undefined) {
      block = { number, counts: [0, 0, 0, 0, 0], total: 0, written: false, dirty: false };
      this.#blocks.set(number, block);
    }
    this.#last = block;
    return block;
  }

  #touch(block: Block): void {
    if (block.dirty) return;
    block.dirty = true;
    this.#dirty.push(block);
  }
}
