/** Runs PASSIVE checkpoints of the state database beside the thread that writes it. */
import { Database } from "bun:sqlite";

declare const self: Worker;

export interface CheckpointResult {
  readonly busy: number;
  /** Pages in the WAL, and how many of them are in the file now. */
  readonly log: number;
  readonly checkpointed: number;
}

let db: Database | null = null;

self.onmessage = ({ data: path }: MessageEvent<string>): void => {
  db ??= new Database(path, { strict: true });
  const result = db.query("PRAGMA wal_checkpoint(PASSIVE)").get() as CheckpointResult | null;
  self.postMessage(result ?? { busy: 1, log: -1, checkpointed: -1 });
};
