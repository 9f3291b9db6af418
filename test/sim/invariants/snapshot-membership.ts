/** M5, I12: a snapshot that is offered bears the membership as of its index, and none that stands behind it. */
import type { Message } from "../../../src/raft/types.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class SnapshotMembership implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  sent({ id, store }: SimNode, message: Message): void {
    if (message.type !== "snapshot" || store === null) return;
    const { index, configuration } = message.snapshot;
    const [known] = store.membershipsSince(index);
    if (known === undefined || known.index > index) return;
    if (!Bun.deepEquals(known.configuration, configuration))
      this.#sim.fail(
        "M5",
        `${id} offers a snapshot of ${index} with another membership than that of ${known.index}: ${JSON.stringify(configuration)}`,
      );
  }
}
