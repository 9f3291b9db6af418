/**
 * What the leader does on its own clock, as commands: moves tasks whose time has come, deletes what a
 * clear hid, and what is past its retention. Each in bounded steps (T3), the next one only after the one
 * before was applied. With nothing to do it sleeps and the log stays as it is.
 */
import type { Clock, Log, Millis, Timer } from "../replica/ports.ts";
import type { Command } from "./commands.ts";
import type { TaskState } from "./state.ts";

/** Rows that one step may touch: half of an entry's budget. */
const STEP_MAX = 1_000;
/** At least this long between two purges that found nothing more to do. */
const PURGE_EVERY_MS: Millis = 5_000;
/** Looking for what is past its retention asks several tables: not after every apply. */
const PURGE_LOOK_MS: Millis = 1_000;
/** After a step that did not get through. */
const AGAIN_MS: Millis = 500;
/** A far deadline is looked at again: log time is slewed, and a timer has a greatest delay. */
const SLEEP_MAX_MS: Millis = 10_000;

type Chore = "due" | "clear-step" | "purge";
const CHORES: readonly Chore[] = ["due", "clear-step", "purge"];

export interface MaintenanceOptions {
  readonly state: TaskState;
  readonly clock: Clock;
  readonly log: Log;
  readonly logNow: () => Millis;
  /** Resolves with the `done` answer once the step was applied here. */
  readonly propose: (command: Command, weight: number) => Promise<{ readonly more: boolean }>;
}

export class Maintenance {
  readonly #o: MaintenanceOptions;
  readonly #running = new Set<Chore>();
  /** Not before this monotonic time. */
  readonly #notBefore: Record<Chore, Millis> = { due: 0, "clear-step": 0, purge: 0 };
  #term: number | null = null;
  #timer: Timer | null = null;
  #timerAt: Millis = 0;

  constructor(options: MaintenanceOptions) {
    this.#o = options;
  }

  start(term: number): void {
    this.stop();
    this.#term = term;
    this.look();
  }

  stop(): void {
    this.#term = null;
    this.#running.clear();
    this.#timer?.cancel();
    this.#timer = null;
    for (const chore of CHORES) this.#notBefore[chore] = 0;
  }

  /** Starts what is to be done now and sets the timer for what comes next. Called after every apply. */
  look(): void {
    if (this.#term === null) return;
    const now = this.#o.clock.monotonic();
    let sleepMs = Number.POSITIVE_INFINITY;
    for (const chore of CHORES) {
      if (this.#running.has(chore)) continue;
      const waitMs = this.#notBefore[chore] - now;
      const inMs = waitMs > 0 ? waitMs : this.#dueInMs(chore);
      if (inMs <= 0) {
        void this.#step(chore, this.#term);
        continue;
      }
      if (chore === "purge" && waitMs <= 0) this.#notBefore.purge = now + PURGE_LOOK_MS;
      sleepMs = Math.min(sleepMs, inMs);
    }
    this.#sleep(now, sleepMs);
  }

  /** One timer; one that is set for an earlier time stays, and looks again then. */
  #sleep(now: Millis, sleepMs: Millis): void {
    if (sleepMs === Number.POSITIVE_INFINITY) return;
    const delayMs = Math.max(1, Math.min(SLEEP_MAX_MS, Math.ceil(sleepMs)));
    if (this.#timer !== null && this.#timerAt <= now + delayMs) return;
    this.#timer?.cancel();
    this.#timerAt = now + delayMs;
    this.#timer = this.#o.clock.after(delayMs, () => {
      this.#timer = null;
      this.look();
    });
  }

  /** Infinity: nothing of the kind is waiting. */
  #dueInMs(chore: Chore): Millis {
    const { state, logNow } = this.#o;
    switch (chore) {
      case "due": {
        const at = state.nextDueAt();
        return at === null ? Number.POSITIVE_INFINITY : at - logNow();
      }
      case "clear-step":
        return state.clearing() ? 0 : Number.POSITIVE_INFINITY;
      case "purge": {
        const at = state.nextPurgeAt();
        return at === null ? Number.POSITIVE_INFINITY : at - logNow();
      }
    }
  }

  async #step(chore: Chore, term: number): Promise<void> {
    this.#running.add(chore);
    let pauseMs: Millis;
    try {
      const { more } = await this.#o.propose({ type: chore, term, max: STEP_MAX }, STEP_MAX);
      pauseMs = chore === "purge" && !more ? PURGE_EVERY_MS : 0;
    } catch (error) {
      this.#o.log.debug("a step of maintenance did not get through", {
        chore,
        error: String(error),
      });
      pauseMs = AGAIN_MS;
    }
    if (this.#term !== term) return;
    this.#running.delete(chore);
    this.#notBefore[chore] = this.#o.clock.monotonic() + pauseMs;
    this.look();
  }
}
