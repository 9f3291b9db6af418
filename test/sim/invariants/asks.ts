/**
 * Requests for a vote that a member heard in one moment of virtual time. Who stood still hears much at once, and answers
 * all of it together: an answer that bears a name and a term may be to any of them.
 */
import type { NodeId } from "../../../src/raft/types.ts";
import type { SimNode } from "../node.ts";

export interface Ask {
  readonly by: NodeId;
  readonly term: number;
  /** Virtual time. */
  readonly at: number;
}

export class Asks {
  /** Of each member those of one moment, the newest. */
  readonly #heard = new Map<SimNode, readonly Ask[]>();

  add(node: SimNode, ask: Ask): void {
    const known = this.#heard.get(node) ?? [];
    this.#heard.set(node, known[0]?.at === ask.at ? [...known, ask] : [ask]);
  }

  has(node: SimNode, ask: Ask): boolean {
    const known = this.#heard.get(node) ?? [];
    return known.some(({ by, term, at }) => by === ask.by && term === ask.term && at === ask.at);
  }
}
