/**
 * A histogram of latencies with a fixed relative error, in the manner of HdrHistogram (Gil Tene): values from 1 µs to
 * minutes in 128 steps for every doubling, so that no percentile is off by more than one per cent and a
 * million of them cost a few kilobytes.
 */

const STEPS = 256;
const STEP_BITS = 8;
/** 2^26 µs: about 67 s. */
const DOUBLINGS = 26;

export class Histogram {
  readonly #counts = new Uint32Array(STEPS * (DOUBLINGS - STEP_BITS + 2));
  #total = 0;
  #maxMs = 0;

  get count(): number {
    return this.#total;
  }

  get maxMs(): number {
    return this.#maxMs;
  }

  record(ms: number): void {
    const us = Math.max(0, Math.round(ms * 1_000));
    const at = Math.min(slotOf(us), this.#counts.length - 1);
    this.#counts[at] = (this.#counts[at] ?? 0) + 1;
    this.#total += 1;
    if (ms > this.#maxMs) this.#maxMs = ms;
  }

  /** The smallest value, in ms, that `percent` of all are not above; NaN without any. */
  percentile(percent: number): number {
    if (this.#total === 0) return Number.NaN;
    const wanted = Math.max(1, Math.ceil((percent / 100) * this.#total));
    let seen = 0;
    for (let at = 0; at < this.#counts.length; at++) {
      seen += this.#counts[at] ?? 0;
      if (seen >= wanted) return Math.min(upperOf(at) / 1_000, this.#maxMs);
    }
    return this.#maxMs;
  }
}

/** Below 256 µs each microsecond has its slot; then each doubling has 128 of them. */
function slotOf(us: number): number {
  if (us < STEPS) return us;
  const doubling = 31 - Math.clz32(us) - (STEP_BITS - 1);
  return doubling * (STEPS / 2) + (us >>> doubling);
}

/** The largest whole number of microseconds in the slot. */
function upperOf(slot: number): number {
  if (slot < STEPS) return slot;
  const doubling = Math.floor((slot - STEPS / 2) / (STEPS / 2));
  const step = slot - doubling * (STEPS / 2);
  return (step + 1) * 2 ** doubling - 1;
}
