/**
 * Entry of the checkpoint thread: runs PASSIVE checkpoints of the state database on a connection of its own.
 * Never TRUNCATE or RESTART: they take the writer's lock, and its next commit would fail or block.
 */
import { Database } from "bun:sqlite";
import type { CheckpointReply, CheckpointRequest } from "./checkpoint-messages.ts";

declare const self: Worker;

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
    const row = connection(path)
      .query<{ busy: number; log: number; checkpointed: number }, []>(
        "PRAGMA wal_checkpoint(PASSIVE)",
      )
      .get();
    if (row === null) throw new Error("SQLite did not say what the checkpoint did");
    return { kind: "checkpointed", ...row };
  } catch (error) {
    return { kind: "failed", message: error instanceof Error ? error.message : String(error) };
  }
}

self.onmessage = ({ data: request }: MessageEvent<CheckpointRequest>): void => {
  switch (request.kind) {
    case "checkpoint":
      self.postMessage(checkpoint(request.path));
      return;
    case "close":
      open?.db.close(true);
      open = null;
      self.terminate();
  }
};
