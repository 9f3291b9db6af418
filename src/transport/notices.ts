/** Warnings about connections, each sentence once in a while: a peer that redials would fill the log. */
import type { Clock, Log, Millis } from "../replica/ports.ts";

const REPEAT_MS: Millis = 30_000;
/** Sentences remembered. */
const MAX_REMEMBERED = 64;

/** Warnings within `REPEAT_MS`, whatever they say: strangers may make any number of sentences. */
const MAX_WARNINGS = 50;

export class Notices {
  readonly #log: Log;
  readonly #clock: Clock;
  /** When each sentence was last logged; oldest first. */
  readonly #last = new Map<string, Millis>();
  #windowStart: Millis = Number.NEGATIVE_INFINITY;
  #warnings = 0;

  constructor(log: Log, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
  }

  warn(sentence: string, fields: Readonly<Record<string, unknown>>): void {
    const now = this.#clock.monotonic();
    const last = this.#last.get(sentence);
    if (last !== undefined && now - last < REPEAT_MS) return;
    if (now - this.#windowStart >= REPEAT_MS) {
      this.#windowStart = now;
      this.#warnings = 0;
    }
    this.#warnings += 1;
    if (this.#warnings > MAX_WARNINGS) return;
    if (this.#warnings === MAX_WARNINGS) {
      this.#log.warn("more warnings about connections are left out", { forMs: REPEAT_MS });
      return;
    }
    this.#last.delete(sentence);
    this.#last.set(sentence, now);
    for (const oldest of this.#last.keys()) {
      if (this.#last.size <= MAX_REMEMBERED) break;
      this.#last.delete(oldest);
    }
    this.#log.warn(sentence, fields);
  }

  debug(sentence: string, fields: Readonly<Record<string, unknown>>): void {
    this.#log.debug(sentence, fields);
  }
}
