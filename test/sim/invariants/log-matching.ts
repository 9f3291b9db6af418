/**
 * I4: entries of equal index and term are equal, and so is all before them. Kept by induction: the first
 * entry seen of an index and term settles its bytes and the term before it.
 */
import type { Entry, PersistOp } from "../../../src/raft/types.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

interface Seen {
  readonly before: number;
  readonly kind: string;
  readonly data: Uint8Array;
}

export class LogMatching implements Invariant {
  readonly #sim: Simulation;
  readonly #seen = new Map<string, Seen>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  writing({ id, disk }: SimNode, { entries }: PersistOp): void {
    const first = entries[0];
    if (first === undefined) return;
    let before = disk.entries[first.index - 2]?.term ?? 0;
    for (const entry of entries) {
      this.#check(id, entry, before);
      before = entry.term;
    }
  }

  #check(id: string, { index, term, kind, data }: Entry, before: number): void {
    const key = `${index}@${term}`;
    const known = this.#seen.get(key);
    if (known === undefined) {
      this.#seen.set(key, { before, kind, data });
      return;
    }
    const same =
      known.before === before &&
      known.kind === kind &&
      (known.data === data || Buffer.compare(known.data, data) === 0);
    if (!same) this.#sim.fail("I4", `${id} holds another ${key} than was seen before`);
  }
}
