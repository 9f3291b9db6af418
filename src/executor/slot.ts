/**
 * One place where a handler may run. A slot owns at most one living Worker and at most one run, and is
 * free only while neither a handler nor a dying Worker occupies it: the pool's cap rests on this file.
 */
import type { Clock, Log, Timer } from "../replica/ports.ts";
import type { ClaimedTask, TaskError } from "../queue/types.ts";
import { ExecutorThread } from "./executor-thread.ts";
import type { ReportPart, RunOutcome, ThreadSetup } from "./protocol.ts";

/** Pause before a Worker that died while loading, or idle, is started again; doubles up to the maximum. */
const RELOAD_MIN_MS = 100;
const RELOAD_MAX_MS = 30_000;

/** How a run left its slot. */
export type RunEnding =
  | {
      readonly kind: "outcome";
      readonly outcome: RunOutcome;
      readonly rest: ReportPart;
      /** How long the handler took where it ran; absent: nobody measured it there. */
      readonly ranMs?: number;
    }
  | { readonly kind: "crashed"; readonly error: TaskError }
  /** We killed its Worker (or gave it up as stuck). */
  | { readonly kind: "killed" }
  /** The handler was never entered. */
  | { readonly kind: "not-started"; readonly error: TaskError | null };

export interface SlotEvents {
  report(task: ClaimedTask, part: ReportPart): void;
  ended(task: ClaimedTask, ending: RunEnding): void;
  /** The slot may have become free. */
  changed(): void;
  killed(): void;
  restarted(): void;
  /** A Worker did not die. True: this slot may have another one all the same. */
  stuck(thread: ExecutorThread): boolean;
  unstuck(thread: ExecutorThread): void;
}

type Phase =
  /** No Worker was needed yet. */
  | "empty"
  | "loading"
  | "ready"
  /** terminate() was asked for, the close event is awaited. */
  | "dying"
  /** Waiting to load again, or blocked by too many stuck Workers. */
  | "waiting"
  | "stopped";

/** What a pool needs of a slot; the simulator brings its own. */
export type Slot = Pick<
  ExecutorSlot,
  "free" | "blocked" | "run" | "abort" | "kill" | "unblock" | "stop"
>;

export class ExecutorSlot {
  readonly #setup: ThreadSetup;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #events: SlotEvents;
  readonly #resultMaxBytes: () => number;
  readonly #stuckAfterMs: number;
  #phase: Phase = "empty";
  #thread: ExecutorThread | null = null;
  #task: ClaimedTask | null = null;
  #timer: Timer | null = null;
  /** Deaths while loading or idle since a handler last ended by itself. */
  #failures = 0;
  #onStopped: (() => void) | null = null;

  constructor(
    setup: ThreadSetup,
    clock: Clock,
    log: Log,
    resultMaxBytes: () => number,
    stuckAfterMs: number,
    events: SlotEvents,
  ) {
    this.#setup = setup;
    this.#clock = clock;
    this.#log = log;
    this.#resultMaxBytes = resultMaxBytes;
    this.#stuckAfterMs = stuckAfterMs;
    this.#events = events;
  }

  /** A task may be claimed for this slot. */
  get free(): boolean {
    return this.#task === null && (this.#phase === "empty" || this.#phase === "ready");
  }

  /** Starts the Worker before it is needed. */
  warm(): void {
    if (this.#phase === "empty") this.#load();
  }

  run(task: ClaimedTask): void {
    if (!this.free) throw new Error("a slot was given a task while it was not free");
    this.#task = task;
    if (this.#phase === "empty") this.#load();
    else this.#enter(task);
  }

  /** Aborts the handler's signal. A task whose Worker is still loading ends at once. */
  abort(task: ClaimedTask, reason: string): void {
    if (this.#task !== task) return;
    if (this.#phase === "loading") {
      this.#end({ kind: "not-started", error: null });
      return;
    }
    if (this.#phase === "ready") this.#thread?.abort(task.lease.fence, reason);
  }

  /** Kills the Worker under the task, if it still runs here. */
  kill(task: ClaimedTask): void {
    if (this.#task !== task || this.#phase !== "ready") return;
    this.#events.killed();
    this.#die();
  }

  /** Loads again after `stuck` had answered false and a stuck Worker is gone. */
  unblock(): void {
    if (this.#phase === "waiting" && this.#timer === null) this.#load();
  }

  get blocked(): boolean {
    return this.#phase === "waiting" && this.#timer === null;
  }

  /** Terminates the Worker; resolves on its close, or once it counts as stuck. */
  stop(): Promise<void> {
    const phase = this.#phase;
    this.#phase = "stopped";
    this.#timer?.cancel();
    const thread = this.#thread;
    if (thread === null || phase === "stopped") return Promise.resolve();
    return new Promise((resolve) => {
      const timer = this.#clock.after(this.#stuckAfterMs, resolve);
      this.#onStopped = () => {
        timer.cancel();
        resolve();
      };
      thread.terminate();
    });
  }

  #load(): void {
    this.#phase = "loading";
    const thread: ExecutorThread = new ExecutorThread(this.#setup, this.#clock, this.#log, {
      ready: () => this.#ready(thread),
      report: (fence, part) => {
        if (this.#thread === thread && this.#task?.lease.fence === fence)
          this.#events.report(this.#task, part);
      },
      end: (fence, outcome, rest, ranMs) => {
        // While dying, too: a handler that ends just before the kill has ended.
        if (this.#thread === thread && this.#task?.lease.fence === fence)
          this.#ended(outcome, rest, ranMs);
      },
      closed: (error) => this.#closed(thread, error),
    });
    this.#thread = thread;
  }

  #ready(thread: ExecutorThread): void {
    if (this.#thread !== thread || this.#phase !== "loading") return;
    this.#phase = "ready";
    if (this.#task === null) this.#events.changed();
    else this.#enter(this.#task);
  }

  #enter(task: ClaimedTask): void {
    this.#thread?.run({
      type: "run",
      taskId: task.id,
      name: task.name,
      attempt: task.lease.attempt,
      fence: task.lease.fence,
      payload: task.payload,
      resultMaxBytes: this.#resultMaxBytes(),
    });
  }

  #ended(outcome: RunOutcome, rest: ReportPart, ranMs: number): void {
    this.#failures = 0;
    this.#end({ kind: "outcome", outcome, rest, ranMs });
  }

  /** Takes the run out of the slot, then tells. */
  #end(ending: RunEnding): void {
    const task = this.#task;
    this.#task = null;
    if (task !== null) this.#events.ended(task, ending);
    this.#events.changed();
  }

  #die(): void {
    const thread = this.#thread;
    if (thread === null) return;
    this.#phase = "dying";
    this.#timer = this.#clock.after(this.#stuckAfterMs, () => {
      this.#timer = null;
      this.#thread = null;
      this.#phase = "waiting";
      const replace = this.#events.stuck(thread);
      if (this.#task !== null) this.#end({ kind: "killed" });
      if (replace) this.#replace();
    });
    thread.terminate();
  }

  #replace(): void {
    if (this.#phase === "stopped") return;
    this.#events.restarted();
    this.#load();
  }

  #reloadLater(): void {
    const delayMs = Math.min(RELOAD_MAX_MS, RELOAD_MIN_MS * 2 ** this.#failures);
    this.#failures += 1;
    this.#phase = "waiting";
    this.#timer = this.#clock.after(delayMs, () => {
      this.#timer = null;
      this.#replace();
    });
  }

  #closed(thread: ExecutorThread, error: TaskError): void {
    if (this.#thread !== thread) {
      this.#events.unstuck(thread);
      return;
    }
    this.#thread = null;
    switch (this.#phase) {
      case "dying":
        this.#timer?.cancel();
        this.#timer = null;
        if (this.#task !== null) this.#end({ kind: "killed" });
        this.#replace();
        return;
      case "loading":
        this.#log.error("handlers did not load in a replaced Worker", { error: error.message });
        this.#reloadLater();
        if (this.#task !== null) this.#end({ kind: "not-started", error });
        return;
      case "ready":
        this.#log.warn("a handler's Worker died", {
          task_id: this.#task?.id ?? null,
          error: error.message,
        });
        // One that dies with no task in it (a stray timer of the module) could die for ever.
        if (this.#task === null) {
          this.#reloadLater();
          return;
        }
        this.#phase = "waiting";
        this.#end({ kind: "crashed", error });
        this.#replace();
        return;
      case "stopped":
        this.#onStopped?.();
        return;
      case "empty":
      case "waiting":
        return;
    }
  }
}
