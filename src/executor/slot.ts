/**
 * One place where a handler may run. A slot owns at most one living Worker, which enters one handler at a time, and is
 * free only while neither a handler nor a dying Worker occupies it: the pool's cap rests on this file.
 *
 * Where runs are short it is given several tasks at once, in one message. Those that were not entered yet can be
 * taken back at any moment, so that none is stuck behind one that takes long.
 */
import type { Clock, Log, Timer } from "../replica/ports.ts";
import type { ClaimedTask, TaskError } from "../queue/types.ts";
import { ExecutorThread } from "./executor-thread.ts";
import type { ReportPart, RunEnd, RunOutcome, ThreadSetup } from "./protocol.ts";

/** Pause before a Worker that died while loading, or idle, is started again; doubles up to the maximum. */
const RELOAD_MIN_MS = 100;
/** Between two looks whether the process has room for a Worker: clients' silent connections end after two minutes, others sooner. */
const NO_ROOM_MS = 1_000;
const RELOAD_MAX_MS = 30_000;
/** Tasks that a slot may be given at once. */
const DEPTH = 16;

/** How a run left its slot. */
export type RunEnding =
  | {
      readonly kind: "outcome";
      readonly outcome: RunOutcome;
      /** What was not reported before; null: nothing. */
      readonly rest: ReportPart | null;
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
  /** Were given to the slot, and taken back before they were entered. */
  returned(tasks: readonly ClaimedTask[]): void;
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
  | "free"
  | "depth"
  | "blocked"
  | "run"
  | "holds"
  | "isShared"
  | "look"
  | "takeBack"
  | "abort"
  | "kill"
  | "unblock"
  | "stop"
>;

interface Given {
  readonly task: ClaimedTask;
  /** Its number at the Worker; null: not posted yet, the Worker is loading. */
  number: number | null;
}

export class ExecutorSlot {
  readonly #setup: ThreadSetup;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #events: SlotEvents;
  readonly #resultMaxBytes: () => number;
  readonly #stuckAfterMs: number;
  readonly #mayStart: () => boolean;
  #phase: Phase = "empty";
  #thread: ExecutorThread | null = null;
  /** Not ended yet, in the order in which they are entered. */
  #given: Given[] = [];
  /** Entries at the last look. */
  #seen = -1;
  /** Looks since the first one at that number of entries. */
  #looks = 0;
  #timer: Timer | null = null;
  /** Deaths while loading or idle since a handler last ended by itself. */
  #failures = 0;
  /** It waits for a file descriptor, and said so. */
  #isCramped = false;
  #onStopped: (() => void) | null = null;

  constructor(
    setup: ThreadSetup,
    clock: Clock,
    log: Log,
    resultMaxBytes: () => number,
    stuckAfterMs: number,
    mayStart: () => boolean,
    events: SlotEvents,
  ) {
    this.#setup = setup;
    this.#clock = clock;
    this.#log = log;
    this.#resultMaxBytes = resultMaxBytes;
    this.#stuckAfterMs = stuckAfterMs;
    this.#mayStart = mayStart;
    this.#events = events;
  }

  /** A task may be claimed for this slot. */
  get free(): boolean {
    return this.#given.length === 0 && (this.#phase === "empty" || this.#phase === "ready");
  }

  /** How many tasks it may be given at once. */
  get depth(): number {
    return this.#phase === "ready" ? DEPTH : 1;
  }

  /** Starts the Worker before it is needed. */
  warm(): void {
    if (this.#phase === "empty") this.#load();
  }

  /** To be run one after another. */
  run(tasks: readonly ClaimedTask[]): void {
    if (!this.free) throw new Error("a slot was given a task while it was not free");
    for (const task of tasks) this.#given.push({ task, number: null });
    if (this.#phase === "empty") this.#load();
    else this.#post();
  }

  /** The task was entered, or is about to be; not: it may still be taken back. */
  holds(task: ClaimedTask): boolean {
    const given = this.#given.find((one) => one.task === task);
    return given !== undefined && (this.#given.length === 1 || this.#isEntered(given));
  }

  /** Something may wait behind another task. */
  isShared(): boolean {
    return this.#given.length > 1;
  }

  /** Asked regularly: at how many looks in a row something waited here, and nothing was entered since the one before. */
  look(): number {
    const last = this.#given.at(-1);
    if (this.#thread === null || last === undefined || this.#given.length === 1) return 0;
    if (this.#isEntered(last)) return 0;
    const { nextEntry } = this.#thread;
    this.#looks = this.#seen === nextEntry ? this.#looks + 1 : 0;
    this.#seen = nextEntry;
    return this.#looks;
  }

  /** Takes back what waits for another task to end: `returned` tells of it. What is alone here is about to be entered. */
  takeBack(): void {
    if (this.#thread !== null && this.#given.length > 1) this.#return(this.#thread);
    if (this.#given.length === 0) this.#events.changed();
  }

  /** Aborts the handler's signal. A task whose Worker is still loading ends at once. */
  abort(task: ClaimedTask, reason: string): void {
    if (!this.#given.some((one) => one.task === task)) return;
    if (this.#phase === "loading") {
      this.#given = this.#given.filter((one) => one.task !== task);
      this.#events.ended(task, { kind: "not-started", error: null });
      this.#events.changed();
      return;
    }
    if (this.#phase === "ready") this.#thread?.abort(task.lease.fence, reason);
  }

  /** Kills the Worker under the task, unless another one was entered since: then this one has ended, unheard. */
  kill(task: ClaimedTask): void {
    if (this.#phase !== "ready") return;
    this.takeBack();
    if (this.#given.at(-1)?.task !== task) return;
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
    thread.takeBack();
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
    if (!this.#mayStart()) {
      if (!this.#isCramped)
        this.#log.warn("there is no file descriptor left for a Worker: its slot takes no task");
      this.#isCramped = true;
      this.#phase = "waiting";
      this.#timer = this.#clock.after(NO_ROOM_MS, () => {
        this.#timer = null;
        this.#load();
      });
      // Another member may have room, and its time would run out here.
      if (this.#given.length > 0) this.#endAll({ kind: "not-started", error: null });
      return;
    }
    this.#isCramped = false;
    this.#phase = "loading";
    const thread: ExecutorThread = new ExecutorThread(this.#setup, this.#clock, this.#log, {
      ready: () => this.#ready(thread),
      report: (fence, part) => {
        const task = this.#thread === thread ? this.#taskOf(fence) : null;
        if (task !== null) this.#events.report(task, part);
      },
      ended: (end) => {
        // While dying, too: a handler that ends just before the kill has ended.
        if (this.#thread === thread) this.#ended(end);
      },
      closed: (error) => this.#closed(thread, error),
    });
    this.#thread = thread;
  }

  #ready(thread: ExecutorThread): void {
    if (this.#thread !== thread || this.#phase !== "loading") return;
    this.#phase = "ready";
    if (this.#given.length === 0) this.#events.changed();
    else this.#post();
  }

  #post(): void {
    if (this.#thread === null) return;
    let number = this.#thread.run(
      this.#given.map(({ task }) => ({
        taskId: task.id,
        name: task.name,
        attempt: task.lease.attempt,
        fence: task.lease.fence,
        payload: task.payload,
      })),
      this.#resultMaxBytes(),
    );
    for (const given of this.#given) {
      given.number = number;
      number = (number + 1) | 0;
    }
    this.#seen = -1;
  }

  /** What was not entered leaves the slot, and will not be. */
  #return(thread: ExecutorThread): void {
    if (this.#given.length === 0 || this.#given[0]?.number === null) return;
    const from = thread.takeBack();
    const at = this.#given.findIndex(({ number }) => number !== null && ((number - from) | 0) >= 0);
    if (at === -1) return;
    const back = this.#given.splice(at);
    this.#events.returned(back.map(({ task }) => task));
  }

  #isEntered({ number }: Given): boolean {
    return number !== null && this.#thread?.isEntered(number) === true;
  }

  #taskOf(fence: number): ClaimedTask | null {
    return this.#given.find(({ task }) => task.lease.fence === fence)?.task ?? null;
  }

  #ended({ fence, outcome, rest, ran_ms: ranMs }: RunEnd): void {
    const at = this.#given.findIndex(({ task }) => task.lease.fence === fence);
    const [given] = at === -1 ? [] : this.#given.splice(at, 1);
    if (given === undefined) return;
    this.#failures = 0;
    this.#events.ended(given.task, { kind: "outcome", outcome, rest, ranMs });
    if (this.#given.length === 0) this.#events.changed();
  }

  /** Everything leaves the slot: what was entered last with this ending, what had ended unheard as killed. */
  #endAll(ending: RunEnding): void {
    const given = this.#given;
    this.#given = [];
    for (const [i, { task }] of given.entries())
      this.#events.ended(task, i === given.length - 1 ? ending : { kind: "killed" });
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
      if (this.#given.length > 0) this.#endAll({ kind: "killed" });
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
        if (this.#given.length > 0) this.#endAll({ kind: "killed" });
        this.#replace();
        return;
      case "loading":
        this.#log.error("handlers did not load in a replaced Worker", { error: error.message });
        this.#reloadLater();
        if (this.#given.length > 0) this.#endAll({ kind: "not-started", error });
        return;
      case "ready":
        this.#phase = "waiting";
        this.#return(thread);
        this.#log.warn("a handler's Worker died", {
          task_id: this.#given.at(-1)?.task.id ?? null,
          error: error.message,
        });
        // One that dies with no task in it (a stray timer of the module) could die for ever.
        if (this.#given.length === 0) {
          this.#reloadLater();
          return;
        }
        this.#endAll({ kind: "crashed", error });
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
