/**
 * When to refuse submits: while more wait for their answers than can be answered soon. A refusal costs little when it comes at
 * once; a submit that waits for seconds costs all of its work, and is given up or repeated by its caller meanwhile.
 *
 * What counts is how long the answered ones have waited: when for a second and a half not one answer came in time, there is
 * perhaps a standing queue (as in CoDel, RFC 8289), and no more may wait from then on than are answered in time. While answers
 * come in time the limit grows again. One burst, or the pause of an election, is no queue: after it the first
 * answers come quickly. Without any answers nothing is said: whether there is a leader at all is not known here.
 *
 * Perhaps, for a wait may have other reasons than those who wait: the rounds of a crowd of callers that are refused and ask again, or
 * a slow disk. A lower limit does not shorten such a wait; it only lets fewer through, and more are refused. So each limit is a
 * trial, and how many are answered under it is compared with how many were before. A queue is answered as fast with fewer
 * waiting; where answers follow the limit, it goes up for as long as that brings more of them, and rests there for a while.
 */
import type { Millis } from "../replica/ports.ts";

/** Three quarters of the commands that consensus takes of one member: the rest is for ends, claims and cancels. */
const WAITING_MAX = 12_288;
/** So few are no queue, however long they wait. */
const WAITING_MIN = 256;
/** Above an election with its timeout and the rounds of a slow disk. */
const WAIT_MAX_MS: Millis = 500;
const WINDOW_MS: Millis = 500;
/** Late for so long is no pause, and no chance of a few rounds. */
const LATE_MS: Millis = 1_500;
/** Of the limit, for each window without a queue. */
const GROWTH = 1.25;
/** A smaller step down shows nothing that other load would not hide. */
const STEP_DOWN = 1.5;
const STEP_UP = 2;
/**
 * Answers follow the limit when a step of k times changes their rate by more than k to this power. In a queue it is 0, with a fixed wait 1.
 * Nearer to 0: to refuse what would have been answered is the worse mistake, for the number that waits is bounded anyway.
 */
const FOLLOWS = 1 / 3;
/** A smaller one was none: a limit that nobody reaches was raised. */
const STEP_SEEN = 1.1;
/** For so long the limit is left alone after a step in vain; twice as long after each further one. */
const HOLD_MIN_MS: Millis = 4_000;
const HOLD_MAX_MS: Millis = 32_000;
/** Unless waits become so much longer meanwhile. */
const HOLD_WAIT_FACTOR = 1.5;

/** What a window has shown. */
interface Window {
  /** The most that waited at once. */
  readonly waiting: number;
  /** Answers a second. */
  readonly rate: number;
  readonly shortestMs: Millis;
}

/** A step of the limit, and what was known before it. */
interface Trial {
  readonly limit: number;
  readonly before: Window;
  readonly direction: "down" | "up";
}

export class Pressure {
  #waiting = 0;
  #limit = WAITING_MAX;
  #trial: Trial | null = null;
  /** How long the limit is still left alone, and the wait that is known of it. */
  #hold: Millis = 0;
  #heldWaitMs: Millis = 0;
  #nextHold: Millis = HOLD_MIN_MS;
  /** Answers count from the first submit that was taken under the present limit. */
  #countsFrom: Millis = -Infinity;
  #lastAnswer: Millis = -Infinity;
  /** Of this window; it begins and ends with an answer, so that it holds whole rounds. */
  #windowStart: Millis | null = null;
  #answered = 0;
  #shortestMs: Millis = Infinity;
  #mostWaiting = 0;

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
    if (this.#waiting > this.#mostWaiting) this.#mostWaiting = this.#waiting;
  }

  /** It waits no more: after `waitedMs` with an answer, or without one (null). */
  ended(now: Millis, waitedMs: Millis | null): void {
    this.#waiting -= 1;
    if (waitedMs === null) return;
    const began = now - waitedMs;
    const idleMs = began - this.#lastAnswer;
    this.#lastAnswer = now;
    if (idleMs >= WINDOW_MS) this.#rest(idleMs);
    if (began < this.#countsFrom) return;
    if (this.#windowStart === null) this.#startWindow(now);
    else {
      const windowMs = now - this.#windowStart;
      if (windowMs >= this.#enoughMs()) {
        this.#judge(now, windowMs);
        if (this.#windowStart === null) return;
      }
    }
    this.#answered += 1;
    this.#shortestMs = Math.min(this.#shortestMs, waitedMs);
  }

  get #late(): boolean {
    return this.#shortestMs > WAIT_MAX_MS && this.#mostWaiting >= WAITING_MIN / 2;
  }

  /** How long the present window has to be to say something. */
  #enoughMs(): Millis {
    if (!this.#late) return WINDOW_MS;
    // Rates are compared over whole waits: less may hold half a round.
    return this.#trial === null ? LATE_MS : Math.max(WINDOW_MS, this.#shortestMs);
  }

  #startWindow(now: Millis): void {
    this.#windowStart = now;
    this.#answered = 0;
    this.#shortestMs = Infinity;
    this.#mostWaiting = this.#waiting;
  }

  /** What is answered now was taken after the last answer: nothing waited in between, and what was known of waits is past. */
  #rest(idleMs: Millis): void {
    this.#trial = null;
    this.#hold = 0;
    this.#nextHold = HOLD_MIN_MS;
    this.#windowStart = null;
    this.#grow(idleMs);
  }

  #grow(overMs: Millis): void {
    const windows = Math.min(100, overMs / WINDOW_MS);
    this.#limit = Math.min(WAITING_MAX, Math.ceil(this.#limit * GROWTH ** windows));
  }

  #judge(now: Millis, windowMs: Millis): void {
    const late = this.#late;
    const rate = (this.#answered * 1_000) / windowMs;
    const window = { waiting: this.#mostWaiting, rate, shortestMs: this.#shortestMs };
    const trial = this.#trial;
    this.#trial = null;
    this.#startWindow(now);
    if (!late) {
      this.#hold = 0;
      this.#nextHold = Math.max(HOLD_MIN_MS, this.#nextHold / 2);
      this.#grow(windowMs);
    } else if (trial === null) {
      const longer = window.shortestMs > this.#heldWaitMs * HOLD_WAIT_FACTOR;
      this.#hold = longer ? 0 : this.#hold - windowMs;
      if (this.#hold <= 0) this.#lower(window, now);
    } else if (trial.direction === "down") {
      if (answersFollow(trial.before, window)) this.#raise(trial.limit, trial.before, now);
      else this.#lower(window, now);
    } else if (answersFollow(trial.before, window)) this.#raise(this.#limit, window, now);
    else this.#holdAt(trial.limit, trial.before, now);
  }

  #lower(seen: Window, now: Millis): void {
    const inTime = (seen.rate * WAIT_MAX_MS) / 1_000;
    const lower = Math.max(WAITING_MIN, Math.min(inTime, seen.waiting / STEP_DOWN));
    if (lower >= this.#limit) this.#raise(this.#limit, seen, now);
    else this.#try({ limit: this.#limit, before: seen, direction: "down" }, lower, now);
  }

  /** A step up from `limit`, under which `seen` was seen. */
  #raise(limit: number, seen: Window, now: Millis): void {
    if (limit >= WAITING_MAX) this.#holdAt(limit, seen, now);
    else this.#try({ limit, before: seen, direction: "up" }, limit * STEP_UP, now);
  }

  #try(trial: Trial, limit: number, now: Millis): void {
    this.#trial = trial;
    this.#set(limit, now);
  }

  #holdAt(limit: number, seen: Window, now: Millis): void {
    this.#hold = this.#nextHold;
    this.#nextHold = Math.min(HOLD_MAX_MS, 2 * this.#nextHold);
    this.#heldWaitMs = seen.shortestMs;
    this.#set(limit, now);
  }

  #set(limit: number, now: Millis): void {
    this.#limit = Math.min(WAITING_MAX, Math.round(limit));
    this.#countsFrom = now;
    this.#windowStart = null;
  }
}

/** Whether more are answered because more may wait, or fewer because fewer may. */
function answersFollow(before: Window, after: Window): boolean {
  const step = Math.log(after.waiting / before.waiting);
  return (
    Math.abs(step) > Math.log(STEP_SEEN) && Math.log(after.rate / before.rate) / step > FOLLOWS
  );
}
