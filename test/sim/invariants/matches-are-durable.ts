/**
 * I3, I15, from the leader's side: what the newest leader takes for the part of its log that another member holds is
 * on that member's disk, and equal. Late acknowledgements of another term, or of an earlier folder, would show here.
 *
 * What a member lost since it acknowledged it (`SimNode.owes`) the leader counts by right, until the member tells it.
 */
import { Raft } from "../../../src/raft/raft.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class MatchesAreDurable implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  often(): void {
    for (const node of this.#sim.nodes) if (this.#leads(node)) this.#check(node);
  }

  /** Nobody is in a later term, whose leader might have cut logs meanwhile. */
  #leads({ up, leadership }: SimNode): boolean {
    return (
      up &&
      leadership?.role === "leader" &&
      this.#sim.nodes.every(({ disk }) => disk.hardState.term <= leadership.term)
    );
  }

  #check(leader: SimNode): void {
    const membership = leader.store?.membership?.configuration;
    const core = leader.replica?.core ?? null;
    if (!(core instanceof Raft)) return;
    const { members } = core.configuration;
    for (const [id, { match }] of core.progress()) {
      const peer = this.#sim.nodes.find((node) => node.id === id);
      // Of a folder that was lost, or put back, the leader learns when it is removed; of damage when it is told.
      if (match === 0 || peer === undefined || peer.rolledBack) continue;
      if (members[id] === undefined) continue;
      if (peer.owes !== null && !peer.hasTold(leader)) continue;
      if (membership?.members[id]?.incarnation !== peer.disk.incarnation) continue;
      const own = leader.store?.handed[match - 1]?.term;
      if (peer.disk.entries[match - 1]?.term !== own)
        this.#sim.fail(
          "I15",
          `${leader.id} takes ${id} to hold ${match} of term ${own}; its disk ends at ${peer.disk.entries.length}, with term ${peer.disk.entries[match - 1]?.term} there`,
        );
    }
  }
}
