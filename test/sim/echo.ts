/**
 * Late duplicates of Raft's messages. Of each kind the newest that a member was sent are kept, and come again when what
 * they are about may be over. Drawn at random, a copy of a rare message hardly ever meets the moment that it could do harm
 * in. Of one kind some come late only: the word that hands leadership over.
 */
import type { Message, NodeId, Term } from "../../src/raft/types.ts";
import type { Prng } from "./world.ts";

/** Of one kind, to one member. */
const KEPT_MAX = 4;

/** Of an earlier term hardly anything is heard: mostly the newest one is chosen. */
const NEWEST_TERM_SHARE = 0.8;

/** Share of the words that hand leadership over which come late, or never, and not at once. */
const HELD_BACK_SHARE = 0.5;

/** Lets the message arrive; false where it cannot any more: its receiver's process is another one by now. */
type Arrive = () => boolean;

interface Kept {
  readonly term: Term;
  readonly arrive: Arrive;
}

export class Echoes {
  readonly #kept = new Map<NodeId, Map<Message["type"], Kept[]>>();
  readonly #prng: Prng;
  #healed = false;

  constructor(prng: Prng) {
    this.#prng = prng;
  }

  /** True: only what is kept of it comes, some time. */
  keep({ to, type, term }: Message, arrive: Arrive): boolean {
    const kinds = this.#kept.get(to) ?? new Map<Message["type"], Kept[]>();
    this.#kept.set(to, kinds);
    const kept = kinds.get(type) ?? [];
    kinds.set(type, kept);
    kept.push({ term, arrive });
    if (kept.length > KEPT_MAX) kept.shift();
    return type === "timeout-now" && !this.#healed && this.#prng.chance(HELD_BACK_SHARE);
  }

  /** A message of a random kind comes to this member once more. False: there is none, or it cannot arrive any more. */
  again(to: NodeId): boolean {
    const kinds = [...(this.#kept.get(to)?.values() ?? [])];
    if (kinds.length === 0) return false;
    const newest = Math.max(...kinds.flat().map(({ term }) => term));
    const late = kinds.filter((kept) => kept.some(({ term }) => term === newest));
    const kept = this.#prng.pick(this.#prng.chance(NEWEST_TERM_SHARE) ? late : kinds);
    return this.#prng.pick(kept).arrive();
  }

  /** What was kept is gone, and nothing is held back any more. */
  heal(): void {
    this.#healed = true;
    this.#kept.clear();
  }
}
