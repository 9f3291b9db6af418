/**
 * Entry of the checkpoint thread: runs PASSIVE checkpoints of the state database on a connection of its own.
 * Never TRUNCATE or RESTART: they take the writer's lock, and its next commit would fail or block. A step of the
 * vacuum takes that lock too: the owner holds its applies meanwhile.
 */
import { Database } from "bun:sqlite";
import { isNoRoom } from "../replica/ports.ts";
import type { CheckpointReply, CheckpointRequest } from "./checkpoint-messages.ts";
import { answering } from "./thread.ts";

declare const self: Worker;

/** Applies wait for a step of the vacuum: about so long. */
const VACUUM_STEP_MS = 10;
/** Pages between two looks at the clock. */
const VACUUM_PIECE_PAGES = 128;
/** Free pages that stay: this part of those in use, and at least 1 MiB, so that a state in balance stays as it is. */
const FREE_PART_KEPT = 1 / 8;
const FREE_PAGES_KEPT_MIN = 256;

let open: { readonly path: string; readonly db: Database } | null = null;

function connection(path: string): Database {
  if (open?.path === path) return open.db;
  open?.db.close(true);
  open = null;
  const db = new Database(path, { readwrite: true, create: false, strict: true });
  // This connection's own setting decides whether a checkpoint syncs the WAL before it and the file after it.
  db.run("PRAGMA synchronous = FULL");
  open = { path, db };
  return db;
}

function checkpoint(path: string): CheckpointReply {
  try {
    const db = connection(path);
    const row = db
      .query<{ busy: number; log: number; checkpointed: number }, []>(
        "PRAGMA wal_checkpoint(PASSIVE)",
      )
      .get();
    if (row === null) throw new Error("SQLite did not say what the checkpoint did");
    const { free, kept } = freePages(db);
    return { kind: "checkpointed", ...row, spare: Math.max(0, free - kept) };
  } catch (error) {
    return failed(error);
  }
}

/** One transaction, of as many pages as the time allows. */
function vacuum(path: string): CheckpointReply {
  try {
    const db = connection(path);
    const { free, kept } = freePages(db);
    if (free <= kept) return { kind: "vacuumed", more: false };
    const startedAt = performance.now();
    let left = free;
    db.transaction(() => {
      while (left > kept && performance.now() - startedAt < VACUUM_STEP_MS) {
        db.run(`PRAGMA incremental_vacuum(${Math.min(VACUUM_PIECE_PAGES, left - kept)})`);
        const now = pragma(db, "freelist_count");
        if (now >= left) break;
        left = now;
      }
    }).immediate();
    return { kind: "vacuumed", more: left > kept && left < free };
  } catch (error) {
    return failed(error);
  }
}

function freePages(db: Database): { readonly free: number; readonly kept: number } {
  const free = pragma(db, "freelist_count");
  const used = pragma(db, "page_count") - free;
  return { free, kept: Math.max(FREE_PAGES_KEPT_MIN, Math.floor(used * FREE_PART_KEPT)) };
}

function pragma(db: Database, name: "page_count" | "freelist_count"): number {
  const row = db.query<Record<string, number>, []>(`PRAGMA ${name}`).get();
  const value = row?.[name];
  if (value === undefined) throw new Error(`SQLite does not say its ${name}`);
  return value;
}

function failed(error: unknown): CheckpointReply {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  // A sync that failed once may succeed the second time without having written anything (S6).
  const fatal = code.startsWith("SQLITE_IOERR") || code.startsWith("SQLITE_CORRUPT");
  const message = error instanceof Error ? error.message : String(error);
  return { kind: "failed", message, fatal: fatal && !isNoRoom(error) };
}

const post = answering<CheckpointRequest, CheckpointReply>(self, (request) => {
  switch (request.kind) {
    case "checkpoint":
      post(checkpoint(request.path));
      return;
    case "vacuum":
      post(vacuum(request.path));
      return;
    case "close":
      open?.db.close(true);
      open = null;
      process.exit();
  }
});
