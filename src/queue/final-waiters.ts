/**
 * Who waits for a task to end. Woken by what this member applies; nobody asks again and again.
 */
import type { Clock, Millis } from "../replica/ports.ts";
import type { Signal } from "./commands.ts";
import { Deadlines } from "./deadlines.ts";
import { queueError } from "./proposals.ts";
import type { TaskState } from "./state.ts";
import { FINAL_STATUSES, type Task } from "./types.ts";

/** Waits held open by one member; each is a few hundred bytes beside its connection. */
export const FINAL_WAITERS_MAX = 10_000;

interface FinalWaiter {
  readonly id: string;
  settle(): void;
  fail(error: Error): void;
}

export class FinalWaiters {
  readonly #state: TaskState;
  readonly #clock: Clock;
  readonly #byId = new Map<string, Set<FinalWaiter>>();
  readonly #deadlines: Deadlines<FinalWaiter>;

  constructor(state: TaskState, clock: Clock) {
    this.#state = state;
    this.#clock = clock;
    this.#deadlines = new Deadlines(
      clock,
      () => clock.monotonic(),
      (late) => {
        for (const waiter of late) waiter.settle();
      },
    );
  }

  get size(): number {
    return this.#deadlines.size;
  }

  /**
   * The task when it has ended, or as it is after `waitMs` or when `signal` aborts. The caller made the
   * state current before. @throws QueueError overloaded
   */
  wait(id: string, waitMs: Millis, signal: AbortSignal | null): Promise<Task | null> {
    const task = this.#state.task(id);
    if (task === null || isFinal(task) || waitMs <= 0 || signal?.aborted === true)
      return Promise.resolve(task);
    if (this.#deadlines.size >= FINAL_WAITERS_MAX) {
      return Promise.reject(
        queueError(
          "overloaded",
          `${FINAL_WAITERS_MAX} callers wait for tasks on this member already`,
        ),
      );
    }
    const { promise, resolve, reject } = Promise.withResolvers<Task | null>();
    const abort = (): void => waiter.settle();
    const remove = (): void => {
      this.#deadlines.delete(waiter);
      const others = this.#byId.get(id);
      others?.delete(waiter);
      if (others?.size === 0) this.#byId.delete(id);
      signal?.removeEventListener("abort", abort);
    };
    const waiter: FinalWaiter = {
      id,
      settle: () => {
        remove();
        resolve(this.#state.task(id));
      },
      fail: (error) => {
        remove();
        reject(error);
      },
    };
    signal?.addEventListener("abort", abort, { once: true });
    const others = this.#byId.get(id);
    if (others === undefined) this.#byId.set(id, new Set([waiter]));
    else others.add(waiter);
    this.#deadlines.set(waiter, this.#clock.monotonic() + waitMs);
    return promise;
  }

  applied(signals: readonly Signal[]): void {
    if (this.#byId.size === 0) return;
    for (const signal of signals) {
      if (signal.type === "cleared") {
        this.recheck();
        continue;
      }
      const over = signal.type === "final" || (signal.type === "changed" && signal.to === null);
      if (over) for (const waiter of this.#byId.get(signal.id) ?? []) waiter.settle();
    }
  }

  /** A snapshot replaced the state without signals, or a clear hid rows: looks at each one again. */
  recheck(): void {
    for (const [id, waiters] of this.#byId) {
      const task = this.#state.task(id);
      if (task === null || isFinal(task)) for (const waiter of waiters) waiter.settle();
    }
  }

  failAll(error: () => Error): void {
    for (const waiters of this.#byId.values()) for (const waiter of waiters) waiter.fail(error());
  }
}

function isFinal(task: Task): boolean {
  return FINAL_STATUSES.includes(task.status);
}
