/**
 * Whose state is known to be wrong (T9), until it is known to be mended. Silence mends nothing, nor does a word about other rows:
 * only another state, taken by who knew that its own was wrong, or two passes in which all of its rows were compared.
 */
import type { Configuration, NodeId } from "../raft/types.ts";
import type { Verdict, Word } from "./words.ts";

interface Known {
  /** Of the folder that is wrong: another one of the same id is not. */
  readonly incarnation: string;
  /** It has said so itself since: the next word in which it does not is about another state. */
  admitted: boolean;
  /** What shows it, and by which voters: told again until it admits it. Null: another leader found it. */
  readonly shown: { readonly verdict: Verdict; readonly voters: string } | null;
  /** Number of the pass since which its rows have been compared in every round. */
  pass: number;
}

/** A round of the leader, when it is over. */
export interface ReviewedRound {
  readonly words: ReadonlyMap<NodeId, Word>;
  readonly minority: ReadonlySet<NodeId>;
  /** Rows were compared, not the rolling hash alone. */
  readonly compared: boolean;
  readonly configuration: Configuration;
  /** How many passes were over before it. */
  readonly passes: number;
}

export class WrongMembers {
  readonly #known = new Map<NodeId, Known>();

  ids({ members }: Configuration): NodeId[] {
    return [...this.#known]
      .filter(([id, { incarnation }]) => members[id]?.incarnation === incarnation)
      .map(([id]) => id);
  }

  /** By this member, which leads. */
  found(id: NodeId, verdict: Verdict, { configuration, passes }: ReviewedRound): void {
    const { incarnation } = configuration.members[id] ?? {};
    if (incarnation === undefined) return;
    const shown = { verdict, voters: votersOf(configuration) };
    this.#known.set(id, { incarnation, admitted: false, shown, pass: passes });
  }

  /** The leader says so; `admitted`: it does itself. */
  heard(id: NodeId, admitted: boolean, { members }: Configuration, passes: number): void {
    const { incarnation } = members[id] ?? {};
    if (incarnation === undefined) return;
    const known = this.#known.get(id);
    if (known?.incarnation === incarnation) known.admitted ||= admitted;
    else this.#known.set(id, { incarnation, admitted, shown: null, pass: passes });
  }

  /** The leader says that these are all. */
  keepOnly(ids: readonly NodeId[], configuration: Configuration, passes: number): void {
    for (const id of this.#known.keys()) if (!ids.includes(id)) this.#known.delete(id);
    for (const id of ids) this.heard(id, false, configuration, passes);
  }

  /** Its state was replaced. */
  mended(id: NodeId): void {
    this.#known.delete(id);
  }

  /** Forgets who is not wrong any more. Returns what somebody has to be told again: it may have been lost on its way. */
  review(round: ReviewedRound): readonly Verdict[] {
    const { words, minority, compared, configuration, passes } = round;
    const again = new Set<Verdict>();
    for (const [id, known] of this.#known) {
      const word = words.get(id);
      if (configuration.members[id]?.incarnation !== known.incarnation) this.#known.delete(id);
      else if (minority.has(id)) continue;
      else if (word === undefined) known.pass = passes;
      else if (word.condemned !== null) known.admitted = true;
      else if (known.admitted) this.#known.delete(id);
      else {
        if (compared && word.digest === null) known.pass = passes;
        if (passes - known.pass > 1) this.#known.delete(id);
        // Other voters would judge the same words otherwise.
        else if (known.shown?.voters === votersOf(configuration)) again.add(known.shown.verdict);
      }
    }
    return [...again];
  }
}

/** Who decides what is right, as a text to compare. */
export function votersOf({ voters, outgoing }: Configuration): string {
  return JSON.stringify([voters.toSorted(), outgoing.toSorted()]);
}
