/**
 * 5.1: who hears of a later term goes on to it, what is of an earlier one changes nothing, and nobody invents a term.
 * Whoever leads a term is followed by all that hear of it.
 */
import { DEFAULT_LIMITS } from "../../../src/raft/options.ts";
import type { Message } from "../../../src/raft/types.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import { type CoreState, type Invariant, isWordOfLeader } from "./invariant.ts";

export class Terms implements Invariant {
  readonly #sim: Simulation;
  readonly #maxWritesUnderWay: number;

  constructor(sim: Simulation) {
    this.#sim = sim;
    this.#maxWritesUnderWay = { ...DEFAULT_LIMITS, ...sim.options.limits }.maxWritesUnderWay;
  }

  took(
    node: SimNode,
    message: Message,
    before: CoreState,
    after: CoreState,
    incarnation: string,
  ): void {
    const { type, term } = message;
    if (after.term < before.term) this.#fail(node, message, before, after);
    else if (term < before.term) {
      if (isChanged(before, after)) this.#fail(node, message, before, after);
    } else if (after.term > term + (type === "timeout-now" ? 1 : 0) && after.term > before.term)
      this.#fail(node, message, before, after);
    else if (!this.#isFull(node) && !follows(message, before, after)) {
      const known = node.replica?.core?.configuration.members[message.from]?.incarnation ?? "";
      // What an earlier folder of that member has answered is not heard.
      if (!message.type.endsWith("-reply") || known === "" || known === incarnation)
        this.#fail(node, message, before, after);
    }
  }

  /** With so many writes under way a core hears nothing that would need another one; half of them are an excuse. */
  #isFull({ store }: SimNode): boolean {
    return 2 * (store?.unheard ?? 0) >= this.#maxWritesUnderWay;
  }

  #fail(node: SimNode, { type, from, term }: Message, before: CoreState, after: CoreState): void {
    const told = ({ role, term: at, leader }: CoreState): string =>
      `${role} of term ${at}, leader ${leader ?? "?"}`;
    this.#sim.fail(
      "5.1",
      `${node.id} was ${told(before)}, hears the ${type} of ${from} in term ${term}, and is ${told(after)}`,
    );
  }
}

function isChanged(before: CoreState, after: CoreState): boolean {
  return (
    before.term !== after.term ||
    before.role !== after.role ||
    before.vote !== after.vote ||
    before.leader !== after.leader ||
    before.commit !== after.commit ||
    before.lastIndex !== after.lastIndex ||
    before.elapsedTicks !== after.elapsedTicks ||
    before.votes.size !== after.votes.size
  );
}

/** False: it is not where the message should have led it. */
function follows(message: Message, before: CoreState, after: CoreState): boolean {
  const { type, term, from } = message;
  if (isWordOfLeader(type))
    return after.term === term && after.leader === from && after.role === "follower";
  if (term === before.term || !type.endsWith("-reply")) return true;
  // The grant of a pre-vote bears the term that was asked for, and promises nothing.
  if (message.type === "vote-reply" && message.pre && message.granted) return true;
  return after.term >= term;
}
