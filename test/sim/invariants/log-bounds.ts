/**
 * I10: compacted ≤ applied ≤ commit ≤ last, and what a member takes for its log is what it wrote: no entry more, after
 * a restart and after a snapshot too.
 */
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** Between a change in the core and its write there may be one more turn of the event loop. */
const TURN_MS = 5;

export class LogBounds implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  often(): void {
    for (const node of this.#sim.nodes) {
      if (node.replica === null || !node.up || node.clock.still) continue;
      const { applied, commit, lastIndex } = node.replica.status();
      // Before the core has begun there is no log.
      if (lastIndex === 0) continue;
      const compacted = node.disk.compacted.index;
      if (compacted > applied || applied > commit || commit > lastIndex)
        this.#sim.fail(
          "I10",
          `${node.id}: compacted ${compacted}, applied ${applied}, commit ${commit}, last ${lastIndex}`,
        );
      if (this.#isOff(node))
        this.#sim.world.at(this.#sim.world.now + TURN_MS, () => {
          if (this.#isOff(node))
            this.#sim.fail(
              "I10",
              `${node.id} takes its log to end at ${node.replica?.status().lastIndex}, it wrote up to ${node.store?.handed.length}`,
            );
        });
    }
  }

  #isOff({ up, clock, disk, replica, store }: SimNode): boolean {
    if (!up || clock.still || replica === null || store === null) return false;
    // In the middle of an install both change, one after the other.
    if (disk.installing !== null || store.pending > 0) return false;
    const { lastIndex } = replica.status();
    return lastIndex > 0 && lastIndex !== store.handed.length;
  }
}
