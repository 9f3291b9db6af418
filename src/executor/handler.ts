/** What a task handler is, and what it is given. */
import { NonRetryableError } from "./errors.ts";

/** One attempt, as its handler sees it. */
export interface HandlerContext {
  /** Aborts on cancel, time-out, lost lease or shutdown; `signal.reason` is an Error that says which. */
  readonly signal: AbortSignal;
  /** Counts the claims of this task, from 1. */
  readonly attempt: number;
  /** Grows with every claim in the cluster: a fencing token for whatever the handler writes to. */
  readonly fence: number;
  readonly taskId: string;
  /** The task's name; matters to "*". */
  readonly name: string;
  /** 0 to 100 (clamped); shown on the dashboard, at most once a second. @throws TypeError on NaN. */
  readonly progress: (percent: number, message?: string) => void;
  /** Appends to the attempt's log, which is cut at 64 KiB. */
  readonly log: (line: string) => void;
}

/** Returns the result (any JSON value, or undefined for none); throws to fail. */
export type Handler = (payload: unknown, context: HandlerContext) => unknown;

/** What a handlers module exports by default. */
export type Handlers = Readonly<Record<string, Handler>>;

/** Where a pool's handlers come from. */
export type HandlersSource =
  /** Only the built-in ones, all of them with "*" when `names` is null. */
  | { readonly kind: "builtin"; readonly names: readonly string[] | null }
  /** The default export of a module (absolute path), and the built-in ones named beside it. */
  | { readonly kind: "module"; readonly path: string; readonly builtin: readonly string[] };

/** The payload as an object. @throws NonRetryableError when it is anything else. */
export function payloadObject(payload: unknown, handler: string): Record<string, unknown> {
  if (typeof payload === "object" && payload !== null && !Array.isArray(payload))
    return payload as Record<string, unknown>;
  throw new NonRetryableError(`${handler}: the payload must be a JSON object`);
}

/** @throws NonRetryableError naming the first field that `handler` does not know. */
export function refuseUnknownFields(
  payload: Record<string, unknown>,
  known: readonly string[],
  handler: string,
): void {
  for (const field of Object.keys(payload)) {
    if (!known.includes(field))
      throw new NonRetryableError(
        `${handler}: payload.${field} is not a field; it takes ${known.join(", ")}`,
      );
  }
}
