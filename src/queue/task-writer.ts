/**
 * Writing rows of the `tasks` table. Most rows are new and of one of two kinds: waiting, or completed at the first
 * attempt. For those only the columns that vary are bound, the rest are constants of the statement, and several
 * rows go in one statement: binding a value costs about as much as storing it.
 */
import type { Database, Statement } from "bun:sqlite";
import { COMPLETED, PENDING, ROW, type TaskRow } from "./rows.ts";

type Value = string | number | null;

/** Rows of one INSERT; more gain nothing that could be measured. */
const ROWS_AT_ONCE = 16;

/** A kind of new rows: the columns that vary in it, and how a row fills them. */
interface Kind {
  readonly columns: readonly string[];
  /** By column: SQL. */
  readonly constants: Readonly<Record<string, string>>;
  readonly bind: (row: TaskRow, into: Value[]) => void;
}

/** Its end is that of its first attempt, and nothing unusual happened on the way. */
const COMPLETED_AT_ONCE: Kind = {
  columns:
    `seq id name queue priority created_at run_at started_at completed_at max_retries attempt timeout_ms retry
    body_hash version changed fence worker principal member boot confirmed seen payload result`.split(
      /\s+/,
    ),
  constants: {
    status: String(COMPLETED),
    retries: "0",
    crashes: "0",
    releases: "0",
    large: "0",
  },
  bind(row, into) {
    into.push(
      row.seq,
      row.id,
      row.name,
      row.queue,
      row.priority,
      row.created_at,
      row.run_at,
      row.started_at,
      row.completed_at,
      row.max_retries,
      row.attempt,
      row.timeout_ms,
      row.retry,
      row.body_hash,
      row.version,
      row.changed,
      row.fence,
      row.worker,
      row.principal,
      row.member,
      row.boot,
      row.confirmed,
      row.seen,
      row.payload,
      row.result,
    );
  },
};

/** Never claimed. */
const NEVER_CLAIMED: Kind = {
  columns:
    `seq id name queue detail priority created_at run_at due_at ready_seq max_retries timeout_ms retry body_hash
    version changed payload`.split(/\s+/),
  constants: {
    status: String(PENDING),
    retries: "0",
    attempt: "0",
    crashes: "0",
    releases: "0",
    large: "0",
  },
  bind(row, into) {
    into.push(
      row.seq,
      row.id,
      row.name,
      row.queue,
      row.detail,
      row.priority,
      row.created_at,
      row.run_at,
      row.due_at,
      row.ready_seq,
      row.max_retries,
      row.timeout_ms,
      row.retry,
      row.body_hash,
      row.version,
      row.changed,
      row.payload,
    );
  },
};

/** What may change in a row's life, but for its result. */
const CHANGING =
  `status detail run_at due_at ready_seq started_at completed_at retries attempt crashes releases version
  changed fence worker principal member boot confirmed seen log_rows log_bytes progress last_error`.split(
    /\s+/,
  );

function bindChanging(row: TaskRow, into: Value[]): void {
  into.push(
    row.status,
    row.detail,
    row.run_at,
    row.due_at,
    row.ready_seq,
    row.started_at,
    row.completed_at,
    row.retries,
    row.attempt,
    row.crashes,
    row.releases,
    row.version,
    row.changed,
    row.fence,
    row.worker,
    row.principal,
    row.member,
    row.boot,
    row.confirmed,
    row.seen,
    row.log_rows,
    row.log_bytes,
    row.progress,
    row.last_error,
  );
}

const ANY: Kind = {
  columns: [
    ..."seq id name queue priority created_at max_retries timeout_ms retry body_hash large payload result".split(
      " ",
    ),
    ...CHANGING,
  ],
  constants: {},
  bind(row, into) {
    into.push(
      row.seq,
      row.id,
      row.name,
      row.queue,
      row.priority,
      row.created_at,
      row.max_retries,
      row.timeout_ms,
      row.retry,
      row.body_hash,
      row.large,
      row.large === 1 ? null : row.payload,
      row.result,
    );
    bindChanging(row, into);
  },
};

/** Nothing happened to it that only {@link ANY} has columns for, if it was never claimed or completed at once. */
const isPlain = (row: TaskRow): boolean =>
  row.large === 0 &&
  row.retries === 0 &&
  row.crashes === 0 &&
  row.releases === 0 &&
  row.log_rows === 0 &&
  row.log_bytes === 0 &&
  row.progress === null &&
  row.last_error === null;

function kindOf(row: TaskRow): Kind {
  if (!isPlain(row)) return ANY;
  if (row.status === COMPLETED && row.due_at === null && row.detail === null)
    return COMPLETED_AT_ONCE;
  const untouched =
    row.attempt === 0 &&
    row.started_at === null &&
    row.completed_at === null &&
    row.worker === null;
  return row.status === PENDING && untouched && row.result === null ? NEVER_CLAIMED : ANY;
}

/** Gathers new rows of a kind, and writes them {@link ROWS_AT_ONCE} at a time. */
class Insert {
  readonly #kind: Kind;
  readonly #one: Statement<unknown, Value[]>;
  readonly #many: Statement<unknown, Value[]>;
  #values: Value[] = [];
  #rows = 0;

  constructor(db: Database, kind: Kind) {
    this.#kind = kind;
    const { columns, constants } = kind;
    const into = [...columns, ...Object.keys(constants)].join(", ");
    const row = `(${[...columns.map(() => "?"), ...Object.values(constants)].join(", ")})`;
    const rows = Array.from({ length: ROWS_AT_ONCE }, () => row).join(", ");
    this.#one = db.prepare(`INSERT INTO tasks (${into}) VALUES ${row}`);
    this.#many = db.prepare(`INSERT INTO tasks (${into}) VALUES ${rows}`);
  }

  add(row: TaskRow): void {
    this.#kind.bind(row, this.#values);
    if (++this.#rows < ROWS_AT_ONCE) return;
    const values = this.#values;
    this.#begin();
    this.#many.run(...values);
  }

  /** Writes what has been gathered. */
  end(): void {
    if (this.#rows === 0) return;
    const values = this.#values;
    const { length } = this.#kind.columns;
    this.#begin();
    for (let from = 0; from < values.length; from += length)
      this.#one.run(...values.slice(from, from + length));
  }

  #begin(): void {
    this.#values = [];
    this.#rows = 0;
  }
}

export class TaskWriter {
  readonly #completed: Insert;
  readonly #waiting: Insert;
  readonly #any: Insert;
  readonly #insertPayload: Statement<unknown, [number, string | null]>;
  readonly #update: Statement<unknown, Value[]>;
  readonly #updateWithResult: Statement<unknown, Value[]>;

  constructor(db: Database) {
    this.#completed = new Insert(db, COMPLETED_AT_ONCE);
    this.#waiting = new Insert(db, NEVER_CLAIMED);
    this.#any = new Insert(db, ANY);
    this.#insertPayload = db.prepare("INSERT INTO payloads (seq, payload) VALUES (?, ?)");
    const changes = CHANGING.map((column) => `${column} = ?`).join(", ");
    this.#update = db.prepare(`UPDATE tasks SET ${changes} WHERE seq = ?`);
    this.#updateWithResult = db.prepare(`UPDATE tasks SET ${changes}, result = ? WHERE seq = ?`);
  }

  /** Writes the row, a new one by the call of {@link end} at the latest, and takes its marks off. */
  write(row: TaskRow): void {
    const { flags } = row;
    row.flags &= ~(ROW.born | ROW.changed | ROW.result);
    if ((flags & ROW.born) === 0) this.#change(row, (flags & ROW.result) !== 0);
    else this.#add(row);
  }

  end(): void {
    this.#completed.end();
    this.#waiting.end();
    this.#any.end();
  }

  #add(row: TaskRow): void {
    switch (kindOf(row)) {
      case COMPLETED_AT_ONCE:
        this.#completed.add(row);
        return;
      case NEVER_CLAIMED:
        this.#waiting.add(row);
        return;
      default:
        this.#any.add(row);
        if (row.large === 1) this.#insertPayload.run(row.seq, row.payload);
    }
  }

  #change(row: TaskRow, withResult: boolean): void {
    const values: Value[] = [];
    bindChanging(row, values);
    if (withResult) values.push(row.result);
    values.push(row.seq);
    (withResult ? this.#updateWithResult : this.#update).run(...values);
  }
}
