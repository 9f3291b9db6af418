/**
 * Tasks that were claimed before there is a slot for them, so that a slot which is done with one goes on with
 * the next at once instead of after a round of the log. They wait here for moments only: how many may is
 * derived from how long runs take, and is none where they take more than a few milliseconds. What waits longer
 * all the same is handed back, at no cost to the task.
 *
 * Nothing here runs: how many handlers do at once is the slots' alone.
 */
import type { Clock, Timer } from "../replica/ports.ts";
import type { ClaimedTask } from "../queue/types.ts";

/** What may wait is what the slots do in this time. */
const AHEAD_MS = 5;
/** Per slot, however short runs are: with so many, a round of the log serves them by the batch. */
const AHEAD_PER_SLOT_MAX = 16;
/** Runs that take no longer may be given to a slot several at once. */
const QUICK_MS = 1;
/** A task that waits longer was claimed too early. */
const PATIENCE_MS = 50;
/** Weight of the newest run in the mean of their durations. */
const WEIGHT = 0.1;

export interface AheadTask {
  readonly task: ClaimedTask;
  /** Monotonic. */
  readonly claimedAt: number;
}

export class Ahead {
  readonly #clock: Clock;
  readonly #slots: number;
  /** Told of tasks that have waited too long; they are out of here then. */
  readonly #overdue: (tasks: readonly ClaimedTask[]) => void;
  /** By fence, oldest first. */
  readonly #waiting = new Map<number, AheadTask>();
  /** Milliseconds; null: nothing has run yet. */
  #mean: number | null = null;
  #timer: Timer | null = null;

  constructor(clock: Clock, slots: number, overdue: (tasks: readonly ClaimedTask[]) => void) {
    this.#clock = clock;
    this.#slots = slots;
    this.#overdue = overdue;
  }

  /** How many tasks may be claimed for this place, those that wait in it included. */
  get room(): number {
    if (this.#mean === null) return 0;
    const perSlot = Math.min(AHEAD_PER_SLOT_MAX, AHEAD_MS / Math.max(this.#mean, 0.001));
    return Math.floor(perSlot * this.#slots);
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Runs are so short that a round of the log takes longer: what they need is gathered, not hurried. */
  get busy(): boolean {
    return this.room > 0;
  }

  /** How many of those that wait a free slot may be given at once, so that the others get as many. */
  get share(): number {
    if (this.#mean === null || this.#mean > QUICK_MS) return 1;
    return Math.ceil(this.#waiting.size / this.#slots);
  }

  has(fence: number): boolean {
    return this.#waiting.has(fence);
  }

  /** A run took so long. */
  ran(ms: number): void {
    this.#mean = this.#mean === null ? ms : this.#mean + WEIGHT * (ms - this.#mean);
  }

  add(task: ClaimedTask): void {
    this.#waiting.set(task.lease.fence, { task, claimedAt: this.#clock.monotonic() });
    this.#timer ??= this.#clock.after(PATIENCE_MS, () => this.#look());
  }

  /** They were with a slot, which did not come to run them: they go before all others, as old as they are. */
  putBack(tasks: readonly AheadTask[]): void {
    const behind = [...this.#waiting];
    this.#waiting.clear();
    for (const waiting of tasks) this.#waiting.set(waiting.task.lease.fence, waiting);
    for (const [fence, waiting] of behind) this.#waiting.set(fence, waiting);
    this.#timer ??= this.#clock.after(PATIENCE_MS, () => this.#look());
  }

  /** Takes the one that has waited longest; null: none waits. */
  next(): AheadTask | null {
    for (const waiting of this.#waiting.values()) return this.take(waiting.task.lease.fence);
    return null;
  }

  take(fence: number): AheadTask | null {
    const waiting = this.#waiting.get(fence);
    if (waiting === undefined) return null;
    this.#waiting.delete(fence);
    if (this.#waiting.size === 0) this.#cancel();
    return waiting;
  }

  /** Takes all of them. */
  clear(): readonly ClaimedTask[] {
    const tasks = [...this.#waiting.values()].map(({ task }) => task);
    this.#waiting.clear();
    this.#cancel();
    return tasks;
  }

  #cancel(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  #look(): void {
    this.#timer = null;
    const now = this.#clock.monotonic();
    for (const { claimedAt } of this.#waiting.values()) {
      if (now - claimedAt < PATIENCE_MS) {
        this.#timer = this.#clock.after(PATIENCE_MS - (now - claimedAt), () => this.#look());
        return;
      }
      // The slots are held by runs whose length nobody knows yet: until some have ended soon, none waits.
      this.#mean = Math.max(this.#mean ?? 0, PATIENCE_MS);
      this.#overdue(this.clear());
      return;
    }
  }
}
