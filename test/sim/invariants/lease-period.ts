/**
 * T6: a lease that was claimed, or whose heartbeat was answered `ok`, is not given up before its period is over.
 * `History` tells of the heartbeats; what a leader gives up stands in its `expire` commands.
 */
import { decodeCommand } from "../../../src/queue/command-codec.ts";
import type { Answer } from "../../../src/queue/commands.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** The fastest clock that is drawn gains a tenth. */
const FASTEST = 1.1;

export class LeasePeriod implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  logged({ index, requests }: CommittedEntry, answers: readonly Answer[]): void {
    const { history, ledger, options, world } = this.#sim;
    for (const [i, { command }] of requests.entries()) {
      const asked = decodeCommand(command);
      if (asked.type !== "expire" || answers[i]?.ok !== true) continue;
      for (const { fence, task_id } of asked.items) {
        if (ledger.endedAt.get(fence) !== index) continue;
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
