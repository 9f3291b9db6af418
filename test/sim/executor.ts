/**
 * A slot of the real executor pool with a simulated Worker in it: tasks take virtual time, and succeed, fail,
 * snooze, crash or hang as the seed says. Everything around it (claims, heartbeats, ends, stops) is the pool's.
 */
import type { RunOutcome } from "../../src/executor/protocol.ts";
import type { RunEnding, Slot, SlotEvents } from "../../src/executor/slot.ts";
import type { Clock, Millis, Timer } from "../../src/replica/ports.ts";
import type { ClaimedTask, TaskError } from "../../src/queue/types.ts";
import type { Prng } from "./world.ts";

/** What handlers do, drawn anew for each run. */
export interface Mood {
  /** False: every task succeeds, soon. */
  wild(): boolean;
  readonly crashes: boolean;
  readonly hangs: boolean;
  /** One of them happened. */
  struck(what: "executor-crash" | "executor-hang"): void;
}

const NO_REST = { progress: null, lines: [] };
const WORKER_START_MS: Millis = 30;
/** Tasks that a slot takes at once. */
const DEPTH = 4;

export function errorOf(message: string, retryable = true): TaskError {
  return { type: "Error", message, stack: null, retryable };
}

export class SimSlot implements Slot {
  readonly #clock: Clock;
  readonly #prng: Prng;
  readonly #mood: Mood;
  readonly #events: SlotEvents;
  /** Its runs are so short that it is given several at once. */
  readonly #quick: boolean;
  #task: ClaimedTask | null = null;
  /** Given behind it, and not entered yet. */
  #waiting: ClaimedTask[] = [];
  #seen: ClaimedTask | null = null;
  #looks = 0;
  #timer: Timer | null = null;
  #deaf = false;
  #down = false;
  #stopped = false;

  constructor(clock: Clock, prng: Prng, mood: Mood, quick: boolean, events: SlotEvents) {
    this.#clock = clock;
    this.#prng = prng;
    this.#mood = mood;
    this.#quick = quick;
    this.#events = events;
  }

  get free(): boolean {
    return this.#task === null && this.#waiting.length === 0 && !this.#down && !this.#stopped;
  }

  get blocked(): boolean {
    return false;
  }

  unblock(): void {}

  get depth(): number {
    return DEPTH;
  }

  run(tasks: readonly ClaimedTask[]): void {
    this.#waiting.push(...tasks);
    this.#next();
  }

  holds(task: ClaimedTask): boolean {
    return this.#task === task;
  }

  isShared(): boolean {
    return this.#waiting.length > 0;
  }

  look(): number {
    this.#looks = this.#waiting.length > 0 && this.#seen === this.#task ? this.#looks + 1 : 0;
    this.#seen = this.#task;
    return this.#looks;
  }

  takeBack(): void {
    const back = this.#waiting;
    this.#waiting = [];
    if (back.length > 0) this.#events.returned(back);
  }

  #next(): void {
    const task = this.#waiting.shift();
    if (task === undefined) this.#events.changed();
    else this.#enter(task);
  }

  #enter(task: ClaimedTask): void {
    this.#task = task;
    this.#deaf = false;
    const p = this.#prng;
    const wild = this.#mood.wild();
    let ms = wild ? p.pick([0, 1, 5, 20, 100, 1_000, 4_000]) * p.float() : p.between(1, 20);
    // Now and then one is long all the same: what waits behind it must not.
    if (this.#quick && !p.chance(0.02)) ms = p.float();
    if (wild && this.#mood.hangs && p.chance(0.1)) {
      this.#mood.struck("executor-hang");
      this.#deaf = p.chance(0.5);
      this.#hang(task);
      return;
    }
    if (wild && this.#mood.crashes && p.chance(0.15)) {
      this.#after(task, ms, () => this.#crash(task));
      return;
    }
    if (p.chance(0.1)) {
      this.#clock.after(ms / 2, () => {
        if (this.#task === task)
          this.#events.report(task, { progress: { percent: 50, message: null }, lines: ["half"] });
      });
    }
    const outcome = wild ? this.#draw() : ({ kind: "result", result: "1" } as const);
    this.#after(task, ms, () => this.#end(task, { kind: "outcome", outcome, rest: NO_REST }));
  }

  #draw(): RunOutcome {
    const p = this.#prng;
    const roll = p.float();
    if (roll < 0.7) return { kind: "result", result: JSON.stringify({ n: p.between(0, 9) }) };
    if (roll < 0.9) {
      const retryAfterMs = p.chance(0.2) ? p.between(0, 2_000) : null;
      return { kind: "error", error: errorOf("drawn", p.chance(0.8)), retryAfterMs };
    }
    return { kind: "snooze", delayMs: p.between(0, 1_500) };
  }

  /** Busy until it is stopped, or until everything is healed. */
  #hang(task: ClaimedTask): void {
    this.#after(task, 500, () => {
      if (this.#mood.wild()) this.#hang(task);
      else
        this.#end(task, {
          kind: "outcome",
          outcome: { kind: "result", result: "1" },
          rest: NO_REST,
        });
    });
  }

  #after(task: ClaimedTask, ms: Millis, run: () => void): void {
    this.#timer = this.#clock.after(ms, () => {
      if (this.#task === task && !this.#stopped) run();
    });
  }

  #end(task: ClaimedTask, ending: RunEnding): void {
    this.#timer?.cancel();
    this.#task = null;
    // A dead Worker enters nothing more.
    if (this.#down) this.takeBack();
    this.#events.ended(task, ending);
    if (this.#task === null) this.#next();
  }

  #crash(task: ClaimedTask): void {
    this.#mood.struck("executor-crash");
    this.#restart();
    this.#end(task, { kind: "crashed", error: errorOf("the Worker died") });
  }

  #restart(): void {
    this.#down = true;
    this.#clock.after(WORKER_START_MS, () => {
      this.#down = false;
      if (this.#stopped) return;
      this.#events.restarted();
      this.#events.changed();
    });
  }

  abort(task: ClaimedTask): void {
    if (this.#task !== task || this.#deaf) return;
    this.#timer?.cancel();
    const outcome: RunOutcome = { kind: "error", error: errorOf("aborted"), retryAfterMs: null };
    this.#after(task, this.#prng.float(), () =>
      this.#end(task, { kind: "outcome", outcome, rest: NO_REST }),
    );
  }

  kill(task: ClaimedTask): void {
    if (this.#task !== task) return;
    this.takeBack();
    this.#events.killed();
    this.#restart();
    this.#after(task, 1, () => this.#end(task, { kind: "killed" }));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#waiting = [];
    this.#timer?.cancel();
  }
}
