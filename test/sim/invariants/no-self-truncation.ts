/** I9: a leader never overwrites what it holds. */
import type { PersistOp } from "../../../src/raft/types.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class NoSelfTruncation implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  appending({ id, leadership, store }: SimNode, { entries }: PersistOp): void {
    const first = entries[0];
    if (first === undefined || leadership?.role !== "leader" || first.term !== leadership.term)
      return;
    const end = store?.handed.length ?? 0;
    if (first.index <= end)
      this.#sim.fail(
        "I9",
        `the leader ${id} overwrites its log at ${first.index}, it ends at ${end}`,
      );
  }
}
