/**
 * I1: one leader per term, over the whole run. I3: who leads was elected by votes that are on the disks of a
 * quorum, its own among them.
 */
import type { Leadership } from "../../../src/replica/consensus.ts";
import { isQuorum } from "../membership.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class OneLeaderPerTerm implements Invariant {
  readonly #sim: Simulation;
  readonly #leaderOf = new Map<number, SimNode>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  leadership(node: SimNode, { role, term }: Leadership): void {
    if (role !== "leader") return;
    const known = this.#leaderOf.get(term);
    if (known !== undefined && known !== node)
      this.#sim.fail("I1", `term ${term} has two leaders: ${known.id} and ${node.id}`);
    this.#leaderOf.set(term, node);
    // As it begins: later on a voter's folder may be lost.
    if (known === undefined) this.#checkVotes(node, term);
  }

  #checkVotes(node: SimNode, term: number): void {
    const { nodes } = this.#sim;
    // A voter that has gone on to a later term may have voted in this one.
    const voted = nodes
      .filter(
        ({ disk: { hardState } }) =>
          hardState.term > term || (hardState.term === term && hardState.vote === node.id),
      )
      .map(({ id }) => id);
    const configuration = node.store?.membership?.configuration;
    if (configuration !== undefined && !isQuorum(configuration, (id) => voted.includes(id)))
      this.#sim.fail("I3", `${node.id} leads term ${term} by the votes of ${voted.join(" ")}`);
    const { hardState } = node.disk;
    if (hardState.term === term && hardState.vote !== node.id)
      this.#sim.fail("I3", `${node.id} leads term ${term}, its vote is not on its disk`);
    if (hardState.term < term)
      this.#sim.fail("I3", `${node.id} leads term ${term}, its disk knows ${hardState.term}`);
  }
}
