/**
 * I5: a leader's log holds everything committed. I6: a committed entry never changes. I7: what becomes
 * committed is on the disks of a quorum. I8: a leader commits through an entry of its own term.
 */
import type { Message, NodeId, PersistOp } from "../../../src/raft/types.ts";
import type { Leadership } from "../../../src/replica/consensus.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { isQuorum } from "../membership.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { CoreState, Invariant } from "./invariant.ts";

export class Commitment implements Invariant {
  readonly #sim: Simulation;
  /** Terms of the committed entries; [0] is index 1. */
  readonly #terms: number[];
  /** The term in which each was first seen to be committed; none of those that a cluster began with (a backup, a rescue). */
  readonly #committedIn: number[] = [];
  /** The commit index that a member had before it led, where nobody had heard of it. */
  readonly #untold = new Map<NodeId, number>();

  constructor(sim: Simulation) {
    this.#sim = sim;
    this.#terms = sim.committedTerms;
  }

  sent(node: SimNode, message: Message): void {
    // Only an append tells the leader's whole commit index; a heartbeat tells what the receiver may know of it.
    const { term } = message;
    if (message.type === "append") this.#committed(node, message.commit, term, term);
    else if (message.type === "heartbeat" || message.type === "commit")
      this.#committed(node, message.commit, term, null);
  }

  /** What became committed in an earlier term here may not have been told or applied yet when it leads again. */
  took({ id }: SimNode, _message: Message, { commit, role }: CoreState): void {
    if (commit > this.#terms.length && role !== "leader") this.#untold.set(id, commit);
  }

  applied(node: SimNode, { index, term }: CommittedEntry): void {
    this.#committed(node, index, node.leadership?.term ?? term, null);
    if (this.#terms[index - 1] !== term)
      this.#sim.fail(
        "I6",
        `${node.id} applies ${index} of term ${term}, committed is term ${this.#terms[index - 1]}`,
      );
  }

  /** Every later leader holds it, so none can make a member drop it, whether that knows of the commit or not. */
  appending({ id, store }: SimNode, { entries }: PersistOp): void {
    const index = entries[0]?.index ?? 0;
    const own = store?.handed[index - 1];
    if (own !== undefined && own.term === this.#terms[index - 1])
      this.#sim.fail(
        "I6",
        `${id} cuts its log at ${index}, which is committed in term ${own.term}`,
      );
  }

  leadership(node: SimNode, { role, term }: Leadership): void {
    if (role !== "leader") return;
    const handed = node.store?.handed ?? [];
    for (const [i, committed] of this.#terms.entries()) {
      if (handed[i]?.term === committed) continue;
      // One elected in an earlier term, who hears of it late, commits nothing any more.
      if ((this.#committedIn[i] ?? 0) >= term) continue;
      this.#sim.fail(
        "I5",
        `${node.id} leads term ${term} without the committed entry ${i + 1} of term ${committed}`,
      );
      return;
    }
  }

  /** `inTerm`: of who says so. `ownTerm`: the same, when it leads and this is its whole commit index. */
  #committed(node: SimNode, commit: number, inTerm: number, ownTerm: number | null): void {
    if (commit <= this.#terms.length) return;
    const log = node.store?.handed ?? [];
    const isNews = commit > (this.#untold.get(node.id) ?? 0);
    if (ownTerm !== null && isNews && log[commit - 1]?.term !== ownTerm)
      this.#sim.fail(
        "I8",
        `${node.id} commits ${commit} of term ${log[commit - 1]?.term} in term ${ownTerm}`,
      );
    for (let index = this.#terms.length + 1; index <= commit; index++) {
      const term = log[index - 1]?.term;
      if (term === undefined) {
        this.#sim.fail("I7", `${node.id} says that ${index} is committed and does not hold it`);
        return;
      }
      this.#onQuorum(node, index, term);
      this.#terms.push(term);
      this.#committedIn[index - 1] = inTerm;
    }
  }

  /** By the membership in force at who says so: learners and who was removed do not count (I13). */
  #onQuorum(node: SimNode, index: number, term: number): void {
    // A newer one may have been appended since it became committed.
    const inForce = node.store?.membershipsSince(index) ?? [];
    if (inForce.length === 0) return;
    const holders = this.#sim.nodes
      .filter(({ disk }) => disk.entries[index - 1]?.term === term)
      .map(({ id }) => id);
    if (!inForce.some(({ configuration }) => isQuorum(configuration, (id) => holders.includes(id))))
      this.#sim.fail(
        "I7, I13",
        `${index} of term ${term} is committed on the disks of ${holders.join(" ")}, memberships are ${JSON.stringify(inForce)}`,
      );
  }
}
