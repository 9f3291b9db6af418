/** Cutting text to a limit in bytes of UTF-8, marked, and never inside a character. */
import { LIMITS, type Progress, type TaskError } from "./types.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();
export const CUT_MARK = "… [cut]";
const MARK_BYTES = encoder.encode(CUT_MARK).length;

/** Bytes of `text` in UTF-8. */
export const utf8Length = (text: string): number =>
  text.length === 0 ? 0 : encoder.encode(text).length;

/** `text`, or as much of it as fits into `maxBytes` together with the mark. */
export function cutText(text: string, maxBytes: number): string {
  // A UTF-16 unit is at most three bytes of UTF-8.
  if (text.length * 3 <= maxBytes) return text;
  const bytes = encoder.encode(text);
  if (bytes.length <= maxBytes) return text;
  let end = Math.max(0, maxBytes - MARK_BYTES);
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return decoder.decode(bytes.subarray(0, end)) + CUT_MARK;
}

/** A worker's error within the limits of the outside contract. */
export function cutError(error: TaskError): TaskError {
  return {
    type: cutText(error.type, LIMITS.name),
    message: cutText(error.message, LIMITS.errorMessage),
    stack: error.stack === null ? null : cutText(error.stack, LIMITS.errorStack),
    retryable: error.retryable,
  };
}

/** Progress with its percentage inside 0…100 and its message within the limit of an error message. */
export function cutProgress(progress: Progress): Progress {
  const percent = Number.isFinite(progress.percent) ? progress.percent : 0;
  return {
    percent: Math.max(0, Math.min(100, percent)),
    message: progress.message === null ? null : cutText(progress.message, LIMITS.errorMessage),
  };
}
