/**
 * When a member whose state is wrong (T9) fetches another one: at once. One that is found wrong again and again makes
 * the same mistake each time, and a snapshot is work for everybody: so every next time it waits longer.
 */
import type { Log, Millis } from "./ports.ts";

const AGAIN_MS: Millis = 60_000;
const AGAIN_MAX_MS: Millis = 3_600_000;
/** Between two tries: the leader may be another one by then, or there may be room on the disk. */
const RETRY_MS: Millis = 10_000;

export class RepairPace {
  readonly #log: Log;
  /** Times that a state was found wrong since the start. */
  #times = 0;
  #isWrong = false;
  #notBefore: Millis = 0;

  constructor(log: Log) {
    this.#log = log;
  }

  /** On every tick. `isWrong`: the state is, as far as is known. */
  isDue(now: Millis, isWrong: boolean): boolean {
    if (isWrong && !this.#isWrong) this.#found(now);
    this.#isWrong = isWrong;
    return isWrong && now >= this.#notBefore;
  }

  tried(now: Millis): void {
    this.#notBefore = now + RETRY_MS;
  }

  #found(now: Millis): void {
    const waitMs =
      this.#times === 0 ? 0 : Math.min(AGAIN_MAX_MS, AGAIN_MS * 2 ** Math.min(16, this.#times - 1));
    this.#times += 1;
    this.#notBefore = now + waitMs;
    if (waitMs > 0)
      this.#log.error("the state was found wrong again after it had been replaced", {
        times: this.#times,
        replaced_in_ms: waitMs,
      });
  }
}
