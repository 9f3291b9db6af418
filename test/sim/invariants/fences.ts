/** Q4, Q5: fences grow strictly over all tasks, and a task's attempts are counted by its claims. */
import type { Granted, LedgerTask } from "../ledger.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class Fences implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  granting(known: LedgerTask | undefined, { task: { id, lease } }: Granted): void {
    if (known === undefined) return;
    const { fence } = this.#sim.ledger;
    if (lease.fence <= fence)
      this.#sim.fail("Q4", `fence ${lease.fence} of ${id} does not grow: ${fence} was given`);
    if (lease.attempt !== known.attempt + 1)
      this.#sim.fail("Q5", `attempt ${lease.attempt} of ${id} follows attempt ${known.attempt}`);
  }
}
