/**
 * The log's own thread: whatever waits becomes one transaction, and one fsync. Gathered with `setImmediate`,
 * after all messages of the turn have come in (a microtask runs between two messages, and gathers nothing).
 * After the first failure it answers nothing any more: an fsync that failed is never believed later (S6).
 */
import type { LogIndex, PersistOp, Term } from "../raft/types.ts";
import { FatalError } from "../replica/ports.ts";
import { LogDatabase } from "./log-database.ts";
import type { LogReply, LogRequest } from "./log-messages.ts";

declare const self: Worker;

let database: LogDatabase | null = null;
let failed = false;
let waiting: PersistOp[] = [];
let gathering = false;

function reply(message: LogReply): void {
  self.postMessage(message);
}

function guarded(run: () => void): void {
  if (failed) return;
  try {
    run();
  } catch (error) {
    failed = true;
    const message = error instanceof Error ? error.message : String(error);
    reply({ type: "failed", message, fatal: error instanceof FatalError });
  }
}

function opened(): LogDatabase {
  if (database === null) throw new Error("the log is not open");
  return database;
}

function commit(): void {
  gathering = false;
  if (waiting.length === 0) return;
  const ops = waiting;
  waiting = [];
  const startedAt = performance.now();
  opened().write(ops);
  reply({ type: "appended", count: ops.length, ms: performance.now() - startedAt });
  opened().checkpointIfGrown();
}

/** In steps, so that appends pass between them. */
function compact(call: number, index: LogIndex, term: Term): void {
  const more = opened().compactStep(index, term);
  opened().vacuumStep();
  if (more) setImmediate(() => guarded(() => compact(call, index, term)));
  else reply({ type: "done", call });
}

function handle(request: LogRequest): void {
  switch (request.type) {
    case "open":
      database = new LogDatabase(request.path);
      reply({
        type: "opened",
        recovered: database.open(request.id, request.incarnation, request.tailBytes),
      });
      return;
    case "append":
      waiting.push(...request.ops);
      if (gathering) return;
      gathering = true;
      setImmediate(() => guarded(commit));
      return;
    case "read":
      commit();
      reply({
        type: "read",
        call: request.call,
        entries: opened().read(request.from, request.to, request.maxBytes),
      });
      return;
    case "compact":
      compact(request.call, request.index, request.term);
      return;
    case "bind":
      opened().bindCluster(request.clusterId);
      reply({ type: "done", call: request.call });
      return;
    case "close":
      commit();
      database?.close();
      reply({ type: "closed" });
      return;
  }
}

self.onmessage = ({ data }: MessageEvent<LogRequest>): void => guarded(() => handle(data));
