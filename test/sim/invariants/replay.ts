/** Q9: the log replayed into an empty state, and into any older image of it, gives the state that the members have. */
import { TaskMachine } from "../../../src/queue/machine.ts";
import { decodeEntry } from "../../../src/replica/envelope.ts";
import { openState } from "../database.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** Entries applied in one transaction. */
const BATCH = 50;

export class Replay implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  ended(): void {
    const { nodes, appliedMax, options } = this.#sim;
    const node = this.#sim
      .core()
      .find(({ applied, isWrong }) => applied === appliedMax && !isWrong);
    if (!options.replay || node === undefined) return;
    const { reborn } = this.#sim;
    if (reborn === null) this.#replay(node, 0);
    else this.#replay(node, reborn.beginning.index, reborn.state);
    // What lies before a rescue is not in its log: an image of a folder that holds its first entry alone leads nowhere.
    const first = reborn?.beginning.index ?? 0;
    const image =
      nodes.map((other) => other.image).find((each) => each !== null && each.index >= first) ??
      null;
    if (image !== null) this.#replay(node, image.index, image.bytes);
  }

  #replay(node: SimNode, from: number, image?: Uint8Array): void {
    const db = openState(image);
    try {
      const machine = TaskMachine.open(db);
      const entries = node.disk.entries.slice(from, node.applied).map(decodeEntry);
      for (let i = 0; i < entries.length; i += BATCH) machine.apply(entries.slice(i, i + BATCH));
      if (machine.hash() !== node.machine?.hash())
        this.#sim.fail(
          "Q9",
          `the log replayed from ${from} to ${node.applied} is not the state of ${node.id}`,
        );
    } finally {
      db.close();
    }
  }
}
