/**
 * I3: a vote or an acknowledgement on the wire is on that member's disk. I15: what is acknowledged equals the
 * leader's log. S2: what is applied is on the own disk.
 */
import type { Message } from "../../../src/raft/types.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class PromisesAreDurable implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  sent(node: SimNode, message: Message): void {
    if (message.type === "vote-reply" && message.granted && !message.pre) {
      const { term, vote } = node.disk.hardState;
      const kept = term > message.term || (term === message.term && vote === message.to);
      if (!kept)
        this.#sim.fail(
          "I3",
          `${node.id} grants ${message.to} a vote in term ${message.term} that is not on its disk`,
        );
    }
    if (message.type === "append-reply" && message.match !== null && message.match > 0)
      this.#acknowledges(node, message.to, message.term, message.match);
  }

  #acknowledges(node: SimNode, to: string, term: number, match: number): void {
    const own = node.disk.entries[match - 1];
    if (own === undefined) {
      this.#sim.fail(
        "I3",
        `${node.id} acknowledges ${match}, its disk ends at ${node.disk.entries.length}`,
      );
      return;
    }
    const leader = this.#sim.nodes.find(({ id }) => id === to);
    if (leader?.leadership?.role !== "leader" || leader.leadership.term !== term) return;
    const theirs = leader.store?.handed[match - 1];
    if (theirs !== undefined && theirs.term !== own.term)
      this.#sim.fail(
        "I15",
        `${node.id} acknowledges ${match} of term ${own.term}, ${to} holds term ${theirs.term} there`,
      );
  }

  applied({ id, disk }: SimNode, { index, term }: CommittedEntry): void {
    if (disk.entries[index - 1]?.term !== term)
      this.#sim.fail("S2", `${id} applies ${index} of term ${term}, which is not on its disk`);
  }
}
