/** Q9: the whole log, replayed into an empty state, gives the state that the members have. */
import { TaskMachine } from "../../../src/queue/machine.ts";
import { decodeEntry } from "../../../src/replica/envelope.ts";
import { openState } from "../database.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class Replay implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  ended(): void {
    const node = this.#sim.core().find(({ applied }) => applied === this.#sim.appliedMax);
    if (!this.#sim.options.replay || node === undefined) return;
    const db = openState();
    try {
      const machine = TaskMachine.open(db);
      const entries = node.disk.entries.slice(0, node.applied).map(decodeEntry);
      for (let i = 0; i < entries.length; i += 50) machine.apply(entries.slice(i, i + 50));
      if (machine.hash() !== node.machine?.hash())
        this.#sim.fail(
          "Q9",
          `the log replayed up to ${node.applied} is not the state of ${node.id}`,
        );
    } finally {
      db.close();
    }
  }
}
