/**
 * The durable log of a member: `log.db`, on a thread of its own, so that a slow disk never holds up the
 * thread that ticks. This side numbers nothing and writes nothing; it hands over, and answers in order.
 */
import { ackOf } from "../raft/pending-writes.ts";
import type { Entry, LogIndex, NodeId, PersistAck, PersistOp, Term } from "../raft/types.ts";
import {
  FatalError,
  type LogInstall,
  type LogStats,
  type LogStore,
  type RecoveredLog,
} from "../replica/ports.ts";
import { type LogReply, type LogRequest, type LogSizes, unpackEntries } from "./log-messages.ts";
import { Thread } from "./thread.ts";
import { packWrites } from "./write-messages.ts";

/**
 * Data that may wait for the disk. The limits on uncommitted and in-flight bytes of the layers above keep it
 * far below; beyond it the disk hangs and memory would go next.
 */
const WAITING_BYTES_MAX = 512 * 1024 * 1024;
/** Reads, bindings and compactions that may wait for the thread. */
const REQUESTS_MAX = 1_024;
/** {@link LogStats.recentMs} holds at most so many. */
const RECENT_MAX = 512;

interface Handed {
  readonly ack: PersistAck;
  readonly bytes: number;
  readonly done: (ack: PersistAck) => void;
}

interface Asked {
  readonly resolve: (reply: LogReply) => void;
  readonly reject: (error: Error) => void;
}

export class SqliteLog implements LogStore {
  readonly #folder: string;
  readonly #member: NodeId;
  #thread: Thread<LogRequest, LogReply> | null = null;
  /** A write waits for room on a full disk. */
  noRoom = false;
  #closing = false;
  #failure: Error | null = null;
  #report: ((error: Error) => void) | null = null;
  /** Of this turn, not posted yet. */
  #gathered: PersistOp[] = [];
  /** Handed over and not yet durable, oldest first. */
  #handed: Handed[] = [];
  #handedBytes = 0;
  readonly #asked = new Map<number, Asked>();
  #nextId = 1;
  #bytesWritten = 0;
  #writes = 0;
  #transactions = 0;
  #sizes: LogSizes = { entries: 0, bytes: 0 };
  readonly #recentMs: number[] = [];
  #told: ((ms: number, writes: number) => void) | null = null;

  /** `folder` exists and is locked ({@link import("./data-folder.ts").openDataFolder}). */
  constructor(folder: string, member: NodeId) {
    this.#folder = folder;
    this.#member = member;
  }

  /** @throws FatalError as LogFile.open; the thread has ended then */
  async open(tailBytes: number): Promise<RecoveredLog> {
    if (this.#thread !== null) throw new Error("the log is open already");
    this.#start();
    try {
      const reply = await this.#ask((id) => ({
        kind: "open",
        id,
        folder: this.#folder,
        member: this.#member,
        tailBytes,
      }));
      if (reply.kind !== "opened") throw new Error(`unexpected ${reply.kind}`);
      return reply.recovered;
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  append(op: PersistOp, done: (ack: PersistAck) => void): void {
    if (this.#failure !== null) return;
    if (this.#thread === null || this.#closing) throw new Error("the log is not open");
    let bytes = 0;
    for (const { data } of op.entries) bytes += data.length;
    this.#handed.push({ ack: ackOf(op), bytes, done });
    this.#handedBytes += bytes;
    this.#bytesWritten += bytes;
    if (this.#handedBytes > WAITING_BYTES_MAX) {
      this.#fail(new FatalError(`${this.#handedBytes} bytes wait for the log's disk: it hangs`));
      return;
    }
    // A turn's writes leave in one message; the thread gathers those of many turns into one transaction.
    if (this.#gathered.length === 0) queueMicrotask(() => this.#post());
    this.#gathered.push(op);
  }

  flush(): void {
    this.#post();
  }

  /** None when `from` is compacted or beyond the end. @throws Error closed or failed */
  async read(from: LogIndex, to: LogIndex, maxBytes: number): Promise<readonly Entry[]> {
    this.#post();
    const reply = await this.#ask((id) => ({ kind: "read", id, from, to, maxBytes }));
    if (reply.kind !== "entries") throw new Error(`unexpected ${reply.kind}`);
    return unpackEntries(reply.packed);
  }

  /** @throws Error when `index` is beyond the log or of another term (nothing is forgotten then) */
  async compact(index: LogIndex, term: Term): Promise<void> {
    this.#post();
    await this.#ask((id) => ({ kind: "compact", id, index, term }));
  }

  /** @throws FatalError when the folder belongs to another cluster */
  async bindCluster(clusterId: string): Promise<void> {
    this.#post();
    await this.#ask((id) => ({ kind: "bind", id, clusterId }));
  }

  /** @throws Error when the log holds that entry (nothing is marked then) */
  async markInstall(install: LogInstall): Promise<void> {
    this.#post();
    await this.#ask((id) => ({ kind: "mark-install", id, install }));
  }

  /** @throws Error when nothing is marked */
  async finishInstall(): Promise<void> {
    this.#post();
    await this.#ask((id) => ({ kind: "finish-install", id }));
  }

  /** @throws Error when the log was not found damaged */
  async cut(): Promise<void> {
    this.#post();
    await this.#ask((id) => ({ kind: "cut", id }));
  }

  stats(): LogStats {
    return {
      writes: this.#writes,
      transactions: this.#transactions,
      entries: this.#sizes.entries,
      bytes: this.#sizes.bytes,
      bytesWritten: this.#bytesWritten,
      recentMs: [...this.#recentMs],
    };
  }

  /** Told of each transaction: milliseconds, fsync included, and the writes that it took together. */
  onTransaction(told: (ms: number, writes: number) => void): void {
    this.#told = told;
  }

  onFailure(report: (error: Error) => void): void {
    this.#report = report;
    if (this.#failure !== null) report(this.#failure);
  }

  /** Writes what was handed over, then ends the thread and waits for its end: only then are the file's locks free again. */
  async close(): Promise<void> {
    if (!this.#closing && this.#thread !== null) {
      this.#post();
      this.#closing = true;
      this.#thread.post({ kind: "close" });
    }
    await this.#thread?.ended;
  }

  #start(): void {
    this.#thread = new Thread(new URL("./log-thread.ts", import.meta.url), {
      answered: (reply) => this.#receive(reply),
      failed: (message) => this.#fail(new FatalError(`the log thread failed: ${message}`)),
      ended: () => {
        // Without it the member would go on and acknowledge nothing, silently.
        if (!this.#closing) this.#fail(new FatalError("the log thread ended"));
        this.#rejectAsked(new Error("the log is closed"));
      },
    });
  }

  #post(): void {
    if (this.#gathered.length === 0 || this.#closing || this.#failure !== null) return;
    const ops = this.#gathered;
    this.#gathered = [];
    const packed = packWrites(ops);
    this.#thread?.post(packed, [packed]);
  }

  async #ask(request: (id: number) => LogRequest): Promise<LogReply> {
    if (this.#failure !== null) throw this.#failure;
    if (this.#thread === null || this.#closing) throw new Error("the log is not open");
    if (this.#asked.size >= REQUESTS_MAX) {
      throw new Error(`${this.#asked.size} requests wait for the log thread already`);
    }
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<LogReply>();
    this.#asked.set(id, { resolve, reject });
    this.#thread.post(request(id));
    return promise;
  }

  #receive(reply: LogReply): void {
    switch (reply.kind) {
      case "no-room":
        this.noRoom = true;
        return;
      case "durable":
        this.noRoom = false;
        this.#durable(reply);
        return;
      case "failed":
        this.#fail(new FatalError(`the log cannot be written: ${reply.message}`));
        return;
      case "refused": {
        const error = reply.fatal ? new FatalError(reply.message) : new Error(reply.message);
        this.#settle(reply.id)?.reject(error);
        return;
      }
      case "opened":
      case "done":
        this.#sizes = reply.sizes;
        this.#settle(reply.id)?.resolve(reply);
        return;
      case "entries":
        this.#settle(reply.id)?.resolve(reply);
    }
  }

  #durable({ writes, ms, entries, bytes: size }: Extract<LogReply, { kind: "durable" }>): void {
    if (this.#failure !== null) return;
    this.#sizes = { entries, bytes: size };
    this.#writes += writes;
    this.#transactions += 1;
    this.#told?.(ms, writes);
    this.#recentMs.push(ms);
    if (this.#recentMs.length > RECENT_MAX) this.#recentMs.shift();
    for (const { ack, bytes, done } of this.#handed.splice(0, writes)) {
      this.#handedBytes -= bytes;
      done(ack);
    }
  }

  #settle(id: number): Asked | undefined {
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    return asked;
  }

  /** Told once; nothing is answered from here on. */
  #fail(error: Error): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    this.#handed = [];
    this.#gathered = [];
    this.#rejectAsked(error);
    this.#report?.(error);
  }

  #rejectAsked(error: Error): void {
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    for (const { reject } of asked) reject(error);
  }
}
