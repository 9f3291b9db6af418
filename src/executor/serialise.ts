/** Turns what handlers return and throw into the text that the log can hold, inside the limits. */
import { LIMITS, type TaskError } from "../queue/types.ts";
import { verdictOf } from "./errors.ts";
import type { RunOutcome } from "./protocol.ts";

const CUT_MARK = "… [cut]";

/** The longest prefix within `maxBytes` of UTF-8, marked when something was cut; always well-formed. */
export function cutText(text: string, maxBytes: number): string {
  const formed = text.toWellFormed();
  if (formed.length * 3 <= maxBytes) return formed;
  const bytes = Buffer.from(formed);
  if (bytes.length <= maxBytes) return formed;
  let end = maxBytes - Buffer.byteLength(CUT_MARK);
  // Step back over continuation bytes: a character is kept whole or not at all.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return bytes.toString("utf8", 0, end) + CUT_MARK;
}

/** Anything that was thrown, as the task's error. Reading a hostile value's properties may itself throw. */
export function taskError(thrown: unknown): TaskError {
  const retryable = verdictOf(thrown)?.kind !== "non-retryable";
  try {
    if (typeof thrown === "object" && thrown !== null && "message" in thrown) {
      const { name, message, stack } = thrown as {
        name?: unknown;
        message: unknown;
        stack?: unknown;
      };
      return {
        type: cutText(typeof name === "string" && name !== "" ? name : "Error", LIMITS.name),
        message: cutText(String(message), LIMITS.errorMessage),
        stack: typeof stack === "string" ? cutText(stack, LIMITS.errorStack) : null,
        retryable,
      };
    }
    const text = typeof thrown === "string" ? thrown : Bun.inspect(thrown);
    return {
      type: "NonError",
      message: cutText(`thrown: ${text}`, LIMITS.errorMessage),
      stack: null,
      retryable,
    };
  } catch {
    return { type: "NonError", message: "thrown value cannot be read", stack: null, retryable };
  }
}

/** How a throw ends the attempt. */
export function outcomeOfThrow(thrown: unknown): RunOutcome {
  const verdict = verdictOf(thrown);
  if (verdict?.kind === "snooze") return { kind: "snooze", delayMs: verdict.delayMs };
  return {
    kind: "error",
    error: taskError(thrown),
    retryAfterMs: verdict?.kind === "retry-after" ? verdict.delayMs : null,
  };
}

/**
 * How a return ends the attempt. A result that JSON cannot hold, or that is too large, is a failure for
 * good: the same code would return it again.
 */
export function outcomeOfReturn(value: unknown, maxBytes: number): RunOutcome {
  if (value === undefined) return { kind: "result", result: null };
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    return refused("UnserialisableResult", `the result is not JSON: ${taskError(error).message}`);
  }
  if (text === undefined)
    return refused("UnserialisableResult", `the result is not JSON: a ${typeof value}`);
  return outcomeOfText(text, maxBytes);
}

/** How an attempt ends whose result is JSON text already. */
export function outcomeOfText(text: string, maxBytes: number): RunOutcome {
  const bytes = Buffer.byteLength(text);
  if (bytes > maxBytes)
    return refused(
      "ResultTooLarge",
      `the result has ${bytes} bytes; max_payload allows ${maxBytes}`,
    );
  return { kind: "result", result: text };
}

function refused(type: string, message: string): RunOutcome {
  const error = { type, message: cutText(message, LIMITS.errorMessage), stack: null };
  return { kind: "error", error: { ...error, retryable: false }, retryAfterMs: null };
}
