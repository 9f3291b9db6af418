/**
 * Whose state is known to be wrong (T9), until it is known to be mended. Silence mends nothing, nor does a word about other rows:
 * only another state, taken by who knew that its own was wrong, or two passes in which all of its rows were compared.
 */
import type { Configuration, NodeId } from "../raft/types.ts";
import type { Verdict, Word, WrongState } from "./words.ts";

interface Known {
  /** `admitted`: the next word in which it does not say that it is wrong is about another state. */
  readonly state: WrongState;
  /** What shows it: told again until it admits it. Null: another leader found it. */
  readonly shown: Shown | null;
  /** Number of the pass since which its rows have been compared in every round. */
  pass: number;
}

interface Shown {
  readonly verdict: Verdict;
  /** By which voters. */
  readonly voters: string;
  readonly minority: ReadonlySet<NodeId>;
}

/** A round of the leader, when it is over. */
export interface ReviewedRound {
  readonly words: ReadonlyMap<NodeId, Word>;
  readonly minority: ReadonlySet<NodeId>;
  /** They differ, and no majority says who is wrong: nobody's rows were found to be right. */
  readonly disputed: boolean;
  /** Rows were compared, not the rolling hash alone. */
  readonly compared: boolean;
  readonly configuration: Configuration;
  /** How many passes were over before it. */
  readonly passes: number;
}

export class WrongMembers {
  readonly #known = new Map<NodeId, Known>();

  /** Those of members: a folder that was removed is no more, nor is what it held. */
  list({ members }: Configuration): WrongState[] {
    return [...this.#known.values()]
      .map(({ state }) => state)
      .filter(({ id, incarnation }) => members[id]?.incarnation === incarnation);
  }

  /** By this member, which leads: whoever is in the minority, by what all said. */
  found(verdict: Verdict, { configuration, minority, passes }: ReviewedRound): void {
    const shown = { verdict, voters: votersOf(configuration), minority };
    for (const [id, { round }] of verdict.words) {
      const { incarnation } = configuration.members[id] ?? {};
      if (incarnation === undefined || !minority.has(id)) continue;
      const state = { id, incarnation, round, admitted: false };
      this.#known.set(id, { state, shown, pass: passes });
    }
  }

  /** The leader says so. */
  heard(state: WrongState, { members }: Configuration, passes: number): void {
    const { id, incarnation, round, admitted } = state;
    if (members[id]?.incarnation !== incarnation) return;
    const known = this.#known.get(id);
    // Found wrong again: what it admitted before was about another state.
    if (known?.state.incarnation !== incarnation || (!admitted && known.state.round !== round))
      this.#known.set(id, { state, shown: null, pass: passes });
    else if (admitted) this.#known.set(id, { ...known, state });
  }

  /** The leader says that these are all. */
  keepOnly(states: readonly WrongState[], configuration: Configuration, passes: number): void {
    for (const id of this.#known.keys())
      if (!states.some((state) => state.id === id)) this.#known.delete(id);
    for (const state of states) this.heard(state, configuration, passes);
  }

  /** Its state was replaced. */
  mended(id: NodeId): void {
    this.#known.delete(id);
  }

  /** Forgets who is not wrong any more. Returns what somebody has to be told again: it may have been lost on its way. */
  review(round: ReviewedRound): readonly Verdict[] {
    const { words, minority, disputed, compared, configuration, passes } = round;
    const again = new Set<Shown>();
    for (const [id, known] of this.#known) {
      const word = words.get(id);
      if (configuration.members[id]?.incarnation !== known.state.incarnation)
        this.#known.delete(id);
      else if (minority.has(id)) continue;
      else if (word === undefined) known.pass = passes;
      else if (word.condemned !== null)
        this.#known.set(id, {
          ...known,
          state: { ...known.state, round: word.round, admitted: true },
        });
      else if (known.state.admitted || word.admits.includes(known.state.round))
        this.#known.delete(id);
      else {
        if (disputed || (compared && word.digest === null)) known.pass = passes;
        if (passes - known.pass > 1) this.#known.delete(id);
        // Other voters would judge the same words otherwise.
        else if (known.shown?.voters === votersOf(configuration)) again.add(known.shown);
      }
    }
    return [...again].map((shown) => this.#ofTheOthers(shown));
  }

  /** Who has admitted it, or was mended meanwhile, is not said to be wrong again with the others. */
  #ofTheOthers({ verdict: { index, words }, minority }: Shown): Verdict {
    const isOver = (id: NodeId, { round }: Word): boolean => {
      const known = this.#known.get(id);
      return minority.has(id) && (known?.state.round !== round || known.state.admitted);
    };
    return { index, words: words.filter(([id, word]) => !isOver(id, word)) };
  }
}

/** Who decides what is right, as a text to compare. */
export function votersOf({ voters, outgoing }: Configuration): string {
  return JSON.stringify([voters.toSorted(), outgoing.toSorted()]);
}
