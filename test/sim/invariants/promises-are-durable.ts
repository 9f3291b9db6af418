/**
 * I3: a vote or an acknowledgement on the wire is on that member's disk. Who lost what it had acknowledged votes only for
 * one whose log reaches as far. I15: what is acknowledged equals the leader's log. S2: what is applied is on the own disk.
 */
import type { Message } from "../../../src/raft/types.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { isBehind } from "../disk.ts";
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
      this.#covers(node, message.to, message.term);
    }
    if (message.type === "append-reply" && message.match !== null && message.match > 0)
      this.#acknowledges(node, message.to, message.term, message.match);
  }

  /** As long as the candidate stands in that term its log is the one that it stood with. */
  #covers(voter: SimNode, to: string, term: number): void {
    const { owes } = voter;
    const candidate = this.#sim.nodes.find(({ id }) => id === to);
    if (owes === null || candidate?.leadership?.role !== "candidate") return;
    if (candidate.leadership.term !== term) return;
    const end = candidate.store?.handed.at(-1);
    if (end === undefined || isBehind(end, owes))
      this.#sim.fail(
        "I3",
        `${voter.id} votes for ${to}, whose log ends at ${end?.index} of term ${end?.term}; it may have acknowledged ${owes.index} of term ${owes.term}, and lost it`,
      );
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
