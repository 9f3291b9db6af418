/** What a call of the client may throw: one class, told apart by `code`. */
import type { Static } from "elysia";
import type { MODELS } from "../api/schema.ts";
import type { Task } from "./types.ts";

/** The body of every refusal of the API (RFC 9457). */
export type ProblemBody = Static<(typeof MODELS)["Problem"]>;
/** One bad field; `pointer` is a JSON Pointer into what the caller gave, not into what was sent. */
export type FieldError = NonNullable<ProblemBody["errors"]>[number];

/** Codes of the client itself; every other code is one of the API's. */
export type ClientErrorCode =
  /** No member gave a final answer in time. */
  | "timeout"
  /** The caller's AbortSignal. */
  | "aborted"
  | "closed"
  /** The payload is not JSON: a cycle, a BigInt, a function. */
  | "invalid-payload"
  | "body-too-large"
  /** Too many calls wait already. */
  | "client-overloaded"
  /** The answer was none of Flotilla's: a proxy's page, a broken body. */
  | "unexpected-answer"
  /** `result()` of a task that is Failed or Cancelled. */
  | "task-failed"
  | "task-cancelled";

export interface FlotillaErrorOptions {
  /** Of the last answer; null when there was none. */
  readonly status?: number | null;
  readonly errors?: readonly FieldError[];
  readonly requestId?: string | null;
  /** The write may have happened, or may still happen. */
  readonly outcomeUnknown?: boolean;
  readonly cause?: unknown;
}

export class FlotillaError extends Error {
  override name = "FlotillaError";
  readonly code: ClientErrorCode | (string & {});
  readonly status: number | null;
  readonly errors: readonly FieldError[];
  /** `request_id` of the problem: the member's log has it too. */
  readonly requestId: string | null;
  readonly outcomeUnknown: boolean;

  constructor(code: FlotillaError["code"], message: string, options: FlotillaErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.status = options.status ?? null;
    this.errors = options.errors ?? [];
    this.requestId = options.requestId ?? null;
    this.outcomeUnknown = options.outcomeUnknown ?? false;
  }
}

/** A task whose result was awaited ended as Failed or Cancelled. */
export class TaskEndedError extends FlotillaError {
  override name = "TaskEndedError";
  readonly task: Task;

  constructor(task: Task) {
    const why = task.last_error === null ? "" : `: ${task.last_error.message}`;
    super(
      task.status === "Cancelled" ? "task-cancelled" : "task-failed",
      `task ${task.id} (${task.name}) is ${task.status}/${task.detail ?? ""}${why}`,
    );
    this.task = task;
  }
}

/** `enqueueMany` stopped after some of its requests had been acknowledged; `cause` says why. */
export class PartlyEnqueuedError extends FlotillaError {
  override name = "PartlyEnqueuedError";
  /** Ids of the tasks that are in the queue. */
  readonly accepted: readonly string[];

  constructor(cause: FlotillaError, accepted: readonly string[]) {
    const { code, status, errors, requestId, outcomeUnknown } = cause;
    super(code, `${accepted.length} tasks were accepted, then: ${cause.message}`, {
      status,
      errors,
      requestId,
      outcomeUnknown,
      cause,
    });
    this.accepted = accepted;
  }
}

/** The refusal that an answer holds, whatever it looks like. */
export function errorOfAnswer(status: number, text: string): FlotillaError {
  const problem = parseProblem(text);
  if (problem === null) {
    const shown = text.length > 200 ? `${text.slice(0, 200)}…` : text;
    return new FlotillaError("unexpected-answer", `HTTP ${status}: ${shown}`, { status });
  }
  return new FlotillaError(problem.code, problem.detail, {
    status,
    errors: problem.errors ?? [],
    requestId: problem.request_id,
    outcomeUnknown: problem.code === "outcome-unknown",
  });
}

function parseProblem(text: string): ProblemBody | null {
  try {
    const body = JSON.parse(text) as Partial<ProblemBody> | null;
    return typeof body?.code === "string" && typeof body.detail === "string"
      ? (body as ProblemBody)
      : null;
  } catch {
    return null;
  }
}
