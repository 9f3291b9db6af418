/**
 * Entry of the reader thread: lists run here, on a read-only connection, so that a long one never holds
 * up the thread that ticks. It does not write, and pauses between statements while a checkpoint asks.
 */
import { Database } from "bun:sqlite";
import { BadFilter, listTasks } from "./queries.ts";
import type { ReaderReply, ReaderRequest } from "./reader-messages.ts";

declare const self: Worker;

/** A checkpoint that forgot to lift its flag must not stop reading for good. */
const PAUSE_MAX_MS = 250;

let db: Database | null = null;
let pause: Int32Array | null = null;

function giveWay(): void {
  if (pause !== null) Atomics.wait(pause, 0, 1, PAUSE_MAX_MS);
}

function answer(request: Extract<ReaderRequest, { kind: "list" }>): ReaderReply {
  const { id, filter, limit, cursor } = request;
  try {
    if (db === null) throw new Error("the reader has no database");
    giveWay();
    return { kind: "page", id, page: listTasks(db, filter, limit, cursor, giveWay) };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { kind: "failed", id, bad: error instanceof BadFilter, message };
  }
}

self.onmessage = (event: MessageEvent<ReaderRequest>): void => {
  const request = event.data;
  switch (request.kind) {
    case "open":
      db = new Database(request.setup.path, { readonly: true });
      db.run("PRAGMA busy_timeout = 1000");
      pause = request.setup.pause === null ? null : new Int32Array(request.setup.pause);
      return;
    case "list":
      self.postMessage(answer(request));
      return;
    case "close":
      db?.close();
      db = null;
      process.exit();
  }
};
