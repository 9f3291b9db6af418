/**
 * Late duplicates of everything. Of each kind of Raft's messages the newest that a member was sent are kept, and come
 * again when what they are about may be over. Drawn at random, a copy of a rare message hardly ever meets the moment that
 * it could do harm in.
 */
import type { Message, NodeId } from "../../src/raft/types.ts";
import type { Prng } from "./world.ts";

/** Of one kind, to one member. */
const KEPT_MAX = 4;

/** Lets the message arrive; false where it cannot any more: its receiver's process is another one by now. */
type Arrive = () => boolean;

export class Echoes {
  readonly #kept = new Map<NodeId, Map<Message["type"], readonly Arrive[]>>();
  readonly #prng: Prng;

  constructor(prng: Prng) {
    this.#prng = prng;
  }

  keep({ to, type }: Message, arrive: Arrive): void {
    const kinds = this.#kept.get(to) ?? new Map<Message["type"], readonly Arrive[]>();
    this.#kept.set(to, kinds);
    kinds.set(type, [...(kinds.get(type) ?? []), arrive].slice(-KEPT_MAX));
  }

  /** A message of a random kind comes to this member once more. False: there is none. */
  again(to: NodeId): boolean {
    const kinds = [...(this.#kept.get(to)?.values() ?? [])];
    if (kinds.length === 0) return false;
    return this.#prng.pick(this.#prng.pick(kinds))();
  }

  clear(): void {
    this.#kept.clear();
  }
}
