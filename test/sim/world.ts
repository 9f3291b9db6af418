/**
 * Virtual time: one queue of events for all nodes, drawn from one seed. Nothing happens but by an event, so
 * the same seed gives the same run.
 */
import type { Clock, Millis, Random, Timer } from "../../src/replica/ports.ts";

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

export class World {
  readonly prng: Prng;
  #now: Millis = 0;
  #order = 0;
  /** Binary heap by (at, order). */
  readonly #heap: Event[] = [];
  events = 0;

  constructor(readonly seed: number) {
    this.prng = new Prng(seed);
  }

  get now(): Millis {
    return this.#now;
  }

  at(time: Millis, run: () => void): void {
    const event = { at: Math.max(time, this.#now), order: this.#order++, run };
    this.#heap.push(event);
    let i = this.#heap.length - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(this.#heap[i], this.#heap[parent])) break;
      this.#swap(i, parent);
      i = parent;
    }
  }

  /** Runs events until virtual time `until`, or until `done` says so; microtasks run between events. */
  async run(until: Millis, done: () => boolean = () => false): Promise<boolean> {
    while (!done()) {
      const next = this.#heap[0];
      if (next === undefined || next.at > until) {
        this.#now = until;
        return done();
      }
      this.#pop();
      this.#now = next.at;
      this.events += 1;
      next.run();
      await drainMicrotasks();
    }
    return true;
  }

  #pop(): void {
    const last = this.#heap.pop();
    if (last === undefined || this.#heap.length === 0) return;
    this.#heap[0] = last;
    let i = 0;
    for (;;) {
      const left = 2 * i + 1;
      const right = left + 1;
      let least = i;
      if (left < this.#heap.length && before(this.#heap[left], this.#heap[least])) least = left;
      if (right < this.#heap.length && before(this.#heap[right], this.#heap[least])) least = right;
      if (least === i) return;
      this.#swap(i, least);
      i = least;
    }
  }

  #swap(i: number, j: number): void {
    const a = this.#heap[i];
    const b = this.#heap[j];
    if (a === undefined || b === undefined) return;
    this.#heap[i] = b;
    this.#heap[j] = a;
  }
}

function before(a: Event | undefined, b: Event | undefined): boolean {
  if (a === undefined || b === undefined) return false;
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** Promise reactions chain; a handful of rounds reaches the end of the chains that the node uses. */
async function drainMicrotasks(): Promise<void> {
  for (let i = 0; i < 12; i++) await Promise.resolve();
}

/** A node's view of time. Timers of a node that was killed never fire. */
export class NodeClock implements Clock {
  /** Wall clock error, ms. */
  wallOffset: Millis = 0;
  #alive = true;
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  kill(): void {
    this.#alive = false;
  }

  monotonic(): Millis {
    return this.#world.now;
  }

  wall(): Millis {
    return 1_800_000_000_000 + this.#world.now + this.wallOffset;
  }

  after(delay: Millis, run: () => void): Timer {
    let cancelled = false;
    this.#world.at(this.#world.now + delay, () => {
      if (!cancelled && this.#alive) run();
    });
    return { cancel: () => (cancelled = true) };
  }

  soon(run: () => void): void {
    this.#world.at(this.#world.now, () => this.#alive && run());
  }
}
