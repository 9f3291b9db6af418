/** Q4, T6: a lease expires, or runs too long, only where its leader said so in the log. */
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { commandsOf } from "../commands.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class GivenUp implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  logged(entry: CommittedEntry, _answers: readonly Answer[], signals: readonly Signal[]): void {
    for (const signal of signals) {
      if (signal.type !== "lease-lost") continue;
      const { id, fence, reason } = signal;
      if ((reason === "expired" || reason === "timeout") && !isGivenUp(fence, entry))
        this.#sim.fail(
          "Q4",
          `the lease of ${id} under fence ${fence} is ${reason}, and nobody said so`,
        );
    }
  }
}

function isGivenUp(fence: number, entry: CommittedEntry): boolean {
  return commandsOf(entry).some(
    (asked) =>
      (asked.type === "expire" || asked.type === "timeout") &&
      asked.items.some((item) => item.fence === fence),
  );
}
