/**
 * Dissertation 4.2.3, 9.6: nobody votes, by a pre-vote or for good, against a leader whose word it heard within an
 * election timeout. A leader that hands over, and one that is known to be gone, are excused.
 */
import type { Message, NodeId } from "../../../src/raft/types.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import { Asks } from "./asks.ts";
import { type CoreState, electionTicks, type Invariant, isWordOfLeader } from "./invariant.ts";

interface Word {
  readonly from: NodeId;
  readonly term: number;
}

export class StickyLeader implements Invariant {
  readonly #sim: Simulation;
  /** The newest word of a leader that each member heard, since when it asked for no votes itself. */
  readonly #words = new Map<SimNode, Word>();
  /** Pre-votes that must be refused, and votes that need not be. */
  readonly #refused = new Asks();
  readonly #free = new Asks();

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
    // Older than an election timeout: a vote that sets the timer back (also a repeated one, for that leader) makes it no younger.
    if (before.elapsedTicks >= electionTicks(this.#sim)) this.#words.delete(node);
    if (isWordOfLeader(type)) {
      if (term === after.term) this.#words.set(node, { from, term });
      return;
    }
    if (type !== "vote") return;
    const ask = { by: from, term, at: this.#sim.world.now };
    if (message.transfer || message.leaderLost || !this.#mustRefuse(node, term, before)) {
      this.#free.add(node, ask);
      return;
    }
    if (message.pre) this.#refused.add(node, ask);
    else if (after.term > before.term)
      this.#sim.fail(
        "9.6",
        `${node.id} goes on to term ${after.term} with ${from}, and just heard ${this.#words.get(node)?.from} lead term ${before.term}`,
      );
  }

  #mustRefuse(node: SimNode, term: number, before: CoreState): boolean {
    const word = this.#words.get(node);
    if (word?.term !== before.term || before.role !== "follower" || term <= before.term)
      return false;
    return before.elapsedTicks < electionTicks(this.#sim);
  }

  sent(node: SimNode, message: Message): void {
    if (message.type === "vote") this.#words.delete(node);
    if (message.type !== "vote-reply" || !message.pre || !message.granted) return;
    const ask = { by: message.to, term: message.term, at: this.#sim.world.now };
    if (this.#refused.has(node, ask) && !this.#free.has(node, ask))
      this.#sim.fail(
        "9.6",
        `${node.id} grants ${message.to} a pre-vote for term ${message.term}, and just heard ${this.#words.get(node)?.from} lead`,
      );
  }
}
