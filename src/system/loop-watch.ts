/**
 * How busy the main thread is, and how late its timers run.
 *
 * `performance.eventLoopUtilization` answers zeros in this runtime. What the system counts of the thread is better
 * than what a loop can say of itself: the time it ran, and the time it waited for a processor. Together they are the
 * time in which the loop did not sleep. (What it waits for a disk is in neither; it shows in the delay of timers.)
 */
import { readFileSync } from "node:fs";
import type { Clock, Millis, Timer } from "../replica/ports.ts";

const TIMER_MS: Millis = 50;
/** Shorter ones tell chance. */
const WINDOW_MS: Millis = 1_000;

export class LoopWatch {
  readonly #clock: Clock;
  readonly #delayed: (ms: Millis) => void;
  readonly #windowMs: Millis;
  #timer: Timer | null = null;
  #window: { readonly at: Millis; readonly busyMs: number } | null = null;
  #share: number | null = null;

  /** `delayed`: told how late each timer ran, milliseconds. The share is taken over `windowMs` at least. */
  constructor(clock: Clock, delayed: (ms: Millis) => void, windowMs: Millis = WINDOW_MS) {
    this.#clock = clock;
    this.#delayed = delayed;
    this.#windowMs = windowMs;
    this.#again();
  }

  /** Of the newest whole window, 0 to 1; null where the system does not say, and at first. */
  get busyShare(): number | null {
    return this.#share;
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  #again(): void {
    const dueAt = this.#clock.monotonic() + TIMER_MS;
    this.#timer = this.#clock.after(TIMER_MS, () => {
      const now = this.#clock.monotonic();
      this.#delayed(Math.max(0, now - dueAt));
      this.#look(now);
      this.#again();
    });
  }

  #look(now: Millis): void {
    const before = this.#window;
    if (before !== null && now - before.at < this.#windowMs) return;
    const busyMs = threadBusyMs();
    if (busyMs === null) return;
    if (before !== null) this.#share = Math.min(1, (busyMs - before.busyMs) / (now - before.at));
    this.#window = { at: now, busyMs };
  }
}

/** Time that the main thread ran or waited for a processor, since it began; null: this system does not say. */
function threadBusyMs(): number | null {
  try {
    // The main thread bears the number of the process.
    const text = readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8");
    const [ran, waited] = text.split(" ").map(Number);
    const total = (ran ?? Number.NaN) + (waited ?? Number.NaN);
    return Number.isFinite(total) ? total / 1e6 : null;
  } catch {
    return null;
  }
}
