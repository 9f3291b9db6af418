/**
 * Progress and log lines of running attempts. The lines of one report are one row; an attempt's lines are
 * cut, and marked, where they pass their limit.
 */
import type { Database, Statement } from "bun:sqlite";
import { cutProgress, cutText, utf8Length } from "./cut.ts";
import { RUNNING, type TaskRow } from "./rows.ts";
import { INTEGER } from "./schema.ts";
import type { LogPage } from "./state.ts";
import type { TaskStore } from "./store.ts";
import {
  LIMITS,
  type LeaseEndAnswer,
  type LeaseRef,
  type LogLine,
  type Progress,
} from "./types.ts";

const LOG_CUT_MARK = "… [log cut]";

/** A cursor that this build did not make. */
export class BadCursor extends Error {
  override name = "BadCursor";
}

interface LogRow {
  readonly n: number;
  readonly attempt: number;
  readonly at: number;
  readonly lines: string;
}

export class Reports {
  readonly #insertLines: Statement<unknown, [number, number, number, number, string]>;
  readonly #lines: Statement<LogRow, [number, number, number]>;

  constructor(db: Database) {
    this.#insertLines = db.prepare(
      "INSERT INTO logs (seq, n, attempt, at, lines) VALUES (?, ?, ?, ?, ?)",
    );
    this.#lines = db.prepare(
      `SELECT n, attempt, at, lines FROM logs WHERE seq = ? AND n >= ? ORDER BY n LIMIT ${INTEGER}`,
    );
  }

  /** Checks the lease like an end does, and keeps what was reported. */
  report(
    store: TaskStore,
    row: TaskRow | null,
    worker: string,
    principal: string,
    item: LeaseRef & { readonly progress: Progress | null; readonly lines: readonly string[] },
  ): LeaseEndAnswer {
    if (row === null) return "not-found";
    if (row.status !== RUNNING || row.attempt !== item.attempt || row.fence !== item.fence) {
      return "stale-lease";
    }
    if (row.worker !== worker || row.principal !== principal) return "forbidden";
    const { kept, bytes } = fit(item.lines, row.log_bytes);
    let logRows = row.log_rows;
    if (kept.length > 0) {
      const n = logRows++;
      this.#insertLines.run(row.seq, n, row.attempt, store.moment.now, JSON.stringify(kept));
    }
    const progress =
      item.progress === null ? row.progress : JSON.stringify(cutProgress(item.progress));
    store.report(row, progress, logRows, bytes);
    return "ok";
  }

  /** @throws BadCursor */
  page(row: TaskRow, cursor: string | null, limit: number): LogPage {
    const [from, skip] = cursor === null ? [0, 0] : parseCursor(cursor);
    const max = Math.max(1, Math.min(LIMITS.listLimit, limit));
    const lines: LogLine[] = [];
    // Every row holds at least one line, so `max + 1` rows are enough to fill a page and see beyond it.
    for (const { n, attempt, at, lines: text } of this.#lines.all(row.seq, from, max + 1)) {
      const parsed = JSON.parse(text) as string[];
      for (let i = n === from ? skip : 0; i < parsed.length; i++) {
        if (lines.length === max) return { lines, next: `${n}.${i}` };
        lines.push({ attempt, at, line: parsed[i] ?? "" });
      }
    }
    return { lines, next: null };
  }
}

function parseCursor(cursor: string): [number, number] {
  const match = /^(\d{1,15})\.(\d{1,15})$/.exec(cursor);
  if (match === null) throw new BadCursor(`"${cursor}" is not a cursor of this list`);
  return [Number(match[1]), Number(match[2])];
}

/** As many of `lines` as an attempt with `bytes` already may still keep; past the limit `bytes` stays above it. */
function fit(lines: readonly string[], bytes: number): { kept: string[]; bytes: number } {
  const kept: string[] = [];
  let used = bytes;
  for (const line of lines) {
    if (used > LIMITS.attemptLog) break;
    const left = LIMITS.attemptLog - used;
    // A newline's worth each, so that empty lines count too.
    const size = utf8Length(line) + 1;
    if (size <= left) {
      kept.push(line);
      used += size;
      continue;
    }
    const part = cutText(line, left);
    kept.push(part.length > 0 && left > 32 ? part : LOG_CUT_MARK);
    used = LIMITS.attemptLog + 1;
  }
  return { kept, bytes: used };
}
