/**
 * Entry of the audit thread: hashes some rows on a read-only connection, as of the moment at which it says that it
 * has begun, and looks for them in the indexes. Between two slices it holds nothing open.
 */
import { Database } from "bun:sqlite";
import type { AuditReply, AuditRequest } from "./audit-messages.ts";
import { AUDIT_SLICE } from "./auditor.ts";
import { hashSlice, sequencesBetween } from "./hash.ts";
import { indexFault } from "./index-check.ts";

declare const self: Worker;

/**
 * After each piece of a slice the thread rests for so many times what it worked. All members read the same slice at the
 * same moment: on cores that they share, each would wait for the others' 10 ms, once a second.
 */
const REST_FACTOR = 3;
/** Of a slice, together: its snapshot keeps checkpoints from their end, and the WAL from starting over. */
const REST_MAX_MS = 150;
const never = new Int32Array(new SharedArrayBuffer(4));

let db: Database | null = null;

function say(reply: AuditReply): void {
  self.postMessage(reply);
}

function read({ id, cursor }: Extract<AuditRequest, { kind: "read" }>): void {
  if (db === null) {
    say({ kind: "failed", id, message: "the audit has no database", damaged: false });
    return;
  }
  // Said when the transaction is over: whoever hears it may count on that, and a checkpoint may begin.
  let reply: AuditReply;
  try {
    reply = slice(db, id, cursor);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    reply = { kind: "failed", id, message, damaged: isMalformed(error) };
  }
  try {
    if (db.inTransaction) db.run("COMMIT");
  } finally {
    say(reply);
  }
}

function slice(from: Database, id: number, cursor: string | null): AuditReply {
  from.run("BEGIN");
  // The first statement takes the snapshot.
  const state = from.query<{ index: number }, []>("SELECT applied_index AS 'index' FROM state");
  say({ kind: "begun", id, index: state.get()?.index ?? 0 });
  const rest = resting();
  const rows = hashSlice(from, cursor, AUDIT_SLICE, rest);
  const range = sequencesBetween(cursor, rows.next);
  const fault = range === null ? null : indexFault(from, range.after, range.until, rest);
  if (fault !== null) return { kind: "failed", id, message: fault, damaged: true };
  return { kind: "slice", id, ...rows };
}

/** To be called after each piece of work. */
function resting(): () => void {
  let since = performance.now();
  let left = REST_MAX_MS;
  return () => {
    const rest = Math.min(left, (performance.now() - since) * REST_FACTOR);
    left -= rest;
    Atomics.wait(never, 0, 0, rest);
    since = performance.now();
  };
}

function isMalformed(error: unknown): boolean {
  if (!(error instanceof Error) || !("code" in error)) return false;
  return /^SQLITE_(?:CORRUPT|NOTADB)/.test(String(error.code));
}

self.onmessage = (event: MessageEvent<AuditRequest>): void => {
  const request = event.data;
  switch (request.kind) {
    case "open":
      db = new Database(request.path, { readonly: true });
      return;
    case "read":
      read(request);
      return;
    case "close":
      db?.close();
      db = null;
      process.exit();
  }
};
