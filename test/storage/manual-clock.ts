/** A clock whose timers fire when a test says so, and a log that says nothing. */
import type { Clock, Log } from "../../src/replica/ports.ts";

export class ManualClock implements Clock {
  #now = 0;
  #due: { readonly at: number; readonly run: () => void }[] = [];

  monotonic(): number {
    return this.#now;
  }

  wall(): number {
    return this.#now;
  }

  soon(run: () => void): void {
    setImmediate(run);
  }

  after(delay: number, run: () => void): { cancel: () => void } {
    const timer = { at: this.#now + delay, run };
    this.#due.push(timer);
    return {
      cancel: () => {
        this.#due = this.#due.filter((other) => other !== timer);
      },
    };
  }

  get timers(): number {
    return this.#due.length;
  }

  /** Time passes; each of the `users` of this clock keeps one timer, and is waited for until it has set the next. */
  async pass(ms: number, users = 1): Promise<void> {
    const until = this.#now + ms;
    for (;;) {
      const next = this.#due.toSorted((a, b) => a.at - b.at)[0];
      if (next === undefined || next.at > until) break;
      this.#due = this.#due.filter((other) => other !== next);
      this.#now = Math.max(this.#now, next.at);
      next.run();
      while (this.#due.length < users) await new Promise((resolve) => setImmediate(resolve));
    }
    this.#now = until;
  }
}

export const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };
