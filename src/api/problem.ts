/**
 * Errors as RFC 9457 problems: one class that every refusal of the API is, one table from the queue's
 * codes to HTTP, one renderer. Nothing here decides whether something is an error.
 */
import { STATUS_CODES } from "node:http";
import { type MembershipCode, MembershipError } from "../queue/cluster-members.ts";
import { BadFilter } from "../queue/queries.ts";
import { BadCursor } from "../queue/reports.ts";
import { QueueError, type QueueErrorCode } from "../queue/service.ts";
import { ReaderOverloaded } from "../queue/task-reader.ts";

/** One bad field. `pointer` is a JSON Pointer into the body, or `/query/NAME`, `/header/NAME`, `/path/NAME`. */
export interface FieldError {
  readonly pointer: string;
  readonly detail: string;
}

const PROBLEM_TYPE = "application/problem+json";
/** Bad fields named in one answer; what exceeds it is counted in `detail`. */
const FIELD_ERRORS_MAX = 100;

interface ProblemOptions {
  readonly errors?: readonly FieldError[];
  readonly headers?: Readonly<Record<string, string>>;
}

/** A refusal on its way to the client. `reason` becomes the problem's `code`. */
export class Problem extends Error {
  override name = "Problem";
  readonly errors: readonly FieldError[];
  readonly headers: Readonly<Record<string, string>>;

  // Not named `code` or `status`: Elysia reads those off any error and would act on them.
  constructor(
    readonly httpStatus: number,
    readonly reason: string,
    message: string,
    options: ProblemOptions = {},
  ) {
    super(message);
    this.errors = options.errors ?? [];
    this.headers = options.headers ?? {};
  }
}

/** 400 that names every bad field. */
export function badFields(errors: readonly FieldError[]): Problem {
  const first = errors[0];
  const summary =
    errors.length === 1 && first !== undefined
      ? sentence(first)
      : `${errors.length} fields are not acceptable.`;
  return new Problem(400, "invalid-request", summary, { errors });
}

/** One bad field as a sentence; the empty pointer is the body itself. */
function sentence({ pointer, detail }: FieldError): string {
  return pointer === "" ? `The body ${detail}.` : `${pointer}: ${detail}`;
}

interface CodeRule {
  readonly status: number;
  /** Seconds, when the refusal itself names no time; null: retrying does not help. */
  readonly retryAfterS: number | null;
  /** The field that is to blame, if it is always the same. */
  readonly pointer?: string;
}

/** The queue's refusals in HTTP. */
const QUEUE_CODES: Readonly<Record<QueueErrorCode, CodeRule>> = {
  "not-found": { status: 404, retryAfterS: null },
  "already-final": { status: 409, retryAfterS: null },
  "not-final": { status: 409, retryAfterS: null },
  "id-conflict": { status: 409, retryAfterS: null, pointer: "/id" },
  // Ids that are merely too old never get here (new-task.ts): this one was used.
  "id-expired": { status: 409, retryAfterS: null, pointer: "/id" },
  "idempotency-mismatch": {
    status: 422,
    retryAfterS: null,
    pointer: "/header/Idempotency-Key",
  },
  "idempotency-full": { status: 429, retryAfterS: 10 },
  "names-full": { status: 429, retryAfterS: null },
  "queue-full": { status: 429, retryAfterS: 5 },
  "version-mismatch": { status: 412, retryAfterS: null, pointer: "/header/If-Match" },
  void: { status: 503, retryAfterS: 1 },
  "stale-session": { status: 503, retryAfterS: 1 },
  "no-leader": { status: 503, retryAfterS: 1 },
  "no-quorum": { status: 503, retryAfterS: 1 },
  "outcome-unknown": { status: 503, retryAfterS: 1 },
  overloaded: { status: 429, retryAfterS: 1 },
  "low-disk": { status: 503, retryAfterS: 30 },
  inconsistent: { status: 503, retryAfterS: null },
  removed: { status: 503, retryAfterS: null },
  "machine-version": { status: 409, retryAfterS: null },
  stopping: { status: 503, retryAfterS: 1 },
};

/**
 * The queue's refusal of one task of a bulk request, with a pointer to where it stands in the body.
 * @param placeOf where the task of an id stands, such as `/tasks/3`; null: nowhere
 */
export function withPlace(error: unknown, placeOf: (id: string) => string | null): unknown {
  if (!(error instanceof QueueError) || error.taskId === null) return error;
  const pointer = QUEUE_CODES[error.reason].pointer;
  const place = placeOf(error.taskId);
  const problem = fromQueueError(error);
  if (pointer === undefined || place === null) return problem;
  return new Problem(problem.httpStatus, problem.reason, problem.message, {
    errors: [{ pointer: place + pointer, detail: error.message }],
    headers: problem.headers,
  });
}

/** 409, but for what is not there, and for what may work in a moment. */
const MEMBERSHIP_STATUS: Partial<Record<MembershipCode, number>> = {
  "not-found": 404,
  "not-taken": 503,
};

function fromMembership({ reason, message }: MembershipError): Problem {
  const status = MEMBERSHIP_STATUS[reason] ?? 409;
  const soon = reason === "not-taken" || reason === "change-pending";
  return new Problem(status, reason, message, soon ? { headers: { "retry-after": "1" } } : {});
}

/** What the queue throws on purpose, as the problem that the client gets; null: it was not on purpose. */
export function fromQueue(error: unknown): Problem | null {
  if (error instanceof QueueError) return fromQueueError(error);
  if (error instanceof MembershipError) return fromMembership(error);
  if (error instanceof BadFilter || error instanceof BadCursor) {
    return badFields([{ pointer: "/query", detail: error.message }]);
  }
  if (error instanceof ReaderOverloaded) {
    return fromQueueError(new QueueError("overloaded", error.message));
  }
  return null;
}

function fromQueueError(error: QueueError): Problem {
  const rule = QUEUE_CODES[error.reason];
  const seconds =
    error.retryAfterMs === null
      ? rule.retryAfterS
      : Math.max(1, Math.ceil(error.retryAfterMs / 1_000));
  return new Problem(rule.status, error.reason, error.message, {
    ...(rule.pointer === undefined
      ? {}
      : { errors: [{ pointer: rule.pointer, detail: error.message }] }),
    ...(seconds === null ? {} : { headers: { "retry-after": String(seconds) } }),
  });
}

/** The answer to a problem. `requestId` is repeated in the body, so that a pasted error can be found in the log. */
export function problemResponse(problem: Problem, requestId: string): Response {
  return new Response(problemText(problem, requestId), {
    status: problem.httpStatus,
    headers: problemHeaders(problem),
  });
}

export function problemHeaders({ headers }: Problem): Readonly<Record<string, string>> {
  return { ...headers, "content-type": PROBLEM_TYPE };
}

/** JSON, whose last member is the id. */
export function problemText(problem: Problem, requestId: string): string {
  const { errors } = problem;
  const hidden = errors.length - FIELD_ERRORS_MAX;
  return JSON.stringify({
    type: `urn:flotilla:problem:${problem.reason}`,
    title: STATUS_CODES[problem.httpStatus] ?? "Error",
    status: problem.httpStatus,
    detail: hidden > 0 ? `${problem.message} ${hidden} more are not listed.` : problem.message,
    code: problem.reason,
    ...(errors.length === 0 ? {} : { errors: errors.slice(0, FIELD_ERRORS_MAX) }),
    request_id: requestId,
  });
}
