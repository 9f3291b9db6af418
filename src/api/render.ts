/**
 * Answers: JSON text of tasks with payload and result spliced in as they were sent, times as RFC 3339, and
 * the headers that say how fresh a read was.
 */
import type { Attempt, LogLine, Task } from "../queue/types.ts";
import type { Consistency, ReadInfo, WorkerView } from "../queue/service.ts";
import { formatTime, formatTimeOrNull } from "./time.ts";

export type Headers = Readonly<Record<string, string>>;

/** A JSON answer on its way: lifecycle.ts makes the response of it, with the headers that every answer has. */
export class Answer {
  constructor(
    readonly status: number,
    readonly text: string,
    readonly headers: Headers,
  ) {}
}

const NONE: Headers = {};

/** `text` is JSON already. */
export function jsonText(status: number, text: string, headers: Headers = NONE): Answer {
  return new Answer(status, text, headers);
}

export function json(status: number, value: unknown, headers: Headers = NONE): Answer {
  return jsonText(status, JSON.stringify(value), headers);
}

/**
 * A task as the API shows it (schema.ts). Put together by hand: a member does it for every task it answers, and
 * JSON.stringify would have to be asked three times, around the payload and the result.
 */
export function taskText(task: Task): string {
  const { id, name, status, created_at, retries, max_retries, payload, queue, priority } = task;
  const { detail, attempt, crashes, run_at, started_at, completed_at, timeout_ms } = task;
  const { retry, result, last_error, progress, lease, version } = task;
  return (
    `{"id":"${id}","name":${quoted(name)},"status":"${status}","created_at":${timeText(created_at)}` +
    `,"retries":${retries},"max_retries":${max_retries},"payload":${payload ?? "null"}` +
    `,"queue":${quoted(queue)},"priority":${priority},"detail":${detail === null ? "null" : `"${detail}"`}` +
    `,"attempt":${attempt},"crashes":${crashes},"run_at":${timeText(run_at)}` +
    `,"started_at":${timeText(started_at)},"completed_at":${timeText(completed_at)}` +
    `,"timeout_ms":${timeout_ms},"retry":${retryText(retry)},"result":${result ?? "null"}` +
    `,"last_error":${last_error === null ? "null" : JSON.stringify(last_error)}` +
    `,"progress":${progress === null ? "null" : JSON.stringify(progress)}` +
    `,"lease":${lease === null ? "null" : leaseText(lease)},"version":${version}}`
  );
}

/** Of printable ASCII without quotes and backslashes: nothing to escape. */
const PLAIN = /^[ !#-[\]-~]*$/;

function quoted(text: string): string {
  return PLAIN.test(text) ? `"${text}"` : JSON.stringify(text);
}

function timeText(epochMs: number | null): string {
  return epochMs === null ? "null" : `"${formatTime(epochMs)}"`;
}

/** The policy rendered last: tasks of one answer mostly share theirs. */
let lastRetry: Task["retry"] | null = null;
let lastRetryText = "";

function retryText(retry: Task["retry"]): string {
  if (retry === lastRetry) return lastRetryText;
  const { kind, initial_ms, factor, max_ms, jitter } = retry;
  lastRetry = retry;
  lastRetryText = `{"kind":"${kind}","initial_ms":${initial_ms},"factor":${factor},"max_ms":${max_ms},"jitter":${jitter}}`;
  return lastRetryText;
}

function leaseText({ worker, attempt, fence, expires_at }: NonNullable<Task["lease"]>): string {
  return `{"worker":${quoted(worker)},"attempt":${attempt},"fence":${fence},"expires_at":${timeText(expires_at)}}`;
}

export function tasksText(tasks: readonly Task[]): string {
  return `[${tasks.map(taskText).join(",")}]`;
}

export function etag(task: Task): Headers {
  return { etag: `"${task.version}"` };
}

export function attemptView(attempt: Attempt): Record<string, unknown> {
  return {
    attempt: attempt.attempt,
    fence: attempt.fence,
    worker: attempt.worker,
    started_at: formatTime(attempt.started_at),
    finished_at: formatTimeOrNull(attempt.finished_at),
    outcome: attempt.outcome,
    error: attempt.error,
  };
}

export function logLineView(line: LogLine): Record<string, unknown> {
  return { attempt: line.attempt, at: formatTime(line.at), line: line.line };
}

export function workerView(worker: WorkerView): Record<string, unknown> {
  return {
    ...worker,
    running: worker.running.map((run) => ({ ...run, started_at: formatTime(run.started_at) })),
  };
}

/** What `freshness` adds to a stale read; for the document. */
export const STALE_HEADERS = ["Flotilla-Applied-Index", "Flotilla-Staleness-Ms"] as const;

/** How old a stale read may be; nothing on linearizable ones. */
export function freshness(consistency: Consistency, read: ReadInfo): Headers {
  if (consistency === "linearizable") return {};
  return {
    "flotilla-applied-index": String(read.appliedIndex),
    // A member that never heard of a leader cannot say how old its state is.
    ...(Number.isFinite(read.stalenessMs)
      ? { "flotilla-staleness-ms": String(Math.max(0, Math.ceil(read.stalenessMs))) }
      : {}),
  };
}
