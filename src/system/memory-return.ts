/**
 * Gives memory back when a load is over. The engine collects when it allocates: a member that falls quiet would keep
 * the garbage of its busiest moment, some hundred MiB, until the next load. A whole collection stops the thread for
 * some tens of milliseconds, so it is made when nothing happens, and only if there may be something to gain.
 */
import type { Clock, Millis, Timer } from "../replica/ports.ts";

const LOOK_MS: Millis = 1_000;
/** Looks in a row without a load before a collection. */
const QUIET_LOOKS = 2;
/** Growth of the process since the newest collection that is worth one. */
const GROWTH_BYTES = 16 * 1024 * 1024;

export interface MemoryUse {
  /** Nothing happens that a pause of some tens of milliseconds would disturb. */
  readonly isQuiet: () => boolean;
  /** Of the process, resident. Null: not known now, as when there is no file descriptor left to read it by. */
  readonly bytes: () => number | null;
  /** Collects, and gives back what it can. */
  readonly collect: () => void;
}

export class MemoryReturn {
  readonly #clock: Clock;
  readonly #use: MemoryUse;
  #timer: Timer | null = null;
  #quietLooks = 0;
  /** What the process needed at least, since the newest collection or ever. */
  #floor = Infinity;

  constructor(clock: Clock, use: MemoryUse) {
    this.#clock = clock;
    this.#use = use;
    this.#again();
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  #again(): void {
    this.#timer = this.#clock.after(LOOK_MS, () => {
      this.#look();
      this.#again();
    });
  }

  #look(): void {
    const bytes = this.#use.bytes();
    if (bytes === null) return;
    this.#floor = Math.min(this.#floor, bytes);
    this.#quietLooks = this.#use.isQuiet() ? this.#quietLooks + 1 : 0;
    if (this.#quietLooks < QUIET_LOOKS || bytes - this.#floor < GROWTH_BYTES) return;
    this.#quietLooks = 0;
    this.#use.collect();
    // What is left now is in use, as far as anybody knows; what goes back later lowers it again.
    this.#floor = this.#use.bytes() ?? bytes;
  }
}
