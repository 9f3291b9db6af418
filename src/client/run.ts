/** One claimed task while its handler runs: what the handler is given, and what it has said so far. */
import type { ClaimedTask, HeartbeatLease, LeaseRef } from "./types.ts";

/** What an attempt may log; what exceeds it is cut, and marked, by the members. */
const LOG_MAX_LENGTH = 64 * 1024;
const LINES_PER_REQUEST = 1_000;
const PROGRESS_MESSAGE_MAX = 1_000;

/** Why a run is being stopped: confirmed with a release, or silent, or answered with what the handler makes of it. */
export type StopCause = "cancel" | "lost" | "timeout" | "drain";

/** One attempt, as its handler sees it: the same as for a handler inside a member, and the task. */
export interface WorkerContext {
  /** Aborts on cancel, time-out, lost lease or shutdown; `signal.reason` is an Error that says which. */
  readonly signal: AbortSignal;
  /** Counts the claims of this task, from 1. */
  readonly attempt: number;
  /** Grows with every claim in the cluster: a fencing token for whatever the handler writes to. */
  readonly fence: number;
  readonly taskId: string;
  readonly name: string;
  readonly task: ClaimedTask;
  /** 0 to 100 (clamped); sent at most once a second. @throws TypeError on NaN. */
  readonly progress: (percent: number, message?: string) => void;
  /** Appends to the attempt's log, which is cut at 64 KiB. */
  readonly log: (line: string) => void;
}

/** Returns the result (any JSON value, or undefined for none); throws to fail. Methods, so that payloads may be typed. */
export type WorkerHandler = {
  handle(payload: unknown, context: WorkerContext): unknown;
}["handle"];
export type WorkerHandlers = Readonly<Record<string, WorkerHandler>>;

/** By its fence it is unique in the cluster. Times are monotonic ms. */
export class Run {
  readonly lease: LeaseRef;
  /** Made when the handler asks for its signal: most never do. */
  #controller: AbortController | null = null;
  #abortReason: Error | null = null;
  /** When the newest heartbeat that was answered was sent. */
  confirmedAt: number;
  readonly timeoutAt: number;
  stop: StopCause | null = null;
  /** A cancel is confirmed without the handler, which did not end in time. */
  graceUntil = Infinity;
  /** The task was given back: nothing that the handler does counts any more. */
  released = false;
  /** Until the lines that were taken so far are sent; null: nothing was ever logged. */
  logging: Promise<void> | null = null;
  #progress: HeartbeatLease["progress"] | undefined = undefined;
  readonly #lines: string[] = [];
  #logLength = 0;

  /** `receivedAt`: the members time the attempt out by their own clock; this one must not do so before them. */
  constructor(
    readonly task: ClaimedTask,
    confirmedAt: number,
    receivedAt: number,
  ) {
    const { attempt, fence } = task.lease;
    this.lease = { task_id: task.id, attempt, fence };
    this.confirmedAt = confirmedAt;
    this.timeoutAt = task.timeout_ms === null ? Infinity : receivedAt + task.timeout_ms;
  }

  /** `said` is called when there is something to send. */
  context(said: () => void): WorkerContext {
    const { task, lease } = this;
    const signal = (): AbortSignal => this.#signal();
    return {
      get signal() {
        return signal();
      },
      attempt: lease.attempt,
      fence: lease.fence,
      taskId: task.id,
      name: task.name,
      task,
      progress: (percent, message) => {
        if (typeof percent !== "number" || Number.isNaN(percent))
          throw new TypeError(`progress: percent must be a number, not ${percent}`);
        this.#progress = {
          percent: Math.min(100, Math.max(0, percent)),
          message: message === undefined ? null : String(message).slice(0, PROGRESS_MESSAGE_MAX),
        };
        said();
      },
      log: (line) => {
        if (this.#logLength > LOG_MAX_LENGTH) return;
        const text = String(line).slice(0, LOG_MAX_LENGTH).toWellFormed();
        this.#logLength += text.length + 1;
        this.#lines.push(text);
        said();
      },
    };
  }

  /** A first cause is replaced by a quieter one only. */
  abort(cause: StopCause, reason: string): void {
    if (this.stop === "lost" || this.stop === cause) return;
    if (this.stop === "cancel" && cause !== "lost") return;
    this.stop = cause;
    this.#abortReason ??= new Error(reason);
    this.#controller?.abort(this.#abortReason);
  }

  #signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#abortReason !== null) this.#controller.abort(this.#abortReason);
    }
    return this.#controller.signal;
  }

  get hasProgress(): boolean {
    return this.#progress !== undefined;
  }

  get hasLines(): boolean {
    return this.#lines.length > 0;
  }

  /** The lease for a heartbeat, with the progress that was not sent yet. */
  takeBeat(): HeartbeatLease {
    const progress = this.#progress;
    this.#progress = undefined;
    return progress === undefined ? this.lease : { ...this.lease, progress };
  }

  /** Lines for one request; empty when there are none. */
  takeLines(): string[] {
    return this.#lines.splice(0, LINES_PER_REQUEST);
  }
}
