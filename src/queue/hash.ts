/**
 * A hash over the logical rows (T9): equal histories give equal hashes however the rows lie on their
 * pages. Texts made for people (messages and stacks of errors) are left out, so that a reworded message
 * of another build is no divergence.
 */
import type { Database } from "bun:sqlite";

/** Each query lists its rows completely and in a total order. */
const QUERIES: readonly string[] = [
  `SELECT machine_version, cluster_id, settings, applied_index, applied_term, log_time, changed, fence, seq,
     ready_seq, leadership, takeovers, pending, running, completed, failed, cancelled, idempotency_keys, chain FROM state`,
  `SELECT seq, id, name, queue, status, detail, priority, created_at, run_at, due_at, ready_seq, started_at,
     completed_at, retries, max_retries, attempt, crashes, releases, timeout_ms, retry, body_hash, version,
     changed, fence, worker, principal, member, boot, confirmed, seen, log_rows, log_bytes, progress,
     json_extract(last_error, '$.type'), json_extract(last_error, '$.retryable'), large, payload, result
   FROM tasks ORDER BY seq`,
  "SELECT seq, payload FROM payloads ORDER BY seq",
  `SELECT seq, attempt, fence, worker, principal, started_at, finished_at, outcome, by_worker,
     json_extract(error, '$.type') FROM attempts ORDER BY seq, attempt`,
  "SELECT seq, n, attempt, at, lines FROM logs ORDER BY seq, n",
  "SELECT status, watermark, ready_watermark, cursor, until FROM clears ORDER BY status",
  "SELECT member, boot, below, closed FROM sessions ORDER BY member",
  "SELECT member, entry, last FROM answers ORDER BY member, entry",
  "SELECT fence, worker, request, at, seqs FROM claims ORDER BY fence",
  "SELECT principal, route, key, hash, expires_at FROM idempotency ORDER BY principal, route, key",
  "SELECT id, expires_at FROM tombstones ORDER BY id",
  "SELECT name FROM named ORDER BY name",
];

/** SHA-256, hex. Reads every row: for checks and tests, not for the hot path. */
export function logicalHash(db: Database): string {
  const hasher = new Bun.CryptoHasher("sha256");
  for (const [i, sql] of QUERIES.entries()) {
    hasher.update(`#${i}\n`);
    const statement = db.prepare<unknown, []>(sql);
    for (const row of statement.values()) hasher.update(`${JSON.stringify(row)}\n`);
    statement.finalize();
  }
  return hasher.digest("hex");
}
