/**
 * Entry of the log thread: the only place that writes `log.db`. What waits goes into one transaction; it is
 * gathered with `setImmediate`, since a Worker gets one message a turn and a microtask would run before the
 * next one. Any failure of a write ends the writing for good (S6): the owner stops the process.
 */
import {
  asIndex,
  asNodeId,
  asTerm,
  type LogIndex,
  type PersistOp,
  type Term,
} from "../raft/types.ts";
import { FatalError, isNoRoom, NoRoomError } from "../replica/ports.ts";
import { LogFile } from "./log-file.ts";
import { type LogReply, type LogRequest, type LogSizes, packEntries } from "./log-messages.ts";
import { answering } from "./thread.ts";
import { unpackWrites } from "./write-messages.ts";

declare const self: Worker;

/** One transaction takes no more than this, so that the first of many does not wait for all of them. */
const TRANSACTION_BYTES_MAX = 8 * 1024 * 1024;

/** Between two tries on a full disk. */
const ROOM_RETRY_MS = 250;

interface Compaction {
  readonly id: number;
  readonly index: LogIndex;
  readonly term: Term;
}

const post = answering<LogRequest, LogReply>(self, received);

let file: LogFile | null = null;
let failed = false;
let scheduled = false;
/** The disk was full at the newest try. */
let roomless = false;
/** Bytes of files as of the newest checkpoint or compaction, and what was written since. */
let fileBytes = 0;
/** Bounded by the owner, which stops handing over beyond a limit. */
let waiting: PersistOp[] = [];
/** One runs at a time, by steps between the writes; the owner asks for few. */
const compactions: Compaction[] = [];

function sizes(): LogSizes {
  return { entries: file?.entryCount ?? 0, bytes: fileBytes };
}

function opened(): LogFile {
  if (file === null) throw new Error("the log is not open");
  return file;
}

function fail(error: unknown): void {
  if (failed) return;
  failed = true;
  waiting = [];
  post({ kind: "failed", message: reasonOf(error) });
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function schedule(): void {
  if (scheduled || roomless) return;
  scheduled = true;
  setImmediate(() => {
    scheduled = false;
    turn();
  });
}

/** The disk is full: what waits stays, and is tried again by and by. Nothing was written, so nothing is in doubt. */
function waitForRoom(): void {
  if (roomless) return;
  roomless = true;
  post({ kind: "no-room" });
  setTimeout(() => {
    roomless = false;
    turn();
  }, ROOM_RETRY_MS);
}

/** Commits what waits, then does one piece of upkeep, and comes again while there is more of either. */
function turn(): void {
  if (failed || roomless || file === null) return;
  try {
    commitWaiting();
    if (file.checkpointIfDue()) fileBytes = file.bytes();
    else compactOneStep();
  } catch (error) {
    if (isNoRoom(error)) waitForRoom();
    else fail(error);
    return;
  }
  if (waiting.length > 0 || compactions.length > 0) schedule();
}

function commitWaiting(): void {
  if (waiting.length === 0) return;
  const batch = takeBatch();
  const startedAt = performance.now();
  try {
    opened().commit(batch);
  } catch (error) {
    waiting.unshift(...batch);
    throw error;
  }
  const ms = performance.now() - startedAt;
  post({ kind: "durable", writes: batch.length, ms, ...sizes() });
}

function takeBatch(): readonly PersistOp[] {
  let bytes = 0;
  let count = 0;
  for (const { entries } of waiting) {
    for (const { data } of entries) bytes += data.length;
    if (count > 0 && bytes > TRANSACTION_BYTES_MAX) break;
    count += 1;
  }
  fileBytes += bytes;
  return waiting.splice(0, count);
}

function compactOneStep(): void {
  const next = compactions[0];
  if (next === undefined) return;
  let more: boolean;
  try {
    more = opened().compactStep(next.index, next.term);
  } catch (error) {
    // SQLite's own errors are the disk's: fatal, unless it is full. Ours refuse what was asked and have changed nothing.
    if (error instanceof Error && "code" in error) throw error;
    compactions.shift();
    refuse(next.id, error);
    return;
  }
  if (more) return;
  compactions.shift();
  // The file gets shorter now, not with the writes to come: there may be none.
  opened().checkpoint();
  fileBytes = opened().bytes();
  post({ kind: "done", id: next.id, sizes: sizes() });
}

function refuse(id: number, error: unknown): void {
  post({ kind: "refused", id, message: reasonOf(error), fatal: error instanceof FatalError });
}

/** Reads and bindings come after every write that was handed over before them, but for those that wait for room. */
function settleWaiting(): LogFile {
  if (roomless) return opened();
  try {
    while (waiting.length > 0) commitWaiting();
  } catch (error) {
    if (!isNoRoom(error)) throw error;
    waitForRoom();
  }
  return opened();
}

function append(packed: ArrayBuffer): void {
  for (const write of unpackWrites(packed)) waiting.push(write);
  schedule();
}

function read({ id, from, to, maxBytes }: Extract<LogRequest, { kind: "read" }>): void {
  const log = settleWaiting();
  try {
    const packed = packEntries(log.read(asIndex(from), asIndex(to), maxBytes));
    post({ kind: "entries", id, packed }, [packed.bytes.buffer]);
  } catch (error) {
    refuse(id, error);
    throw error;
  }
}

/** SQLite's own errors are the disk's: fatal, unless it is full. Ours refuse what was asked and have changed nothing. */
function change(id: number, run: (log: LogFile) => void): void {
  const log = settleWaiting();
  try {
    if (roomless) throw new NoRoomError("the disk is full");
    run(log);
    post({ kind: "done", id, sizes: sizes() });
  } catch (error) {
    refuse(id, error);
    if (isNoRoom(error)) return;
    if (error instanceof Error && "code" in error) throw error;
  }
}

function handle(request: LogRequest): void {
  if (request instanceof ArrayBuffer) {
    append(request);
    return;
  }
  switch (request.kind) {
    case "open":
      try {
        const result = LogFile.open(request.folder, asNodeId(request.member), request.tailBytes);
        file = result.file;
        fileBytes = file.bytes();
        post({ kind: "opened", id: request.id, recovered: result.recovered, sizes: sizes() });
      } catch (error) {
        refuse(request.id, error);
      }
      return;
    case "read":
      read(request);
      return;
    case "compact":
      compactions.push({
        id: request.id,
        index: asIndex(request.index),
        term: asTerm(request.term),
      });
      schedule();
      return;
    case "bind": {
      const log = settleWaiting();
      try {
        log.bindCluster(request.clusterId);
        post({ kind: "done", id: request.id, sizes: sizes() });
      } catch (error) {
        refuse(request.id, error);
        if (!(error instanceof FatalError)) throw error;
      }
      return;
    }
    case "mark-install":
      change(request.id, (log) => log.markInstall(request.install));
      return;
    case "finish-install":
      // What is still to be compacted was asked of the log that goes.
      for (const { id } of compactions.splice(0)) refuse(id, new Error("a snapshot was installed"));
      change(request.id, (log) => {
        log.finishInstall();
        fileBytes = log.bytes();
      });
      return;
    case "cut":
      change(request.id, (log) => log.cut());
      return;
    case "close":
      // What was handed over before is written: whoever closes in order loses nothing.
      if (file !== null) settleWaiting();
      file?.close();
      file = null;
      process.exit();
  }
}

function received(request: LogRequest): void {
  const isLast = !(request instanceof ArrayBuffer) && request.kind === "close";
  if (failed && !isLast) return;
  try {
    handle(request);
  } catch (error) {
    fail(error);
    if (isLast) process.exit();
  }
}
