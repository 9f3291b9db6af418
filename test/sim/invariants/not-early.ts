/** Q8: nothing starts before its time, in log time. */
import type { Granted, LedgerTask } from "../ledger.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class NotEarly implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  granting(known: LedgerTask | undefined, { task: { id, run_at } }: Granted): void {
    const { logTime } = this.#sim.ledger;
    if (known !== undefined && run_at > logTime)
      this.#sim.fail("Q8", `${id} was claimed at ${logTime}, before its time ${run_at}`);
  }
}
