/**
 * Where lists are read: on a thread of their own beside a database file, or at once on the writer's
 * connection where the database is in memory.
 */
import type { Database } from "bun:sqlite";
import { BadFilter, listTasks } from "./queries.ts";
import type { ReaderReply, ReaderRequest, ReaderSetup } from "./reader-messages.ts";
import type { TaskFilter, TaskPage } from "./service.ts";

/** Reads that may scan: beside the thread that ticks, where the database allows it. */
export interface TaskReader {
  /**
   * One page, newest first; at least as new as the newest transaction committed before the call.
   * @throws BadFilter
   */
  list(filter: TaskFilter, limit: number, cursor: string | null): Promise<TaskPage>;
  close(): void;
}

/** Lists that may wait for the thread; more are refused. */
const READS_WAITING_MAX = 256;

/** Too many lists wait for the reader already, or it has no room to begin. */
export class ReaderOverloaded extends Error {
  override name = "ReaderOverloaded";
}

/** Reads on the connection it is given, at once. */
export class InlineReader implements TaskReader {
  #db: Database;

  constructor(db: Database) {
    this.#db = db;
  }

  /** A snapshot was installed: reads there from now on. */
  reopen(db: Database): void {
    this.#db = db;
  }

  async list(filter: TaskFilter, limit: number, cursor: string | null): Promise<TaskPage> {
    return listTasks(this.#db, filter, limit, cursor);
  }

  close(): void {}
}

interface Waiting {
  readonly request: Extract<ReaderRequest, { kind: "list" }>;
  readonly resolve: (page: TaskPage) => void;
  readonly reject: (error: Error) => void;
}

/**
 * Reads on a thread. When the thread dies, what waits fails, `onDeath` is told, and the next list starts
 * a new one.
 */
export class ThreadReader implements TaskReader {
  #setup: ReaderSetup;
  readonly #onDeath: (error: Error) => void;
  readonly #mayStart: () => boolean;
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | null = null;
  #next = 1;
  #closed = false;

  /** `pause`: see {@link ReaderSetup}. `mayStart`: whether the process has room for a thread. */
  constructor(
    path: string,
    onDeath: (error: Error) => void,
    pause: SharedArrayBuffer | null = null,
    mayStart: () => boolean = () => true,
  ) {
    this.#setup = { path, pause };
    this.#onDeath = onDeath;
    this.#mayStart = mayStart;
  }

  /** @throws BadFilter, ReaderOverloaded; Error when the thread dies under it or was closed */
  async list(filter: TaskFilter, limit: number, cursor: string | null): Promise<TaskPage> {
    if (this.#closed) throw new Error("the reader is closed");
    if (this.#waiting.size >= READS_WAITING_MAX) {
      throw new ReaderOverloaded(`${this.#waiting.size} lists wait to be read already.`);
    }
    if (this.#worker === null && !this.#mayStart()) {
      throw new ReaderOverloaded("No file descriptors are left for the thread that reads lists.");
    }
    const worker = this.#worker ?? this.#start();
    const id = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<TaskPage>();
    const request = { kind: "list", id, filter, limit, cursor } as const;
    this.#waiting.set(id, { request, resolve, reject });
    worker.postMessage(request);
    return promise;
  }

  /** A snapshot was installed under another file name: reads there from now on, what waits too. */
  reopen(path: string): void {
    this.#setup = { ...this.#setup, path };
    const before = this.#worker;
    if (before === null || this.#closed) return;
    this.#worker = null;
    before.postMessage({ kind: "close" } satisfies ReaderRequest);
    if (this.#waiting.size === 0) return;
    const worker = this.#start();
    for (const { request } of this.#waiting.values()) worker.postMessage(request);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#failAll(new Error("the reader is closed"));
    this.#worker?.postMessage({ kind: "close" } satisfies ReaderRequest);
    this.#worker = null;
  }

  #start(): Worker {
    const worker = new Worker(new URL("./reader-thread.ts", import.meta.url).href);
    worker.onmessage = (event: MessageEvent<ReaderReply>) => {
      // One that was replaced read the state before: what it still says is asked of its successor.
      if (worker === this.#worker) this.#settle(event.data);
    };
    worker.onerror = (event) => {
      // Handled here: the close that follows tells the rest.
      event.preventDefault();
      this.#died(worker, new Error(`the reader thread failed: ${event.message}`));
    };
    worker.addEventListener("close", () => {
      this.#died(worker, new Error("the reader thread ended"));
    });
    worker.postMessage({ kind: "open", setup: this.#setup } satisfies ReaderRequest);
    this.#worker = worker;
    return worker;
  }

  #settle(reply: ReaderReply): void {
    const waiting = this.#waiting.get(reply.id);
    if (waiting === undefined) return;
    this.#waiting.delete(reply.id);
    if (reply.kind === "page") waiting.resolve(reply.page);
    else waiting.reject(reply.bad ? new BadFilter(reply.message) : new Error(reply.message));
  }

  #died(worker: Worker, error: Error): void {
    if (this.#closed || this.#worker !== worker) return;
    this.#worker = null;
    worker.terminate();
    this.#failAll(error);
    this.#onDeath(error);
  }

  #failAll(error: Error): void {
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(error);
  }
}
