/**
 * Virtual time: one queue of events for all nodes, drawn from one seed. Nothing happens but by an event, so
 * the same seed gives the same run.
 */
import { drainMicrotasks } from "bun:jsc";
import type { Clock, Millis, Random, Timer } from "../../src/replica/ports.ts";

/** Epoch time at which virtual time begins. */
export const EPOCH: Millis = 1_800_000_000_000;
/** Events between two turns of the real event loop: they let the process breathe, and change nothing. */
const EVENTS_PER_TURN = 20_000;
/** What happens again and again in one moment would never end; bursts make some thousands of events. */
const AT_ONCE_MAX = 100_000;

/** Small, fast, good enough and reproducible: sfc32. */
export class Prng implements Random {
  #a: number;
  #b = 0x9e3779b9;
  #c = 0x243f6a88;
  #d = 1;
  #uuidLast = 0;

  constructor(seed: number) {
    this.#a = seed | 0;
    for (let i = 0; i < 12; i++) this.uint32();
  }

  uint32(): number {
    const t = (this.#a + this.#b + this.#d) | 0;
    this.#d = (this.#d + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (this.#c << 21) | (this.#c >>> 11);
    this.#c = (this.#c + t) | 0;
    return t >>> 0;
  }

  float(): number {
    return this.uint32() / 0x1_0000_0000;
  }

  /** Whole number in [low, high]. */
  between(low: number, high: number): number {
    return low + Math.floor(this.float() * (high - low + 1));
  }

  chance(probability: number): boolean {
    return this.float() < probability;
  }

  pick<T>(items: readonly T[]): T {
    const item = items[Math.floor(this.float() * items.length)];
    if (item === undefined) throw new Error("nothing to pick from");
    return item;
  }

  hex(bytes: number): string {
    let text = "";
    for (let i = 0; i < bytes; i++) text += (this.uint32() & 0xff).toString(16).padStart(2, "0");
    return text;
  }

  uuid(now: Millis): string {
    this.#uuidLast = Math.max(this.#uuidLast + 1, Math.floor(now) * 4096);
    const time = Math.floor(this.#uuidLast / 4096)
      .toString(16)
      .padStart(12, "0");
    const count = (this.#uuidLast % 4096).toString(16).padStart(3, "0");
    return `${time.slice(0, 8)}-${time.slice(8)}-7${count}-8${this.hex(2).slice(1)}-${this.hex(6)}`;
  }
}

interface Event {
  readonly at: Millis;
  readonly order: number;
  readonly run: () => void;
}

export class StandstillError extends Error {
  constructor(events: number) {
    super(`${events} events in one moment: virtual time stands still`);
  }
}

export class World {
  readonly prng: Prng;
  #now: Millis;
  #order = 0;
  /** What is to come: a binary heap by (at, order). */
  readonly #heap: Event[] = [];
  /** What is to happen now, oldest first, from `#soonFrom` on: a sixth of all, which needs no heap to be in order. */
  readonly #soon: (() => void)[] = [];
  #soonFrom = 0;
  events = 0;
  /** Events since virtual time last moved. */
  #atOnce = 0;

  constructor(
    readonly seed: number,
    startMs: Millis = 0,
  ) {
    this.prng = new Prng(seed);
    this.#now = startMs;
  }

  get now(): Millis {
    return this.#now;
  }

  at(at: Millis, run: () => void): void {
    if (!(at > this.#now)) {
      this.#soon.push(run);
      return;
    }
    const event: Event = { at, order: this.#order++, run };
    const heap = this.#heap;
    let i = heap.length;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      const above = heap[parent] as Event;
      // Of equal times the earlier one is in the heap already.
      if (above.at <= at) break;
      heap[i] = above;
      i = parent;
    }
    heap[i] = event;
  }

  /**
   * Runs events until virtual time `until`, or until `done` says so. What an event sets off in promises is
   * carried to its end before the next event: no chain of them takes virtual time, or overlaps another event.
   * @throws StandstillError when virtual time does not go on
   */
  async run(until: Millis, done: () => boolean = () => false): Promise<boolean> {
    drainMicrotasks();
    for (;;) {
      const isDone = this.#turn(until, done);
      if (isDone !== null) return isDone;
      await new Promise<void>((resolve) => {
        setImmediate(resolve);
      });
    }
  }

  /** The events of one turn: a loop that waits for nothing costs less. Null: there are more. Else what `done` said at last. */
  #turn(until: Millis, done: () => boolean): boolean | null {
    while (!done()) {
      const next = this.#next(until);
      if (next === null) {
        this.#now = Math.max(this.#now, until);
        return done();
      }
      if (this.#atOnce > AT_ONCE_MAX) throw new StandstillError(AT_ONCE_MAX);
      this.events += 1;
      next();
      drainMicrotasks();
      if (this.events % EVENTS_PER_TURN === 0) return null;
    }
    return true;
  }

  /** Takes the next event away, and virtual time on to it. Null: there is none until then. */
  #next(until: Millis): (() => void) | null {
    const first = this.#heap[0];
    const isSoon = this.#soonFrom < this.#soon.length;
    // What is in the heap for this moment was there before the moment came.
    if (first === undefined || (isSoon && first.at > this.#now)) {
      if (!isSoon || this.#now > until) return null;
      this.#atOnce += 1;
      return this.#takeSoon();
    }
    if (first.at > until) return null;
    this.#pop();
    this.#atOnce = first.at === this.#now ? this.#atOnce + 1 : 0;
    this.#now = first.at;
    return first.run;
  }

  #takeSoon(): (() => void) | null {
    const run = this.#soon[this.#soonFrom] ?? null;
    this.#soonFrom += 1;
    if (this.#soonFrom === this.#soon.length) {
      this.#soon.length = 0;
      this.#soonFrom = 0;
    }
    return run;
  }

  /** Takes the first event of the heap away: the last one sinks from the top to its place. */
  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    const { length } = heap;
    if (last === undefined || length === 0) return;
    let i = 0;
    for (;;) {
      let least = 2 * i + 1;
      if (least >= length) break;
      const right = heap[least + 1];
      if (right !== undefined && before(right, heap[least] as Event)) least += 1;
      const below = heap[least] as Event;
      if (before(last, below)) break;
      heap[i] = below;
      i = least;
    }
    heap[i] = last;
  }
}

function before(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** Timers fire when the node's own clock is this near to their time, for the sake of rounding. */
const EARLY_MS: Millis = 1e-6;
/** No timer fires in the moment in which it is set: what sets one again and again must let time pass. */
const TIMER_MIN_MS: Millis = 0.001;

/**
 * One process's view of time, and its life: nothing of a process runs after it was killed, or while it
 * stands still; what came meanwhile runs, in order, when it goes on.
 */
export class NodeClock implements Clock {
  /** Wall clock error, ms. */
  wallOffset: Millis = 0;
  #alive = true;
  /** The monotonic clock shows `#shown` until virtual time `#since`, and runs at `#rate` from there. */
  #shown: Millis = 0;
  #since: Millis = 0;
  #rate = 1;
  #stillUntil: Millis = 0;
  /** How often it stood still so far. */
  pauses = 0;
  /** The last time, virtual ms; null where its monotonic clock stood still as well. */
  lastPause: { readonly from: Millis; readonly until: Millis } | null = null;
  /** What came while the process stood still, oldest first. */
  #held: (() => void)[] = [];
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** What comes in now runs at once. */
  get awake(): boolean {
    return this.#alive && !this.still;
  }

  /** Stands still at this time. */
  get still(): boolean {
    return this.#world.now < this.#stillUntil;
  }

  kill(): void {
    this.#alive = false;
  }

  monotonic(): Millis {
    return this.#shown + Math.max(0, this.#world.now - this.#since) * this.#rate;
  }

  wall(): Millis {
    return Math.floor(EPOCH + this.#world.now + this.wallOffset);
  }

  /** From now on this clock gains or loses: 1.1 is a tenth too fast. */
  setRate(rate: number): void {
    this.#shown = this.monotonic();
    this.#since = Math.max(this.#since, this.#world.now);
    this.#rate = rate;
  }

  /** The process stands still (stopped, or its event loop is blocked); clocks go on. */
  pause(ms: Millis): void {
    this.pauses += 1;
    const from = this.still ? (this.lastPause?.from ?? null) : this.#world.now;
    this.#stillUntil = Math.max(this.#stillUntil, this.#world.now + ms);
    this.lastPause = from === null ? null : { from, until: this.#stillUntil };
    this.#world.at(this.#stillUntil, () => this.#wake());
  }

  /** The whole machine stands still: the monotonic clock does not count that time; the wall clock is set afterwards. */
  suspend(ms: Millis): void {
    this.pause(ms);
    this.lastPause = null;
    this.#shown = this.monotonic();
    this.#since = this.#world.now + ms;
  }

  resume(): void {
    this.pauses += 1;
    this.#stillUntil = Math.min(this.#stillUntil, this.#world.now);
    if (this.lastPause !== null) this.lastPause = { ...this.lastPause, until: this.#stillUntil };
    this.#since = Math.min(this.#since, this.#world.now);
    this.#wake();
  }

  #wake(): void {
    if (this.still) return;
    const held = this.#held;
    this.#held = [];
    for (const run of held) this.#world.at(this.#world.now, () => this.enter(run));
  }

  /** Runs a part of the process: now, when it goes on, or never. */
  enter(run: () => void): void {
    if (!this.#alive) return;
    if (this.still) this.#held.push(run);
    else run();
  }

  after(delay: Millis, run: () => void): Timer {
    const due = this.monotonic() + delay;
    let left: (() => void) | null = run;
    const look = (): void => {
      if (!this.awake) this.enter(look);
      else if (left !== null && this.monotonic() < due - EARLY_MS) this.#lookAt(due, look);
      else left?.();
    };
    this.#lookAt(due, look);
    return { cancel: () => (left = null) };
  }

  #lookAt(due: Millis, look: () => void): void {
    const left = Math.max(TIMER_MIN_MS, due - this.monotonic());
    this.#world.at(this.#world.now + left / this.#rate, look);
  }

  soon(run: () => void): void {
    this.#world.at(this.#world.now, () => this.enter(run));
  }
}
