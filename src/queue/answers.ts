/**
 * Answers as they are kept for a repeat (T2, claim requests); those of idempotency keys are in
 * first-answer.ts. An answer to a claim is
 * kept as the rows and fences it took, never as bodies: a repeat gives those still leased under the same
 * fence, as they are now.
 */
import type { Answer, AnswerValue } from "./commands.ts";
import type { ClaimedTask } from "./types.ts";

/** The tasks of one claim: the i-th of `seqs` was leased under fence `first + i`. */
export interface ClaimRecord {
  readonly first: number;
  readonly seqs: readonly number[];
}

type OtherValue = Exclude<AnswerValue, { readonly type: "claimed" }>;

export type StoredAnswer =
  | { readonly ok: true; readonly replayed?: boolean; readonly value: OtherValue }
  | { readonly ok: true; readonly claim: ClaimRecord | null }
  /** It is kept with its idempotency key. `first`: this request was the one that it answered. */
  | { readonly ok: true; readonly keyed: "first" | "replayed" }
  | Extract<Answer, { readonly ok: false }>;

/** What carrying a command out gives: the answer, and the claim behind it if it was one. */
export interface Outcome {
  readonly answer: Answer;
  readonly claim: ClaimRecord | null;
}

export const plain = (answer: Answer): Outcome => ({ answer, claim: null });

export function storedAnswer({ answer, claim }: Outcome): StoredAnswer {
  if (!answer.ok) return answer;
  const { value } = answer;
  if (value.type === "claimed") return { ok: true, claim };
  return answer.replayed === true ? { ok: true, replayed: true, value } : { ok: true, value };
}

/** `tasksOf`: the tasks of a claim that are still leased under it. */
export function restoreAnswer(
  stored: Exclude<StoredAnswer, { readonly keyed: unknown }>,
  tasksOf: (claim: ClaimRecord) => readonly ClaimedTask[],
): Answer {
  if (!stored.ok) return stored;
  if ("value" in stored) return stored;
  const tasks = stored.claim === null ? [] : tasksOf(stored.claim);
  return { ok: true, value: { type: "claimed", tasks } };
}
