/**
 * Whether rows of the tasks are where the indexes say: SQLite keeps no checksum of its pages, and a check of a whole
 * database is one long read. So the audit looks for the rows of each slice in every index of the tasks, in the same
 * snapshot. It finds entries that are missing or lead to another row, which is what answers wrongly: a task that is
 * "not there", taken twice, never due. It does not look for entries beyond those.
 */
import type { Database } from "bun:sqlite";

/** INDEXED BY: without it SQLite would go by the row's own number, and never see the index. */
const MISPLACED = `
SELECT CASE
  WHEN (SELECT i.seq FROM tasks AS i WHERE i.id = t.id) IS NOT t.seq THEN 'id'
  WHEN t.status = 1 AND NOT EXISTS (
    SELECT 1 FROM tasks AS i INDEXED BY tasks_running WHERE i.status = 1 AND i.seq = t.seq) THEN 'tasks_running'
  WHEN t.ready_seq IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM tasks AS i INDEXED BY tasks_ready
    WHERE i.queue = t.queue AND i.name = t.name AND i.priority = t.priority AND i.ready_seq = t.ready_seq
      AND i.seq = t.seq) THEN 'tasks_ready'
  WHEN t.due_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM tasks AS i INDEXED BY tasks_due WHERE i.due_at = t.due_at AND i.seq = t.seq) THEN 'tasks_due'
  WHEN t.completed_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM tasks AS i INDEXED BY tasks_final
    WHERE i.status = t.status AND i.completed_at = t.completed_at AND i.seq = t.seq) THEN 'tasks_final'
  END AS "index", t.seq AS seq
FROM tasks AS t NOT INDEXED
WHERE t.seq > ? AND t.seq <= ? AND "index" IS NOT NULL LIMIT 1`;

/** Looked up without a rest: some tenths of a millisecond. */
const PIECE_ROWS = 250;
const PIECE = `
SELECT max(seq) AS last FROM (
  SELECT seq FROM tasks NOT INDEXED WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ${PIECE_ROWS})`;

/**
 * A sentence when a task with a sequence in (after, until] is not found by one of the indexes; null: all are.
 * `between` is called after each piece of them.
 */
export function indexFault(
  db: Database,
  after: number,
  until: number,
  between: () => void = () => undefined,
): string | null {
  const piece = db.query<{ last: number | null }, [number, number]>(PIECE);
  const misplaced = db.query<{ index: string; seq: number }, [number, number]>(MISPLACED);
  for (let from = after; ;) {
    const last = piece.get(from, until)?.last ?? null;
    if (last === null) return null;
    const found = misplaced.get(from, last);
    if (found !== null) return `the index ${found.index} of the tasks lacks row ${found.seq}`;
    from = last;
    between();
  }
}
