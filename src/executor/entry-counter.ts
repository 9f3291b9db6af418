/**
 * Who has a task that was posted to a Worker: the Worker, which enters tasks in the order of their numbers, or the pool,
 * which may take back those that were not entered yet, at any moment and without asking a thread that may be busy. One
 * number in shared memory, that of the next task to be entered, decides: each is moved past by one of the two only.
 *
 * Numbers count a Worker's tasks from 0, modulo 2^32.
 */
export class EntryCounter {
  readonly buffer: SharedArrayBuffer;
  readonly #next: Int32Array;

  /** `buffer`: of the other side's counter. */
  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)) {
    this.buffer = buffer;
    this.#next = new Int32Array(buffer);
  }

  /** The Worker's: true: the task is its own from now on; false: it was taken back. */
  enter(number: number): boolean {
    const from = number | 0;
    return Atomics.compareExchange(this.#next, 0, from, (from + 1) | 0) === from;
  }

  /** Entered, or taken back. */
  isPast(number: number): boolean {
    return ((Atomics.load(this.#next, 0) - number) | 0) > 0;
  }

  /** Number of the next task to be entered. */
  get next(): number {
    return Atomics.load(this.#next, 0);
  }

  /** The pool's: takes back whatever below `end` was not entered; the lowest number of it, or `end`. */
  takeBack(end: number): number {
    const to = end | 0;
    for (;;) {
      const next = Atomics.load(this.#next, 0);
      if (((next - to) | 0) >= 0) return to;
      if (Atomics.compareExchange(this.#next, 0, next, to) === next) return next;
    }
  }
}
