/**
 * 5.2, 5.4.1, 3.10: who asks for votes is a voter, says where its log ends, and disregards a leader only when that told it
 * to; an answer counts in the election that it was asked for, once, and only of a voter; nobody votes for a log
 * that ends before its own; nobody votes whose damaged log lacks what it promised.
 */
import type { Message } from "../../../src/raft/types.ts";
import { isBehind } from "../disk.ts";
import { votes } from "../membership.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import { type Ask, Asks } from "./asks.ts";
import type { CoreState, Invariant } from "./invariant.ts";

export class Votes implements Invariant {
  readonly #sim: Simulation;
  /** Pre-votes that must be refused for the log of who asks, and votes that need not be. */
  readonly #outdated = new Asks();
  readonly #free = new Asks();
  /** The term in which each was told to take over. */
  readonly #toTakeOver = new Map<SimNode, number>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  took(node: SimNode, message: Message, before: CoreState, after: CoreState): void {
    if (message.type === "timeout-now") {
      this.#toTakeOver.set(node, message.term);
      const stands = message.term === before.term && after.term > before.term;
      if (stands && (before.role !== "follower" || before.leader !== message.from))
        this.#sim.fail(
          "3.10",
          `the ${before.role} ${node.id} stands in term ${after.term} since ${message.from} says so, and follows ${before.leader}`,
        );
    }
    if (message.type === "vote-reply") this.#counts(node, message, before, after);
    if (message.type === "vote") this.#votes(node, message, before, after);
    const given = after.vote !== null && (after.term > before.term || after.vote !== before.vote);
    const asked = message.type === "vote" && !message.pre && after.vote === message.from;
    if (given && !asked && after.vote !== node.id)
      this.#sim.fail(
        "5.2",
        `${node.id} has voted for ${after.vote} in term ${after.term}, who did not ask, by the ${message.type} of ${message.from}`,
      );
    if (after.term === before.term && before.vote !== null && after.vote !== before.vote)
      this.#sim.fail("5.2", `${node.id} changes its vote of term ${after.term}`);
  }

  #counts(
    node: SimNode,
    message: Extract<Message, { type: "vote-reply" }>,
    before: CoreState,
    after: CoreState,
  ): void {
    const { from, pre, granted, term } = message;
    const { id } = node;
    const changed = after.votes.size !== before.votes.size || after.role !== before.role;
    if (!changed) return;
    // A later term ends whatever is under way; the grant of a pre-vote only bears the term that was asked for.
    if (term > before.term && !(pre && granted)) return;
    const asked = pre ? "pre-candidate" : "candidate";
    const right = before.role === asked && term === before.term + (pre && granted ? 1 : 0);
    const said = `${pre ? "pre-" : ""}vote of ${from} in term ${term}`;
    if (!right)
      this.#sim.fail("5.2", `the ${before.role} ${id} of ${before.term} counts a ${said}`);
    const configuration = node.replica?.core?.configuration;
    if (configuration !== undefined && !votes(configuration, from))
      this.#sim.fail("I13", `${id} counts a ${said}, who is no voter`);
    if (before.votes.has(from)) this.#sim.fail("5.2", `${id} counts a ${said} a second time`);
    const known = after.votes.get(from);
    if (after.role === before.role && known !== granted)
      this.#sim.fail("5.2", `${id} counts a ${said} as ${known}: it was ${granted}`);
  }

  #votes(
    node: SimNode,
    message: Extract<Message, { type: "vote" }>,
    before: CoreState,
    after: CoreState,
  ): void {
    const { id } = node;
    const { from, pre, lastIndex, lastTerm, term } = message;
    // What it promised and lost counts for a log like any other.
    const own = { index: before.lastIndex, term: before.lastTerm };
    const least = node.owes !== null && isBehind(own, node.owes) ? node.owes : own;
    const ask: Ask = { by: from, term, at: this.#sim.world.now };
    if (!isBehind({ index: lastIndex, term: lastTerm }, least)) {
      this.#free.add(node, ask);
      return;
    }
    if (pre) {
      this.#outdated.add(node, ask);
      return;
    }
    if (after.vote !== from || before.vote === from) return;
    this.#sim.fail(
      "5.4.1",
      `${id} votes for ${from}, whose log ends at ${lastIndex} of term ${lastTerm}, its own at ${least.index} of ${least.term}`,
    );
  }

  sent(node: SimNode, message: Message): void {
    const asks = message.type === "vote";
    if (message.type === "vote-reply" && message.pre && message.granted) {
      const ask = { by: message.to, term: message.term, at: this.#sim.world.now };
      if (this.#outdated.has(node, ask) && !this.#free.has(node, ask))
        this.#sim.fail(
          "5.4.1",
          `${node.id} grants ${message.to} a pre-vote for term ${message.term}, whose log ends before its own`,
        );
    }
    if (message.type === "vote") this.#asks(node, message);
    const { owes } = node;
    if (asks && owes !== null)
      this.#sim.fail(
        "I3",
        `${node.id} asks for votes in term ${message.term}, its damaged log may have ended at ${owes.index} of term ${owes.term}`,
      );
  }

  #asks(node: SimNode, message: Extract<Message, { type: "vote" }>): void {
    const { term, pre, transfer, lastIndex, lastTerm } = message;
    const { id, store } = node;
    if (transfer && this.#toTakeOver.get(node) !== term - 1)
      this.#sim.fail("3.10", `${id} asks for votes in term ${term} as if it had been told to`);
    const core = node.replica?.core ?? null;
    // It may have heard of something else since, in the same turn.
    const asked = pre ? "pre-candidate" : "candidate";
    if (core === null || core.role !== asked || core.term !== term - (pre ? 1 : 0)) return;
    if (core.lastIndex !== lastIndex || core.lastTerm !== lastTerm)
      this.#sim.fail(
        "5.4.1",
        `${id} asks for votes with a log up to ${lastIndex} of term ${lastTerm}, and its own ends at ${core.lastIndex} of ${core.lastTerm}`,
      );
    if (!pre && core.vote !== id)
      this.#sim.fail("5.2", `${id} stands in term ${term}, and its vote is ${core.vote}`);
    const known = store?.membershipsSince(core.commit) ?? [];
    if (known.length > 0 && !known.some(({ configuration }) => votes(configuration, id)))
      this.#sim.fail("I13", `${id} asks for votes in term ${term} and is no voter`);
  }
}
