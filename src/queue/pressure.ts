/**
 * When to refuse submits: while more wait for their answers than can be answered soon. A refusal costs little when it comes at
 * once; a submit that waits for seconds costs all of its work, and is given up or repeated by its caller meanwhile.
 *
 * What counts is how long the answered ones have waited: when not one of the answers of a whole window came in time, there is a
 * standing queue (as in CoDel, RFC 8289), and no more may wait from then on than were answered in that window. While
 * answers come in time the limit grows again. One burst, or the pause of an election, is no queue: after it the first
 * answers come quickly. Without any answers nothing is said: whether there is a leader at all is not known here.
 */
import type { Millis } from "../replica/ports.ts";

/** Three quarters of the commands that consensus takes of one member: the rest is for ends, claims and cancels. */
const WAITING_MAX = 12_288;
/** So few are no queue, however long they wait. */
const WAITING_MIN = 256;
/** Above an election with its timeout and the rounds of a slow disk. */
const WAIT_MAX_MS: Millis = 500;
const WINDOW_MS: Millis = 500;
/** Of the limit, for each window without a queue. */
const GROWTH = 1.25;

export class Pressure {
  #waiting = 0;
  #limit = WAITING_MAX;
  #windowStart: Millis = -Infinity;
  /** Answers of this window, and the shortest wait among them. */
  #answered = 0;
  #shortestMs: Millis = Infinity;

  get waiting(): number {
    return this.#waiting;
  }

  /** Whether a submit is to be refused now. */
  refuses(): boolean {
    return this.#waiting >= this.#limit;
  }

  /** A submit begins to wait. */
  began(): void {
    this.#waiting += 1;
  }

  /** It waits no more: after `waitedMs` with an answer, or without one (null). */
  ended(now: Millis, waitedMs: Millis | null): void {
    this.#waiting -= 1;
    if (waitedMs === null) return;
    const windowMs = now - this.#windowStart;
    if (windowMs >= WINDOW_MS) this.#judge(now, windowMs);
    this.#answered += 1;
    this.#shortestMs = Math.min(this.#shortestMs, waitedMs);
  }

  #judge(now: Millis, windowMs: Millis): void {
    const isQueue = this.#answered > 0 && this.#shortestMs > WAIT_MAX_MS;
    if (isQueue && this.#waiting >= WAITING_MIN / 2) {
      const inTime = (this.#answered * WAIT_MAX_MS) / windowMs;
      this.#limit = Math.min(this.#limit, Math.max(WAITING_MIN, Math.round(inTime)));
    } else {
      const windows = Math.min(100, windowMs / WINDOW_MS);
      this.#limit = Math.min(WAITING_MAX, Math.ceil(this.#limit * GROWTH ** windows));
    }
    this.#windowStart = now;
    this.#answered = 0;
    this.#shortestMs = Infinity;
  }
}
