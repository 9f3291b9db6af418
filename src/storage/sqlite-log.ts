/** The log in SQLite, on a thread of its own, seen from the main thread. */
import { join } from "node:path";
import type { Entry, LogIndex, NodeId, PersistAck, PersistOp, Term } from "../raft/types.ts";
import { FatalError, type LogStats, type LogStore, type RecoveredLog } from "../replica/ports.ts";
import type { LogReply, LogRequest } from "./log-messages.ts";

/** Durations kept for `stats`. */
const RECENT_MAX = 512;

interface Append {
  readonly op: PersistOp;
  readonly done: (ack: PersistAck) => void;
}

export class SqliteLog implements LogStore {
  readonly #path: string;
  readonly #id: NodeId;
  readonly #worker: Worker;
  readonly #opened = Promise.withResolvers<RecoveredLog>();
  readonly #closed = Promise.withResolvers<void>();
  /** Handed to the thread and not answered, oldest first. The core's window bounds them. */
  readonly #unanswered: Append[] = [];
  readonly #calls = new Map<number, (entries: readonly Entry[]) => void>();
  readonly #recentMs: number[] = [];
  readonly #counts = { writes: 0, transactions: 0, entries: 0, bytes: 0 };
  #outbox: PersistOp[] = [];
  #nextCall = 1;
  #report: (error: Error) => void = () => undefined;
  #ended = false;

  /** `folder`: the locked data folder; `id`: whose it must be. */
  constructor(folder: string, id: NodeId) {
    this.#path = join(folder, "log.db");
    this.#id = id;
    this.#worker = new Worker(new URL("./log-thread.ts", import.meta.url).href);
    this.#worker.addEventListener("message", ({ data }: MessageEvent<LogReply>) =>
      this.#replied(data),
    );
    this.#worker.addEventListener("error", ({ message }) =>
      this.#fail(new Error(`the log thread failed: ${message}`)),
    );
    this.#worker.addEventListener("close", () => {
      this.#closed.resolve();
      this.#fail(new Error("the log thread ended"));
    });
  }

  open(tailBytes: number): Promise<RecoveredLog> {
    const incarnation = crypto.randomUUID();
    this.#post({ type: "open", path: this.#path, id: this.#id, incarnation, tailBytes });
    return this.#opened.promise;
  }

  append(op: PersistOp, done: (ack: PersistAck) => void): void {
    if (this.#ended) return;
    this.#unanswered.push({ op, done });
    if (this.#outbox.length === 0) setImmediate(() => this.#flush());
    this.#outbox.push(op);
    this.#counts.writes += 1;
    this.#counts.entries += op.entries.length;
    for (const { data } of op.entries) this.#counts.bytes += data.length;
  }

  read(from: LogIndex, to: LogIndex, maxBytes: number): Promise<readonly Entry[]> {
    return this.#call((call) => ({ type: "read", call, from, to, maxBytes }));
  }

  async compact(index: LogIndex, term: Term): Promise<void> {
    await this.#call((call) => ({ type: "compact", call, index, term }));
  }

  async bindCluster(clusterId: string): Promise<void> {
    await this.#call((call) => ({ type: "bind", call, clusterId }));
  }

  stats(): LogStats {
    return { ...this.#counts, recentMs: [...this.#recentMs] };
  }

  onFailure(report: (error: Error) => void): void {
    this.#report = report;
  }

  /** Writes what waits, closes the file, and resolves when the thread has really ended. */
  async close(): Promise<void> {
    if (this.#ended) return;
    this.#flush();
    this.#ended = true;
    this.#post({ type: "close" });
    await this.#closed.promise;
  }

  #flush(): void {
    if (this.#outbox.length === 0) return;
    const ops = this.#outbox;
    this.#outbox = [];
    this.#post({ type: "append", ops });
  }

  /** Promises here never reject: a failure ends the process through `onFailure`. */
  #call(request: (call: number) => LogRequest): Promise<readonly Entry[]> {
    const { promise, resolve } = Promise.withResolvers<readonly Entry[]>();
    const call = this.#nextCall++;
    this.#calls.set(call, resolve);
    this.#flush();
    this.#post(request(call));
    return promise;
  }

  #post(request: LogRequest): void {
    this.#worker.postMessage(request);
  }

  #replied(reply: LogReply): void {
    switch (reply.type) {
      case "opened":
        this.#opened.resolve(reply.recovered);
        return;
      case "appended":
        this.#appended(reply.count, reply.ms);
        return;
      case "read":
        this.#answer(reply.call, reply.entries);
        return;
      case "done":
        this.#answer(reply.call, []);
        return;
      case "closed":
        this.#worker.terminate();
        return;
      case "failed":
        this.#fail(
          reply.fatal
            ? new FatalError(reply.message)
            : new FatalError(`the log cannot be written: ${reply.message}`),
        );
        return;
    }
  }

  #appended(count: number, ms: number): void {
    this.#counts.transactions += 1;
    this.#recentMs.push(ms);
    if (this.#recentMs.length > RECENT_MAX) this.#recentMs.shift();
    for (const { op, done } of this.#unanswered.splice(0, count)) {
      const last = op.entries.at(-1);
      done({
        hardState: op.hardState,
        last: last === undefined ? null : { index: last.index, term: last.term },
      });
    }
  }

  #answer(call: number, entries: readonly Entry[]): void {
    const resolve = this.#calls.get(call);
    this.#calls.delete(call);
    resolve?.(entries);
  }

  #fail(error: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#unanswered.length = 0;
    this.#opened.reject(error);
    this.#report(error);
  }
}
