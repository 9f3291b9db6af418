/**
 * Log time (rule T1): what a leader writes into its entries as "now". It starts at the later of the wall
 * clock and the log's own last time, then advances by the monotonic clock, slewed towards the wall by at
 * most a tenth: it never goes back, never freezes and never jumps, whatever the wall clock does. A wall
 * clock that most others contradict bends nothing: in a long leadership a tenth would be hours. Nor does log time
 * start with it, where a member has won an election before it was contradicted.
 */
import type { Clock, Millis } from "./ports.ts";

/** Largest part of elapsed time by which log time is bent towards the wall clock. */
const SLEW_MAX = 0.1;

export class LogClock {
  readonly #clock: Clock;
  #now: number;
  #readAt: Millis;

  /** `wall`: what it shows by the clock that is to be trusted; `logTime`: the log's newest. Both in epoch ms. */
  constructor(clock: Clock, wall: Millis, logTime: Millis) {
    this.#clock = clock;
    this.#now = Math.max(wall, logTime);
    this.#readAt = clock.monotonic();
  }

  /** Epoch ms, whole; never less than before. `trusted`: false while this member's wall clock is the odd one out. */
  now(trusted = true): Millis {
    const monotonic = this.#clock.monotonic();
    const elapsed = Math.max(0, monotonic - this.#readAt);
    this.#readAt = monotonic;
    const straight = this.#now + elapsed;
    const error = trusted ? this.#clock.wall() - straight : 0;
    const bend = Math.max(-elapsed * SLEW_MAX, Math.min(elapsed * SLEW_MAX, error));
    this.#now = straight + bend;
    return Math.floor(this.#now);
  }
}
