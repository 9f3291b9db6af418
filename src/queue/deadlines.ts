/**
 * Many deadlines, one timer. A deadline may be moved as often as one likes: moving it later costs a map
 * write, and the heap learns of it only when the old time comes.
 */
import type { Clock, Millis, Timer } from "../replica/ports.ts";

/** Stale heap entries tolerated beside the live ones before the heap is rebuilt. */
const SLACK = 256;

interface HeapEntry<K> {
  readonly at: Millis;
  readonly key: K;
}

export class Deadlines<K> {
  readonly #clock: Clock;
  readonly #now: () => Millis;
  readonly #expired: (keys: readonly K[]) => void;
  readonly #at = new Map<K, Millis>();
  #heap: HeapEntry<K>[] = [];
  #timer: Timer | null = null;
  #timerAt = Number.POSITIVE_INFINITY;

  /**
   * `now` reads the clock that the deadlines are counted on: monotonic time, or log time, which the timer
   * follows only roughly; `expired` gets what is past, each key once.
   */
  constructor(clock: Clock, now: () => Millis, expired: (keys: readonly K[]) => void) {
    this.#clock = clock;
    this.#now = now;
    this.#expired = expired;
  }

  get size(): number {
    return this.#at.size;
  }

  set(key: K, at: Millis): void {
    const known = this.#at.get(key);
    this.#at.set(key, at);
    // A heap entry at or before `at` exists already: it is looked at again when its time comes.
    if (known !== undefined && known <= at) return;
    this.#push({ at, key });
    if (this.#heap.length > 2 * this.#at.size + SLACK) this.#rebuild();
    this.#arm();
  }

  delete(key: K): void {
    if (this.#at.delete(key) && this.#at.size === 0) this.clear();
  }

  clear(): void {
    this.#at.clear();
    this.#heap = [];
    this.#timer?.cancel();
    this.#timer = null;
    this.#timerAt = Number.POSITIVE_INFINITY;
  }

  #arm(): void {
    const next = this.#heap[0];
    if (next === undefined || (this.#timer !== null && this.#timerAt <= next.at)) return;
    this.#timer?.cancel();
    this.#timerAt = next.at;
    this.#timer = this.#clock.after(Math.max(1, Math.ceil(next.at - this.#now())), () =>
      this.#fire(),
    );
  }

  #fire(): void {
    this.#timer = null;
    this.#timerAt = Number.POSITIVE_INFINITY;
    const now = this.#now();
    const due: K[] = [];
    for (let top = this.#heap[0]; top !== undefined && top.at <= now; top = this.#heap[0]) {
      this.#pop();
      const at = this.#at.get(top.key);
      if (at === undefined) continue;
      if (at > now) {
        this.#push({ at, key: top.key });
        continue;
      }
      this.#at.delete(top.key);
      due.push(top.key);
    }
    this.#arm();
    if (due.length > 0) this.#expired(due);
  }

  #rebuild(): void {
    this.#heap = [];
    for (const [key, at] of this.#at) this.#push({ at, key });
  }

  #push(entry: HeapEntry<K>): void {
    const heap = this.#heap;
    let child = heap.length;
    heap.push(entry);
    while (child > 0) {
      const parent = (child - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || above.at <= entry.at) break;
      heap[child] = above;
      child = parent;
    }
    heap[child] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let parent = 0;
    for (;;) {
      let child = 2 * parent + 1;
      let below = heap[child];
      if (below === undefined) break;
      const right = heap[child + 1];
      if (right !== undefined && right.at < below.at) {
        child += 1;
        below = right;
      }
      if (below.at >= last.at) break;
      heap[parent] = below;
      parent = child;
    }
    heap[parent] = last;
  }
}
