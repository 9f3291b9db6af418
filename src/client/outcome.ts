/** How an attempt ended, in the words of the lease protocol. */
import { verdictOf } from "../executor/errors.ts";
import type { FailRequest } from "./types.ts";

export type Failure = Pick<FailRequest, "error" | "retryable" | "retry_after_ms">;

export type Outcome =
  /** `result`: JSON text, or null for none. */
  | { readonly kind: "complete"; readonly result: string | null }
  | { readonly kind: "fail"; readonly failure: Failure }
  | { readonly kind: "snooze"; readonly delayMs: number };

/** 7 days: longer delays are refused by the API. */
const DELAY_MAX_MS = 7 * 86_400_000;
/** Characters; a little over what is kept, so that the member cuts it and marks the cut. */
const MESSAGE_MAX = 4 * 1024 + 1;
const STACK_MAX = 16 * 1024 + 1;
/** Characters: below 255 bytes whatever they are. */
const TYPE_MAX = 80;

/** A result that is not JSON fails for good: the same code would return it again. */
export function outcomeOfReturn(value: unknown): Outcome {
  if (value === undefined) return { kind: "complete", result: null };
  let why = `a ${typeof value}`;
  try {
    const result = JSON.stringify(value) as string | undefined;
    if (result !== undefined) return { kind: "complete", result };
  } catch (error) {
    why = error instanceof Error ? error.message : String(error);
  }
  return unacceptable("UnserialisableResult", `the result is not JSON: ${why}`);
}

/** A failure that no retry would mend. */
export function unacceptable(type: string, message: string): Outcome {
  return { kind: "fail", failure: { error: { type, message }, retryable: false } };
}

export function outcomeOfThrow(thrown: unknown): Outcome {
  const verdict = verdictOf(thrown);
  const error = errorOf(thrown);
  switch (verdict?.kind) {
    case "snooze":
      return { kind: "snooze", delayMs: Math.min(verdict.delayMs, DELAY_MAX_MS) };
    case "retry-after": {
      const retry_after_ms = Math.min(verdict.delayMs, DELAY_MAX_MS);
      return { kind: "fail", failure: { error, retryable: true, retry_after_ms } };
    }
    case "non-retryable":
      return { kind: "fail", failure: { error, retryable: false } };
    case undefined:
      return { kind: "fail", failure: { error, retryable: true } };
  }
}

/** Reading what was thrown may throw in its turn. */
function errorOf(thrown: unknown): FailRequest["error"] {
  try {
    if (!(thrown instanceof Error)) {
      return { type: "NonError", message: cut(`thrown: ${String(thrown)}`, MESSAGE_MAX) };
    }
    const { name, message, stack } = thrown;
    const type = cut(String(name), TYPE_MAX).replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, "?");
    return {
      type: type === "" ? "Error" : type,
      message: cut(String(message), MESSAGE_MAX),
      stack: typeof stack === "string" ? cut(stack, STACK_MAX) : null,
    };
  } catch {
    return { type: "NonError", message: "the thrown value cannot be read" };
  }
}

function cut(text: string, characters: number): string {
  return text.slice(0, characters).toWellFormed();
}
