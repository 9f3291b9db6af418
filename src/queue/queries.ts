/**
 * Lists of tasks: a filter, newest first, in pages. Pure functions over a connection, so that they run on
 * the writer's connection, in memory, or on a reader thread with a read-only one.
 *
 * A list reads in steps of SCAN_STEP rows, each a short statement of its own: a reader that held one
 * snapshot for long would keep the write-ahead log from starting anew (S3). A page therefore is no
 * single snapshot; since the order is that of submission, nothing shows up twice in it.
 */
import type { Database } from "bun:sqlite";
import { cutText } from "./cut.ts";
import { COLUMNS, detailCode, PAYLOAD, statusCode, type TaskRow, toTask } from "./rows.ts";
import type { TaskFilter, TaskPage } from "./service.ts";
import { LIMITS, type Settings, type Task } from "./types.ts";

/** Rows that one statement may look at: a few milliseconds. */
export const SCAN_STEP = 10_000;
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
  const scan = scanOf(filter);
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
    const bottom = scanBottom(db, scan, floor, below);
    if (bottom === null) return { tasks, next: null };
    const { rows, leaseMs } = readStep(db, [scan, rest], bottom, below, max - tasks.length + 1);
    for (const row of rows) {
      const size = (row.payload?.length ?? 0) + (row.result?.length ?? 0);
      const full = tasks.length > 0 && text + size > PAGE_TEXT_MAX;
      if (tasks.length === max || full) return { tasks, next: formCursor(below) };
      tasks.push(toTask(row, leaseMs));
      text += size;
      below = row.seq;
    }
    below = bottom;
  }
  return { tasks, next: formCursor(below) };
}

/** Lowest sequence of the next SCAN_STEP rows below `below`; null: there are none. */
function scanBottom(db: Database, scan: Where, floor: number, below: number): number | null {
  const row = db
    .query<{ bottom: number | null }, Value[]>(
      `SELECT min(seq) AS bottom FROM (SELECT t.seq FROM tasks t WHERE ${scan.sql} AND t.seq > ? AND t.seq < ?
         ORDER BY t.seq DESC LIMIT ${SCAN_STEP})`,
    )
    .get(...scan.values, floor, below);
  return row?.bottom ?? null;
}

/** Matching rows from `bottom` up to below `below`, newest first, without those that a clear made vanish. */
function readStep(
  db: Database,
  [scan, rest]: readonly [Where, Where],
  bottom: number,
  below: number,
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
        `SELECT ${COLUMNS} FROM tasks t WHERE ${scan.sql} AND ${rest.sql}${visible}
         AND t.seq >= ? AND t.seq < ? ORDER BY t.seq DESC LIMIT ?`,
      )
      .all(...scan.values, ...rest.values, bottom, below, max);
    return { rows, leaseMs: settings.lease };
  };
  // One snapshot for the watermarks and the rows.
  return db.inTransaction ? read() : db.transaction(read).deferred();
}

/** The one condition that an index over (column, seq) serves; the rest is tested row by row. */
function scanOf(filter: TaskFilter): Where {
  if (filter.name !== undefined) return { sql: "t.name = ?", values: [filter.name] };
  const only = filter.statuses?.length === 1 ? filter.statuses[0] : undefined;
  if (only !== undefined) return { sql: "t.status = ?", values: [statusCode(only)] };
  if (filter.queue !== undefined) return { sql: "t.queue = ?", values: [filter.queue] };
  return { sql: "1", values: [] };
}

/** Unary plus keeps the planner from choosing another index than the scan's. */
function restOf(filter: TaskFilter): Where {
  const parts: string[] = ["1"];
  const values: Value[] = [];
  const anyOf = (column: string, codes: readonly number[]): void => {
    parts.push(codes.length === 0 ? "0" : `${column} IN (${codes.map(() => "?").join(", ")})`);
    values.push(...codes);
  };
  if (filter.statuses !== undefined) anyOf("+t.status", filter.statuses.map(statusCode));
  if (filter.details !== undefined) anyOf("+t.detail", filter.details.map(detailCode));
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
