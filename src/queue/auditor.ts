/**
 * Audits of the state's rows (T9): a slice at a time, beside the thread that ticks, or at once on the writer's
 * connection where the database is in memory. A slice is small, so that no reader keeps the WAL from restarting.
 */
import type { Database } from "bun:sqlite";
import { type Auditor, type AuditSlice, StateDamage } from "../replica/ports.ts";
import type { AuditReply, AuditRequest } from "./audit-messages.ts";
import { hashSlice, type SliceLimits } from "./hash.ts";

/** Of one slice: some ten milliseconds of a thread, and the rests between them. */
export const AUDIT_SLICE: SliceLimits = { rows: 2_000, text: 4 * 1024 * 1024 };

/** Reads on the connection it is given, at once. */
export class InlineAuditor implements Auditor {
  readonly #db: () => Database;
  readonly #slice: SliceLimits;

  /** `db`: the database in use, which a snapshot may have replaced since the last time. */
  constructor(db: () => Database, slice = AUDIT_SLICE) {
    this.#db = db;
    this.#slice = slice;
  }

  async read(cursor: string | null, begun: (index: number) => void): Promise<AuditSlice> {
    const db = this.#db();
    const state = db.query<{ index: number }, []>("SELECT applied_index AS 'index' FROM state");
    begun(state.get()?.index ?? 0);
    return hashSlice(db, cursor, this.#slice);
  }
}

interface Reading {
  readonly id: number;
  readonly slice: Promise<AuditSlice>;
  readonly begun: (index: number) => void;
  readonly resolve: (slice: AuditSlice) => void;
  readonly reject: (error: Error) => void;
}

/** Reads on a thread, one slice at a time. The thread is started by the first read, and anew when it died. */
export class ThreadAuditor implements Auditor {
  #path: string;
  #worker: Worker | null = null;
  #reading: Reading | null = null;
  #next = 1;
  #closed = false;

  constructor(path: string) {
    this.#path = path;
  }

  /** @throws StateDamage; Error while another read is under way, when the thread dies under it, or was closed */
  async read(cursor: string | null, begun: (index: number) => void): Promise<AuditSlice> {
    if (this.#closed) throw new Error("the audit is closed");
    if (this.#reading !== null) throw new Error("a slice is being read already");
    const worker = this.#worker ?? this.#start();
    const id = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<AuditSlice>();
    this.#reading = { id, slice: promise, begun, resolve, reject };
    worker.postMessage({ kind: "read", id, cursor } satisfies AuditRequest);
    return promise;
  }

  /** Resolves when the slice that is being read now is over, whatever became of it. */
  async settled(): Promise<void> {
    await this.#reading?.slice.catch(() => null);
  }

  /** The state lies in another file from now on. */
  reopen(path: string): void {
    this.#path = path;
    this.#end(new Error("the state was replaced"));
  }

  close(): void {
    this.#closed = true;
    this.#end(new Error("the audit is closed"));
  }

  #start(): Worker {
    const worker = new Worker(new URL("./audit-thread.ts", import.meta.url).href);
    worker.onmessage = (event: MessageEvent<AuditReply>) => {
      if (this.#worker === worker) this.#heard(event.data);
    };
    const died = (message: string): void => {
      if (this.#worker !== worker) return;
      this.#worker = null;
      worker.terminate();
      this.#fail(new Error(message));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      died(`the audit thread failed: ${event.message}`);
    };
    worker.addEventListener("close", () => died("the audit thread ended"));
    worker.postMessage({ kind: "open", path: this.#path } satisfies AuditRequest);
    this.#worker = worker;
    return worker;
  }

  #heard(reply: AuditReply): void {
    const reading = this.#reading;
    if (reading?.id !== reply.id) return;
    switch (reply.kind) {
      case "begun":
        reading.begun(reply.index);
        return;
      case "slice":
        this.#reading = null;
        reading.resolve({ digest: reply.digest, next: reply.next, rows: reply.rows });
        return;
      case "failed":
        this.#fail(reply.damaged ? new StateDamage(reply.message) : new Error(reply.message));
    }
  }

  #end(error: Error): void {
    this.#worker?.postMessage({ kind: "close" } satisfies AuditRequest);
    this.#worker = null;
    this.#fail(error);
  }

  #fail(error: Error): void {
    const reading = this.#reading;
    this.#reading = null;
    reading?.reject(error);
  }
}
