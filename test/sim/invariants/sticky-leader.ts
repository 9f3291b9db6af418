/**
 * Dissertation 4.2.3, 9.6: nobody votes, by a pre-vote or for good, against a leader whose word it heard within an
 * election timeout. A leader that hands over, and one that is known to be gone, are excused.
 */
import type { Message, NodeId } from "../../../src/raft/types.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import { type CoreState, electionTicks, type Invariant } from "./invariant.ts";

interface Word {
  readonly from: NodeId;
  readonly term: number;
}

interface Asked {
  readonly by: NodeId;
  readonly term: number;
  /** Virtual time. */
  readonly at: number;
}

export class StickyLeader implements Invariant {
  readonly #sim: Simulation;
  /** The newest word of a leader that each member heard, since when it asked for no votes itself. */
  readonly #words = new Map<SimNode, Word>();
  /** Whose pre-vote must not be granted by whom: it was asked for just now. */
  readonly #refused = new Map<SimNode, Asked>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  started(node: SimNode): void {
    this.#words.delete(node);
  }

  installed(node: SimNode): void {
    this.#words.delete(node);
  }

  took(node: SimNode, message: Message, before: CoreState, after: CoreState): void {
    const { type, from, term } = message;
    if (type === "append" || type === "commit" || type === "heartbeat" || type === "snapshot") {
      if (term === after.term) this.#words.set(node, { from, term });
      return;
    }
    if (type !== "vote" || message.transfer || message.leaderLost) return;
    const word = this.#words.get(node);
    if (word?.term !== before.term || before.role !== "follower" || term <= before.term) return;
    if (before.elapsedTicks >= electionTicks(this.#sim)) return;
    if (message.pre) this.#refused.set(node, { by: from, term, at: this.#sim.world.now });
    else if (after.term > before.term)
      this.#sim.fail(
        "9.6",
        `${node.id} goes on to term ${after.term} with ${from}, and just heard ${word.from} lead term ${word.term}`,
      );
  }

  sent(node: SimNode, message: Message): void {
    if (message.type === "vote") this.#words.delete(node);
    if (message.type !== "vote-reply" || !message.pre || !message.granted) return;
    const refused = this.#refused.get(node);
    if (refused?.by !== message.to || refused.term !== message.term) return;
    if (refused.at === this.#sim.world.now)
      this.#sim.fail(
        "9.6",
        `${node.id} grants ${message.to} a pre-vote for term ${message.term}, and just heard ${this.#words.get(node)?.from} lead`,
      );
  }
}
