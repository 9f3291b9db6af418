/**
 * A reading that may have to ask another member, shared by everybody who looks: asked for at most once
 * per period, given up after a limit, so that a slow leader never holds up a page.
 */
import type { Clock, Millis } from "../replica/ports.ts";

export class SharedReading<T> {
  readonly #clock: Clock;
  readonly #read: () => Promise<T>;
  readonly #freshMs: Millis;
  readonly #limitMs: Millis;
  #pending: Promise<T | null> | null = null;
  #value: T | null = null;
  #readAt = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock, read: () => Promise<T>, freshMs: Millis, limitMs: Millis) {
    this.#clock = clock;
    this.#read = read;
    this.#freshMs = freshMs;
    this.#limitMs = limitMs;
  }

  /** Null: not known, because the reading failed or took too long. */
  async get(): Promise<T | null> {
    if (this.#pending !== null) return this.#pending;
    if (this.#clock.monotonic() - this.#readAt < this.#freshMs) return this.#value;
    this.#pending = this.#ask();
    return this.#pending;
  }

  async #ask(): Promise<T | null> {
    const limit = Promise.withResolvers<null>();
    const timer = this.#clock.after(this.#limitMs, () => limit.resolve(null));
    try {
      this.#value = await Promise.race([this.#read(), limit.promise]);
    } catch {
      this.#value = null;
    } finally {
      timer.cancel();
      this.#readAt = this.#clock.monotonic();
      this.#pending = null;
    }
    return this.#value;
  }
}
