/**
 * Lists of tasks: a filter, newest first, in pages. Pure functions over a connection, so that they run on
 * the writer's connection, in memory, or on a reader thread with a read-only one.
 *
 * A list reads in steps of SCAN_STEP rows, each a short statement of its own: a reader that held one
 * snapshot for long would keep the write-ahead log from starting anew (S3). A page therefore is no
 * single snapshot; since the order is that of submission, nothing shows up twice in it.
 */
import type { Database } from "bun:sqlite";
import { BLOCK_ROWS, blockOf, PLACE } from "./blocks.ts";
import { cutText } from "./cut.ts";
import { COLUMNS, detailCode, PAYLOAD, statusCode, type TaskRow, toTask } from "./rows.ts";
import type { TaskFilter, TaskPage } from "./service.ts";
import { LIMITS, type Settings, type Task } from "./types.ts";

/** Rows that one statement may look at: a few milliseconds. */
export const SCAN_STEP = 10 * BLOCK_ROWS;
/** Steps of one page: a filter that finds little gives a short page and a cursor to go on, not a long wait. */
const SCAN_STEPS_MAX = 100;
/** Bodies in one page, in characters; it always holds one task at least. */
const PAGE_TEXT_MAX = 8 * 1024 * 1024;

/** A filter or cursor that cannot be understood; the message is for the caller. */
export class BadFilter extends Error {
  override name = "BadFilter";
}

type Value = string | number | null;

/** Conditions joined by AND, with the values of their parameters. */
interface Where {
  readonly sql: string;
  readonly values: readonly Value[];
}

/**
 * One page. `betweenSteps` runs after each statement; a reader thread gives way to a checkpoint there.
 * @throws BadFilter
 */
export function listTasks(
  db: Database,
  filter: TaskFilter,
  limit: number,
  cursor: string | null,
  betweenSteps: () => void = () => {},
): TaskPage {
  const max = Math.max(1, Math.min(LIMITS.listLimit, Math.trunc(limit) || 0));
  const blocks = blocksOf(filter);
  const rest = restOf(filter);
  const floor = filter.createdAfter === undefined ? 0 : seqBefore(db, filter.createdAfter + 1);
  let below = cursor === null ? Number.MAX_SAFE_INTEGER : parseCursor(cursor);
  if (filter.createdBefore !== undefined) {
    below = Math.min(below, seqBefore(db, filter.createdBefore) + 1);
  }
  const tasks: Task[] = [];
  let text = 0;
  for (let step = 0; step < SCAN_STEPS_MAX; step++) {
    if (step > 0) betweenSteps();
    const scan = nextScan(db, blocks, floor + 1, below);
    if (scan === null) return { tasks, next: null };
    const { rows, leaseMs } = readStep(db, rest, scan, max - tasks.length + 1);
    for (const row of rows) {
      const size = (row.payload?.length ?? 0) + (row.result?.length ?? 0);
      const full = tasks.length > 0 && text + size > PAGE_TEXT_MAX;
      if (tasks.length === max || full) return { tasks, next: formCursor(below) };
      tasks.push(toTask(row, leaseMs));
      text += size;
      below = row.seq;
    }
    below = scan.bottom;
  }
  return { tasks, next: formCursor(below) };
}

/** Where blocks are found: what follows FROM; further conditions are added by AND. `by`: the block's number. */
interface BlockSource extends Where {
  readonly by: string;
}

/** Sequences that one statement looks at, from `bottom` up to below `top`. */
interface Scan {
  readonly bottom: number;
  readonly top: number;
}

/**
 * The next sequences below `below`, down to `lowest`, that may match: neighbouring blocks, {@link SCAN_STEP} at most.
 * Null: nothing is left to look at.
 */
function nextScan(db: Database, blocks: BlockSource, lowest: number, below: number): Scan | null {
  if (below <= lowest) return null;
  const found = db
    .query<{ block: number }, Value[]>(
      `SELECT b.block FROM ${blocks.sql} AND ${blocks.by} >= ? AND ${blocks.by} <= ? ORDER BY ${blocks.by} DESC LIMIT ?`,
    )
    .all(...blocks.values, blockOf(lowest), blockOf(below - 1), SCAN_STEP / BLOCK_ROWS);
  const first = found[0]?.block;
  if (first === undefined) return null;
  let last = first;
  for (const { block } of found.slice(1)) {
    if (block !== last - 1) break;
    last = block;
  }
  return {
    bottom: Math.max(lowest, last * BLOCK_ROWS),
    top: Math.min(below, (first + 1) * BLOCK_ROWS),
  };
}

/** Matching rows of the scan, newest first, without those that a clear made vanish. */
function readStep(
  db: Database,
  rest: Where,
  { bottom, top }: Scan,
  max: number,
): { rows: TaskRow[]; leaseMs: number } {
  const read = (): { rows: TaskRow[]; leaseMs: number } => {
    const state = db
      .query<{ settings: string; clearing: number }, []>(
        "SELECT settings, EXISTS (SELECT 1 FROM clears) AS clearing FROM state",
      )
      .get();
    const visible =
      state?.clearing === 1
        ? " AND NOT EXISTS (SELECT 1 FROM clears c WHERE c.status = t.status AND t.changed <= c.watermark)"
        : "";
    const settings = JSON.parse(state?.settings ?? "{}") as Settings;
    const rows = db
      .query<TaskRow, Value[]>(
        `SELECT ${COLUMNS} FROM tasks t WHERE ${rest.sql}${visible}
         AND t.seq >= ? AND t.seq < ? ORDER BY t.seq DESC LIMIT ?`,
      )
      .all(...rest.values, bottom, top, max);
    return { rows, leaseMs: settings.lease };
  };
  // One snapshot for the watermarks and the rows.
  return db.inTransaction ? read() : db.transaction(read).deferred();
}

/** Blocks that may hold a match (blocks.ts). */
function blocksOf({ name, queue, statuses }: TaskFilter): BlockSource {
  const counted = statuses?.map((status) => `b.${status.toLowerCase()}`) ?? [];
  const holds =
    statuses === undefined ? "1" : counted.length === 0 ? "0" : `${counted.join(" + ")} > 0`;
  const [kind, value] = name === undefined ? [PLACE.queue, queue] : [PLACE.name, name];
  if (value === undefined) return { sql: `blocks b WHERE ${holds}`, by: "b.block", values: [] };
  return {
    sql: `places p CROSS JOIN blocks b WHERE p.kind = ? AND p.value = ? AND b.block = p.block AND ${holds}`,
    by: "p.block",
    values: [kind, value],
  };
}

/** What a row has to be. Unary plus keeps the planner off indexes: a scan goes by sequence. */
function restOf(filter: TaskFilter): Where {
  const parts: string[] = ["1"];
  const values: Value[] = [];
  const anyOf = (column: string, codes: readonly number[]): void => {
    parts.push(codes.length === 0 ? "0" : `${column} IN (${codes.map(() => "?").join(", ")})`);
    values.push(...codes);
  };
  if (filter.statuses !== undefined) anyOf("+t.status", filter.statuses.map(statusCode));
  if (filter.details !== undefined) anyOf("+t.detail", filter.details.map(detailCode));
  if (filter.name !== undefined) {
    parts.push("+t.name = ?");
    values.push(filter.name);
  }
  if (filter.queue !== undefined) {
    parts.push("+t.queue = ?");
    values.push(filter.queue);
  }
  if (filter.q !== undefined && filter.q !== "") {
    const characters = Array.from(filter.q).length;
    parts.push("(substr(t.id, 1, ?) = ? OR substr(t.name, 1, ?) = ?)");
    values.push(characters, filter.q.toLowerCase(), characters, filter.q);
  }
  for (const { path, value } of filter.payload ?? []) {
    const equal = jsonPaths(path).map((jsonPath) => payloadEquals(jsonPath, value));
    parts.push(`(${equal.map((where) => where.sql).join(" OR ")})`);
    for (const where of equal) values.push(...where.values);
  }
  return { sql: parts.join(" AND "), values };
}

/** Ends or escapes the quoted name in a JSON path of SQLite, or ends the whole text. */
const UNQUOTABLE = /["\\\0]/;

/** SQLite paths for a dotted one: a number may be a key of an object or a place in an array. */
function jsonPaths(path: string): string[] {
  const segments = path.split(".");
  if (path === "" || segments.some((segment) => segment === "" || UNQUOTABLE.test(segment))) {
    throw new BadFilter(`"${cutText(path, 100)}" is not a path into a payload: a.b.c`);
  }
  const keys = `$${segments.map((segment) => `."${segment}"`).join("")}`;
  const places = `$${segments
    .map((segment) => (/^\d{1,9}$/.test(segment) ? `[${segment}]` : `."${segment}"`))
    .join("")}`;
  return keys === places ? [keys] : [keys, places];
}

/** JSON deeper than SQLite's parser goes is valid elsewhere; it matches nothing instead of failing the list. */
function payloadEquals(path: string, value: string): Where {
  const number = /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/.test(value) ? Number(value) : null;
  return {
    sql: `CASE WHEN ${PAYLOAD} IS NOT NULL AND json_valid(${PAYLOAD}) THEN
        CASE json_type(${PAYLOAD}, ?)
          WHEN 'text' THEN json_extract(${PAYLOAD}, ?) = ?
          WHEN 'integer' THEN json_extract(${PAYLOAD}, ?) = ?
          WHEN 'real' THEN json_extract(${PAYLOAD}, ?) = ?
          WHEN 'true' THEN ? = 'true'
          WHEN 'false' THEN ? = 'false'
          WHEN 'null' THEN ? = 'null'
          ELSE 0 END
      ELSE 0 END`,
    values: [path, path, value, path, number, path, number, value, value, value],
  };
}

/** Largest sequence whose task was created before `time` (log time grows with the sequence); 0: none. */
function seqBefore(db: Database, time: number): number {
  const atOrBelow = db.query<{ seq: number; created_at: number }, [number]>(
    "SELECT seq, created_at FROM tasks WHERE seq <= ? ORDER BY seq DESC LIMIT 1",
  );
  let low = 0;
  let high = atOrBelow.get(Number.MAX_SAFE_INTEGER)?.seq ?? 0;
  while (low < high) {
    const middle = low + Math.ceil((high - low) / 2);
    const row = atOrBelow.get(middle);
    if (row === null) low = middle;
    else if (row.created_at < time) {
      // Sequences between `row.seq` and `middle` are gone: all of them count as before.
      low = middle;
    } else high = row.seq - 1;
  }
  return low;
}

function formCursor(below: number): string {
  return Buffer.from(`s${below}`, "latin1").toString("base64url");
}

function parseCursor(cursor: string): number {
  const match = /^s(\d{1,16})$/.exec(Buffer.from(cursor, "base64url").toString("latin1"));
  const below = Number(match?.[1] ?? Number.NaN);
  if (!Number.isSafeInteger(below)) {
    throw new BadFilter(`"${cutText(cursor, 100)}" is not a cursor of this list`);
  }
  return below;
}
