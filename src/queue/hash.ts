/**
 * A hash over the logical rows (T9): equal histories give equal hashes however the rows lie on their
 * pages. Texts made for people (messages and stacks of errors) are left out, so that a reworded message
 * of another build is no divergence.
 *
 * Reads rows, so it sees what the rolling hash (chain.ts) does not: what has changed on the disk since it was
 * written. The whole at once is for tests; an audit reads slice after slice (auditor.ts).
 */
import type { Database } from "bun:sqlite";

interface HashedTable {
  readonly name: string;
  /** Its rows' total order; they come first in what is read. */
  readonly key: readonly string[];
  readonly rest: readonly string[];
}

const TABLES: readonly HashedTable[] = [
  table(
    "state",
    "one",
    `machine_version cluster_id settings applied_index applied_term log_time changed fence seq ready_seq leadership
     takeovers pending running completed failed cancelled idempotency_keys chain`,
  ),
  table(
    "tasks",
    "seq",
    `id name queue status detail priority created_at run_at due_at ready_seq started_at completed_at retries
     max_retries attempt crashes releases timeout_ms retry body_hash version changed fence worker principal member
     boot confirmed seen log_rows log_bytes progress json_extract(last_error,'$.type')
     json_extract(last_error,'$.retryable') large payload result`,
  ),
  table("blocks", "block", "pending running completed failed cancelled"),
  table("places", "kind value block", ""),
  table("payloads", "seq", "payload"),
  table(
    "attempts",
    "seq attempt",
    "fence worker principal started_at finished_at outcome by_worker json_extract(error,'$.type')",
  ),
  table("logs", "seq n", "attempt at lines"),
  table("clears", "status", "watermark ready_watermark cursor until"),
  table("sessions", "member", "boot below closed"),
  table("answers", "member entry", "last"),
  table("claims", "fence", "worker request at seqs"),
  table("idempotency", "principal route key", "hash expires_at"),
  table("tombstones", "id", "expires_at"),
  table("named", "name", ""),
];

const TASKS = TABLES.findIndex(({ name }) => name === "tasks");

/** Read at once: a row may hold a payload and a result of the greatest size. */
const CHUNK_ROWS = 100;

/** Some rows' hash, and where the next ones begin. */
export interface HashSlice {
  /** SHA-256, hex. */
  readonly digest: string;
  /** For the next call; null: these were the last rows. */
  readonly next: string | null;
  readonly rows: number;
}

export interface SliceLimits {
  readonly rows: number;
  /** Characters of the rows' text; a slice ends behind the row that passes it. */
  readonly text: number;
}

/** SHA-256, hex. Reads every row: for checks and tests, not for the hot path. */
export function logicalHash(db: Database): string {
  const everything = { rows: Number.MAX_SAFE_INTEGER, text: Number.MAX_SAFE_INTEGER };
  return hashSlice(db, null, everything).digest;
}

/**
 * Hashes the rows behind `cursor` (null: from the first), table by table. A function of the rows alone: two equal
 * states give equal slices. `between` is called after each chunk of rows that others follow.
 * @throws Error for a cursor that was not given by an equal build
 */
export function hashSlice(
  db: Database,
  cursor: string | null,
  limits: SliceLimits,
  between: () => void = () => undefined,
): HashSlice {
  const hasher = new Bun.CryptoHasher("sha256");
  let { at, after } = parseCursor(cursor);
  let rows = 0;
  let text = 0;
  /** Not hashed yet: one call for many rows. */
  let lines = "";
  for (; at < TABLES.length; at++, after = null) {
    const found = TABLES[at];
    if (found === undefined) break;
    lines += `#${at}\n`;
    for (;;) {
      const chunk = readChunk(db, found, after);
      for (const row of chunk) {
        const line = JSON.stringify(row);
        lines += `${line}\n`;
        rows += 1;
        text += line.length;
        if (rows < limits.rows && text < limits.text) continue;
        hasher.update(lines);
        const next = JSON.stringify([at, ...keyOf(row, found)]);
        return { digest: hasher.digest("hex"), next, rows };
      }
      const last = chunk.at(-1);
      if (last === undefined || chunk.length < CHUNK_ROWS) break;
      hasher.update(lines);
      lines = "";
      after = keyOf(last, found);
      between();
    }
  }
  hasher.update(lines);
  return { digest: hasher.digest("hex"), next: null, rows };
}

/** Sequences of the tasks between two cursors, the first exclusive; null: there is none among those rows. */
export function sequencesBetween(
  cursor: string | null,
  next: string | null,
): { readonly after: number; readonly until: number } | null {
  const begin = parseCursor(cursor);
  const end = next === null ? { at: TABLES.length, after: null } : parseCursor(next);
  if (begin.at > TASKS || end.at < TASKS) return null;
  return {
    after: begin.at === TASKS ? Number(begin.after?.[0] ?? 0) : 0,
    until: end.at === TASKS ? Number(end.after?.[0] ?? 0) : Number.MAX_SAFE_INTEGER,
  };
}

type Row = readonly (string | number | null)[];

function keyOf(row: Row, { key }: HashedTable): (string | number)[] {
  return row.slice(0, key.length) as (string | number)[];
}

function readChunk(db: Database, from: HashedTable, after: (string | number)[] | null): Row[] {
  const statement = db.query<unknown, (string | number)[]>(sqlOf(from, after !== null));
  return statement.values(...(after ?? [])) as Row[];
}

function table(name: string, key: string, rest: string): HashedTable {
  return { name, key: key.split(" "), rest: rest.split(/\s+/).filter((column) => column !== "") };
}

function sqlOf({ name, key, rest }: HashedTable, continued: boolean): string {
  const keys = key.join(", ");
  const behind = continued ? ` WHERE (${keys}) > (${key.map(() => "?").join(", ")})` : "";
  return `SELECT ${[...key, ...rest].join(", ")} FROM ${name}${behind} ORDER BY ${keys} LIMIT ${CHUNK_ROWS}`;
}

function parseCursor(cursor: string | null): { at: number; after: (string | number)[] | null } {
  if (cursor === null) return { at: 0, after: null };
  const parsed: unknown = JSON.parse(cursor);
  const [at, ...after] = Array.isArray(parsed) ? (parsed as unknown[]) : [];
  const key = after.filter((value) => typeof value === "string" || typeof value === "number");
  const found = typeof at === "number" ? TABLES[at] : undefined;
  if (typeof at !== "number" || key.length !== found?.key.length)
    throw new Error("no cursor of an audit");
  return { at, after: key };
}
