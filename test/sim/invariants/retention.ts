/** Q2: what has ended is kept for as long as the settings say, in log time. No seed changes what they say of that. */
import type { Database } from "bun:sqlite";
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { TaskMachine } from "../../../src/queue/machine.ts";
import type { Status } from "../../../src/queue/types.ts";
import type { CommittedEntry, Millis } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

const DAY_MS: Millis = 86_400_000;

/** Null: it has not ended, and is not removed. */
const KEPT_MS: Readonly<Record<Status, Millis | null>> = {
  Pending: null,
  Running: null,
  Completed: DAY_MS,
  Failed: 7 * DAY_MS,
  Cancelled: DAY_MS,
};

export class Retention implements Invariant {
  readonly #sim: Simulation;
  /** Log time at which each task came to its end. */
  readonly #endedAt = new Map<string, Millis>();
  #now: Millis = 0;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  begins(machine: TaskMachine, db: Database): void {
    this.#now = machine.logTime();
    const sql = "SELECT id, completed_at AS at FROM tasks WHERE completed_at IS NOT NULL";
    for (const { id, at } of db.query<{ readonly id: string; readonly at: Millis }, []>(sql).all())
      this.#endedAt.set(id, at);
  }

  logged(
    { index, now }: CommittedEntry,
    _answers: readonly Answer[],
    signals: readonly Signal[],
    node: SimNode,
  ): void {
    this.#now = Math.max(this.#now, now);
    for (const signal of signals) {
      if (signal.type !== "changed") continue;
      const { id, from, to } = signal;
      if (to === null) {
        if (from !== null && !node.isSuspect) this.#isDue(id, from, index);
        this.#endedAt.delete(id);
      } else if (KEPT_MS[to] !== null) this.#endedAt.set(id, this.#now);
    }
  }

  #isDue(id: string, from: Status, index: number): void {
    const keptMs = KEPT_MS[from];
    const endedAt = this.#endedAt.get(id);
    if (keptMs === null || endedAt === undefined) return;
    const agoMs = this.#now - endedAt;
    if (agoMs < keptMs)
      this.#sim.fail("Q2", `${id} is removed at ${index}, ${agoMs} ms after it was ${from}`);
  }
}
