/**
 * T6: a lease that was claimed, or whose heartbeat was answered `ok`, is not given up before its period is over.
 * Unless no leadership got so far as to log that it heard of it: then three of them, or four periods, end it anyway.
 * And a leader that did not run for a while gives every lease a full period again.
 * `History` tells of the heartbeats; what a leader gives up stands in its `expire` commands.
 */
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { PersistOp } from "../../../src/raft/types.ts";
import type { CommittedEntry, Millis } from "../../../src/replica/ports.ts";
import { commandsOf } from "../commands.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** The fastest clock that is drawn gains a tenth. */
const FASTEST = 1.1;
const UNCONFIRMED_LEADERSHIPS = 3;
/** A little less: log time is slewed. */
const UNCONFIRMED_PERIODS = 3.9;
/** A leader that stood still for so long cannot miss it. */
const AWAY_MS: Millis = 1_500;

/** An entry as its leader made it. */
interface Sealed {
  readonly term: number;
  readonly at: Millis;
  /** The leader stood still, and went on then. */
  readonly pause: { readonly from: Millis; readonly until: Millis };
}

export class LeasePeriod implements Invariant {
  readonly #sim: Simulation;

  /** Log time, and leaderships so far, at each claim, by fence. */
  readonly #claims = new Map<number, { readonly now: number; readonly takeovers: number }>();
  #takeovers = 0;
  /** By index, where its leader had stood still. */
  readonly #sealed = new Map<number, Sealed>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  appending({ leadership, clock }: SimNode, { entries }: PersistOp): void {
    const pause = clock.lastPause;
    if (pause === null || pause.until - pause.from < AWAY_MS) return;
    const at = this.#sim.world.now;
    for (const { kind, term, index } of entries)
      if (kind === "command" && leadership?.role === "leader" && term === leadership.term)
        this.#sealed.set(index, { term, at, pause });
  }

  logged(entry: CommittedEntry, answers: readonly Answer[], signals: readonly Signal[]): void {
    const { index, now, term } = entry;
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
        const sealed = this.#sealed.get(index);
        if (sealed?.term === term) this.#away(sealed, task_id, heardAt);
      }
    }
  }

  /** What was not due when the leader stood still was not proposed before it either. */
  #away({ at, pause }: Sealed, id: string, heardAt: Millis): void {
    const { leaseMs } = this.#sim.options;
    if (heardAt + leaseMs / FASTEST < pause.from) return;
    if (at >= pause.until && at - pause.until < leaseMs / FASTEST)
      this.#sim.fail(
        "T6",
        `the lease of ${id} expires ${Math.round(at - pause.until)} ms after its leader had stood still for ${Math.round(pause.until - pause.from)} ms`,
      );
  }
}
