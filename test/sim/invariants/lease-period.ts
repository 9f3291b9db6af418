/**
 * T6: a lease that was claimed, or whose heartbeat was answered `ok`, is not given up before its period is over.
 * Unless no leadership got so far as to log that it heard of it: then three of them, or four periods, end it anyway.
 * `History` tells of the heartbeats; what a leader gives up stands in its `expire` commands.
 */
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { commandsOf } from "../commands.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** The fastest clock that is drawn gains a tenth. */
const FASTEST = 1.1;
const UNCONFIRMED_LEADERSHIPS = 3;
/** A little less: log time is slewed. */
const UNCONFIRMED_PERIODS = 3.9;

export class LeasePeriod implements Invariant {
  readonly #sim: Simulation;

  /** Log time, and leaderships so far, at each claim, by fence. */
  readonly #claims = new Map<number, { readonly now: number; readonly takeovers: number }>();
  #takeovers = 0;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  logged(entry: CommittedEntry, answers: readonly Answer[], signals: readonly Signal[]): void {
    const { index, now } = entry;
    const { history, ledger, options, world } = this.#sim;
    for (const signal of signals)
      if (signal.type === "claimed")
        this.#claims.set(signal.task.lease.fence, { now, takeovers: this.#takeovers });
    for (const [i, asked] of commandsOf(entry).entries()) {
      if (asked.type === "takeover") this.#takeovers += 1;
      if (asked.type !== "expire" || answers[i]?.ok !== true) continue;
      for (const { fence, task_id } of asked.items) {
        if (ledger.endedAt.get(fence) !== index) continue;
        const claim = this.#claims.get(fence);
        if (claim === undefined || now - claim.now >= UNCONFIRMED_PERIODS * options.leaseMs)
          continue;
        if (this.#takeovers - claim.takeovers >= UNCONFIRMED_LEADERSHIPS) continue;
        const heardAt = Math.max(history.heardAt.get(fence) ?? 0, ledger.claimedMs.get(fence) ?? 0);
        if (world.now - heardAt < options.leaseMs / FASTEST)
          this.#sim.fail(
            "T6",
            `the lease of ${task_id} expires ${Math.round(world.now - heardAt)} ms after it was heard of, its period is ${options.leaseMs} ms`,
          );
      }
    }
  }
}
