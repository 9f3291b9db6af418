/** Q10: every counter that a member keeps in memory equals a recount of its tables. */
import { counted, recount } from "../../queue/machine-harness.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class Counters implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  marked(): void {
    const up = this.#sim.nodes.filter(({ machine }) => machine !== null);
    if (up.length > 0) this.#check(this.#sim.world.events % up.length);
  }

  ended(): void {
    for (let i = 0; i < this.#sim.nodes.length; i++) this.#check(i);
  }

  #check(number: number): void {
    const node = this.#sim.nodes[number];
    // One that died in a commit answers nothing any more; in the middle of an install state and machine differ.
    if (node?.up !== true || node.installs) return;
    const { id, db, machine } = node;
    if (db === null || db === undefined || machine === null || machine === undefined) return;
    machine.flush();
    const kept = JSON.stringify(counted(machine));
    const { counts, ready } = recount(db);
    const anew = JSON.stringify({ counts, ready });
    if (kept !== anew) this.#sim.fail("Q10", `${id} keeps ${kept}, its tables say ${anew}`);
  }
}
