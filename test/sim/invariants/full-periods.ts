/**
 * T6: every leadership gives each lease a full period from when it begins to serve. Unless too many in a row heard nothing of
 * it: more than three that have come since, a period after the first of them, or four periods, end it under any leader.
 * Counted from the log, beside the machine.
 */
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { TaskMachine } from "../../../src/queue/machine.ts";
import type { Leadership } from "../../../src/replica/consensus.ts";
import type { CommittedEntry, Millis } from "../../../src/replica/ports.ts";
import { commandsOf } from "../commands.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** The fastest clock that is drawn gains a tenth. */
const FASTEST = 1.1;
const LEADERSHIPS = 3;
const PERIODS = 4;
/** Of silence until a lease is given up. */
const PATIENCE = 1.2;

export class FullPeriods implements Invariant {
  readonly #sim: Simulation;
  /** When each term's leader began to serve, virtual time. */
  readonly #servesSince = new Map<number, Millis>();
  /** Log time of each takeover. */
  readonly #takeovers: Millis[] = [];
  /** How many takeovers there were when a lease was heard of last, by fence; `before`: before the term in which it was. */
  readonly #heard = new Map<number, { term: number; takeovers: number; before: number }>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  /** What it heard of before is not known here. */
  begins(machine: TaskMachine): void {
    for (const { fence } of machine.running())
      this.#heard.set(fence, { term: 0, takeovers: -Infinity, before: -Infinity });
  }

  leadership(_node: SimNode, { role, term, active }: Leadership): void {
    if (role === "leader" && active && !this.#servesSince.has(term))
      this.#servesSince.set(term, this.#sim.world.now);
  }

  logged(entry: CommittedEntry, answers: readonly Answer[], signals: readonly Signal[]): void {
    const { index, now, term } = entry;
    const { ledger, options, world } = this.#sim;
    const takeovers = this.#takeovers.length;
    for (const signal of signals)
      if (signal.type === "claimed")
        this.#heard.set(signal.task.lease.fence, { term, takeovers, before: takeovers });
    for (const [i, asked] of commandsOf(entry).entries()) {
      if (answers[i]?.ok !== true) continue;
      if (asked.type === "takeover") this.#takeovers.push(now);
      if (asked.type === "confirm")
        for (const { fence } of asked.items) this.#confirmed(fence, term);
      if (asked.type !== "expire") continue;
      const since = this.#servesSince.get(term);
      for (const { fence, task_id } of asked.items) {
        if (since === undefined || ledger.endedAt.get(fence) !== index) continue;
        if (world.now - since >= (PATIENCE * options.leaseMs) / FASTEST) continue;
        if (!this.#isLongUnheard(fence, term, now))
          this.#sim.fail(
            "T6",
            `the lease of ${task_id} expires at ${index}, ${Math.round(world.now - since)} ms after its leader began to serve; its period is ${options.leaseMs} ms`,
          );
      }
    }
    for (const signal of signals) if (signal.type === "lease-end") this.#heard.delete(signal.fence);
  }

  #confirmed(fence: number, term: number): void {
    const heard = this.#heard.get(fence);
    if (heard === undefined) return;
    if (heard.term !== term) heard.before = heard.takeovers;
    heard.term = term;
    heard.takeovers = this.#takeovers.length;
  }

  /** What was heard in this very term may have come behind the leader's decision. */
  #isLongUnheard(fence: number, term: number, now: Millis): boolean {
    const heard = this.#heard.get(fence);
    if (heard === undefined) return true;
    const from = heard.term === term ? heard.before : heard.takeovers;
    if (!Number.isFinite(from)) return true;
    const first = this.#takeovers[from];
    if (first === undefined) return false;
    const { leaseMs } = this.#sim.options;
    const silentMs = now - first;
    if (silentMs >= PERIODS * leaseMs) return true;
    return this.#takeovers.length - from > LEADERSHIPS && silentMs >= PATIENCE * leaseMs;
  }
}
