/**
 * One Bun Worker and what is known of it. It reports each thing once and in order: ready, then ends of
 * runs, then its close. It decides nothing: replacement, stuck counting and leases are its slot's.
 */
import type { Clock, Log, Timer } from "../replica/ports.ts";
import type { TaskError } from "../queue/types.ts";
import { Answers } from "../system/answers.ts";
import { EntryCounter } from "./entry-counter.ts";
import type {
  FromThread,
  PostedTask,
  ReportPart,
  RunEnd,
  ThreadSetup,
  ThreadStart,
  ToThread,
} from "./protocol.ts";
import { CONSOLE_LEVELS } from "./protocol.ts";

/** A module that is not loaded after this long (a top-level await that never ends) counts as failed. */
const LOAD_LIMIT_MS = 30_000;

/** What a Worker does not inherit: handlers have no business with the members' secret. */
const ENV_WITHHELD = ["FLOTILLA_SECRET"];

export interface ThreadEvents {
  ready(names: readonly string[]): void;
  report(fence: number, part: ReportPart): void;
  ended(end: RunEnd): void;
  /** The Worker is gone, whoever asked for it; `error` says why as far as it is known. */
  closed(error: TaskError): void;
}

export class ExecutorThread {
  readonly #worker: Worker;
  readonly #events: ThreadEvents;
  readonly #log: Log;
  readonly #loadTimer: Timer;
  readonly #entries = new EntryCounter();
  readonly #answers = new Answers<unknown>((data) => this.#receive(data));
  /** Number of the next task to be posted. */
  #posted = 0;
  #loaded = false;
  #closed = false;
  #terminated = false;
  #cause: TaskError | null = null;

  constructor(setup: ThreadSetup, clock: Clock, log: Log, events: ThreadEvents) {
    this.#events = events;
    this.#log = log;
    const env: Record<string, string> = {};
    for (const [name, value] of Object.entries(process.env)) {
      if (value !== undefined && !ENV_WITHHELD.includes(name)) env[name] = value;
    }
    this.#worker = new Worker(new URL("./worker-thread.ts", import.meta.url).href, { env });
    this.#worker.addEventListener("error", (event: ErrorEvent) => {
      event.preventDefault();
      this.#cause ??= crashed(`the Worker failed: ${event.message}`);
    });
    this.#worker.addEventListener("close", (event: Event) => {
      this.#answers.end();
      this.#close("code" in event ? Number(event.code) : -1);
    });
    this.#loadTimer = clock.after(LOAD_LIMIT_MS, () => {
      this.#cause ??= crashed(`the handlers were not loaded after ${LOAD_LIMIT_MS} ms`);
      this.terminate();
    });
    const { port } = this.#answers;
    const start: ThreadStart = { setup, answers: port, entries: this.#entries.buffer };
    this.#worker.postMessage(start, [port]);
  }

  get loaded(): boolean {
    return this.#loaded;
  }

  /** To be run one after another. The number of the first one; the others follow. */
  run(tasks: readonly PostedTask[], resultMaxBytes: number): number {
    const first = this.#posted;
    this.#posted = (first + tasks.length) | 0;
    this.#post({ type: "run", tasks, first, resultMaxBytes });
    return first;
  }

  /** The handler of this task was entered, whether or not it has ended since. */
  isEntered(number: number): boolean {
    return this.#entries.isPast(number);
  }

  /** Number of the next task that will be entered. */
  get nextEntry(): number {
    return this.#entries.next;
  }

  /** What was not entered will not be: the tasks from this number on are the caller's again. */
  takeBack(): number {
    return this.#entries.takeBack(this.#posted);
  }

  abort(fence: number, reason: string): void {
    this.#post({ type: "abort", fence, reason });
  }

  /** Asks once; `closed` follows, unless native code holds the thread. */
  terminate(): void {
    if (this.#closed || this.#terminated) return;
    this.#terminated = true;
    this.#worker.terminate();
  }

  #post(message: ToThread): void {
    if (!this.#closed) this.#worker.postMessage(JSON.stringify(message));
  }

  #receive(data: unknown): void {
    const message = parse(data);
    if (message === null || this.#closed) return;
    switch (message.type) {
      case "ready":
        this.#loaded = true;
        this.#loadTimer.cancel();
        this.#events.ready(message.names);
        return;
      case "load-failed":
        this.#cause ??= message.error;
        this.terminate();
        return;
      case "report":
        this.#events.report(message.fence, { progress: message.progress, lines: message.lines });
        return;
      case "ends":
        for (const end of message.ends) this.#events.ended(end);
        return;
      case "console":
        if (CONSOLE_LEVELS.includes(message.level))
          this.#log[message.level](message.text, { source: "handler" });
        return;
      case "dying":
        this.#cause ??= crashed(
          `uncaught in the Worker: ${message.error.type}: ${message.error.message}`,
          message.error.stack,
        );
        return;
    }
  }

  #close(code: number): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#loadTimer.cancel();
    // Code 0 means nothing: an unhandled rejection closes with it too.
    this.#events.closed(this.#cause ?? crashed(`the Worker exited with code ${code}`));
  }
}

function crashed(message: string, stack: string | null = null): TaskError {
  return { type: "WorkerCrashed", message, stack, retryable: true };
}

function parse(data: unknown): FromThread | null {
  if (typeof data !== "string") return null;
  try {
    return JSON.parse(data) as FromThread;
  } catch {
    return null;
  }
}
