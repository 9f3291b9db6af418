/**
 * Tasks that were claimed before a slot is free for them, so that a slot which is done with one goes on with the
 * next at once, instead of after a round trip and a round of the log. How many may wait is derived from how long
 * handlers take, and is none where that is more than a few milliseconds. What waits longer all the same is handed
 * back, at no cost to the task. The members do the same for their own executors.
 */
import type { Run } from "./run.ts";

/** What may wait is what the slots do in this time. */
const AHEAD_MS = 5;
/** Per slot, however short handlers are. */
const AHEAD_PER_SLOT_MAX = 16;
/** A task that waits longer was claimed too early. */
const PATIENCE_MS = 50;
/** Weight of the newest handler in the mean of their durations. */
const WEIGHT = 0.1;

export class Ahead {
  readonly #slots: number;
  /** By fence, oldest first; and when they came, monotonic ms. */
  readonly #waiting = new Map<number, { readonly run: Run; readonly since: number }>();
  /** Null: nothing has run yet. */
  #meanMs: number | null = null;

  constructor(slots: number) {
    this.#slots = slots;
  }

  /** How many tasks may be claimed for this place, those that wait in it included. */
  get room(): number {
    if (this.#meanMs === null) return 0;
    const perSlot = Math.min(AHEAD_PER_SLOT_MAX, AHEAD_MS / Math.max(this.#meanMs, 0.001));
    return Math.floor(perSlot * this.#slots);
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** When the oldest one will have waited too long, monotonic ms; Infinity: none waits. */
  get overdueAt(): number {
    for (const { since } of this.#waiting.values()) return since + PATIENCE_MS;
    return Infinity;
  }

  has(fence: number): boolean {
    return this.#waiting.has(fence);
  }

  *runs(): Iterable<Run> {
    for (const { run } of this.#waiting.values()) yield run;
  }

  /** A handler took so long. */
  ran(ms: number): void {
    this.#meanMs = this.#meanMs === null ? ms : this.#meanMs + WEIGHT * (ms - this.#meanMs);
  }

  add(run: Run, since: number): void {
    this.#waiting.set(run.lease.fence, { run, since });
  }

  /** Takes the one that has waited longest; null: none waits. */
  next(): Run | null {
    for (const fence of this.#waiting.keys()) return this.take(fence);
    return null;
  }

  take(fence: number): Run | null {
    const waiting = this.#waiting.get(fence);
    this.#waiting.delete(fence);
    return waiting?.run ?? null;
  }

  /** Takes all of them. */
  clear(): readonly Run[] {
    const runs = [...this.runs()];
    this.#waiting.clear();
    return runs;
  }

  /** The same, for they have waited too long: the slots are held by handlers whose length nobody knows yet. */
  giveUp(): readonly Run[] {
    this.#meanMs = Math.max(this.#meanMs ?? 0, PATIENCE_MS);
    return this.clear();
  }
}
