/** Q2, K1: no task appears that nobody asked for, and none whose submit was refused for good. */
import type { Changed, LedgerTask } from "../ledger.ts";
import type { Told } from "../history.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class AskedFor implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  changing(_task: LedgerTask | undefined, { id, from }: Changed): void {
    if (from !== null) return;
    const { asked, denied } = this.#sim.history;
    if (!asked.has(id)) this.#sim.fail("Q2", `${id} appeared and nobody asked for it`);
    if (denied.has(id)) this.#sim.fail("K1", `${id} appeared, and its submit was refused`);
  }

  told(told: Told): void {
    if (told.type !== "refused") return;
    for (const { id } of told.tasks)
      if (this.#sim.ledger.tasks.has(id))
        this.#sim.fail("K1", `the submit of ${id} was refused (${told.reason}), and is in the log`);
  }
}
