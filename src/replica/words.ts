/** What members tell each other about their states (T9), and how what they told is judged. Pure. */
import { asIndex, type Configuration, type LogIndex, type NodeId } from "../raft/types.ts";

/** The newest rounds in which a member knew that its state was wrong, as far as it tells them. */
export const ADMITS_MAX = 16;

/** A state that was found wrong: of which member and folder, and by its word of which round of a leader. */
export interface WrongState {
  readonly id: NodeId;
  readonly incarnation: string;
  /** As good as unique: a leader's process begins to count anywhere. */
  readonly round: number;
  /** The member has said so itself since: it remembers that, across restarts, until it has another state. */
  readonly admitted: boolean;
}

/** The leader's question: how is your state at `index`? */
export interface Question {
  readonly round: number;
  readonly index: LogIndex;
  /** Rows behind it are to be hashed; null: from the first. */
  readonly cursor: string | null;
  /** What the leader knows to be wrong: who leads next must know it, too. Null: an earlier build asks. */
  readonly wrong: readonly WrongState[] | null;
}

export interface Word {
  readonly round: number;
  readonly machineVersion: number;
  /** The rolling hash at the index; null: not known here any more. */
  readonly chain: string | null;
  /** Hash of the rows asked for, as of the index; null: they could not be read there. */
  readonly digest: string | null;
  /** Where the rows after them begin; null: there are none, or none were read. */
  readonly next: string | null;
  /** A sentence at a member that is known to differ, and does not answer any more. */
  readonly condemned: string | null;
  /** Rounds whose words were about a state of this process that it knew to be wrong: where it is none now, they are mended. */
  readonly admits: readonly number[];
}

/** What the leader tells everybody while something is wrong. */
export interface Verdict {
  readonly index: LogIndex;
  readonly words: readonly (readonly [NodeId, Word])[];
}

export interface Judgement {
  /** Has another value than a majority of the voters has. */
  readonly minority: readonly NodeId[];
  /** There are several values, and no majority has any of them. */
  readonly split: boolean;
}

/**
 * `values`: of those who gave one. A majority is one of all voters, whether or not they gave a value; while a membership is a
 * joint one, a majority of both its halves, as for everything that is decided then (Ongaro, 4.3).
 */
export function judge(
  values: ReadonlyMap<NodeId, string>,
  { voters, outgoing }: Pick<Configuration, "voters" | "outgoing">,
): Judgement {
  const distinct = new Set(values.values());
  if (distinct.size <= 1) return { minority: [], split: false };
  const halves = outgoing.length === 0 ? [voters] : [voters, outgoing];
  const isOfMajority = (value: string, half: readonly NodeId[]): boolean =>
    2 * half.filter((id) => values.get(id) === value).length > half.length;
  for (const value of distinct) {
    if (!halves.every((half) => isOfMajority(value, half))) continue;
    return {
      minority: [...values].filter(([, other]) => other !== value).map(([id]) => id),
      split: false,
    };
  }
  return { minority: [], split: true };
}

/**
 * Chains, and digests, that can be compared: of members that gave one. Each is as of the index, and holds the machine
 * version that was in force there. The one that a word tells is of when it was said, which may be behind the entry that
 * raised it.
 */
export function comparable(
  words: Iterable<readonly [NodeId, Word]>,
  part: "chain" | "digest",
): ReadonlyMap<NodeId, string> {
  const values = new Map<NodeId, string>();
  for (const [id, word] of words) {
    const value = word[part];
    if (value !== null) values.set(id, value);
  }
  return values;
}

/** Null: another build's, or nonsense. */
export function parseQuestion(body: unknown): Question | null {
  const { round, index, cursor, wrong } = fieldsOf(body);
  if (typeof round !== "number" || typeof index !== "number") return null;
  return {
    round,
    index: asIndex(index),
    cursor: typeof cursor === "string" ? cursor : null,
    wrong: parseWrong(wrong),
  };
}

function parseWrong(body: unknown): readonly WrongState[] | null {
  if (!Array.isArray(body)) return null;
  const states: WrongState[] = [];
  for (const entry of body as unknown[]) {
    const { id, incarnation, round, admitted } = fieldsOf(entry);
    if (typeof id !== "string" || typeof incarnation !== "string" || typeof round !== "number")
      return null;
    states.push({ id: id as NodeId, incarnation, round, admitted: admitted === true });
  }
  return states;
}

export function parseWord(body: unknown): Word | null {
  const { round, machineVersion, chain, digest, next, condemned, admits } = fieldsOf(body);
  if (typeof round !== "number" || typeof machineVersion !== "number") return null;
  const text = (value: unknown): string | null => (typeof value === "string" ? value : null);
  return {
    round,
    machineVersion,
    chain: text(chain),
    digest: text(digest),
    next: text(next),
    condemned: text(condemned),
    admits: Array.isArray(admits)
      ? admits.filter((at): at is number => typeof at === "number").slice(-ADMITS_MAX)
      : [],
  };
}

export function parseVerdict(body: unknown): Verdict | null {
  const { index, words } = fieldsOf(body);
  if (typeof index !== "number" || !Array.isArray(words)) return null;
  const parsed: (readonly [NodeId, Word])[] = [];
  for (const pair of words as unknown[]) {
    if (!Array.isArray(pair)) return null;
    const [id, said] = pair as unknown[];
    const word = parseWord(said);
    if (typeof id !== "string" || word === null) return null;
    parsed.push([id as NodeId, word]);
  }
  return { index: asIndex(index), words: parsed };
}

function fieldsOf(body: unknown): Readonly<Record<string, unknown>> {
  return typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
}
