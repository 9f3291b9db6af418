/**
 * Answers: JSON text of tasks with payload and result spliced in as they were sent, times as RFC 3339, and
 * the headers that say how fresh a read was.
 */
import type { Attempt, LogLine, Task } from "../queue/types.ts";
import type { Consistency, ReadInfo, WorkerView } from "../queue/service.ts";
import { formatTime, formatTimeOrNull } from "./time.ts";

export type Headers = Readonly<Record<string, string>>;

/** `text` is JSON already. */
export function jsonText(status: number, text: string, headers: Headers = {}): Response {
  return new Response(text, {
    status,
    headers: { ...headers, "content-type": "application/json" },
  });
}

export function json(status: number, value: unknown, headers: Headers = {}): Response {
  return jsonText(status, JSON.stringify(value), headers);
}

/** A task as CONTRACT section 2 shows it. */
export function taskText(task: Task): string {
  const head = JSON.stringify({
    id: task.id,
    name: task.name,
    status: task.status,
    created_at: formatTime(task.created_at),
    retries: task.retries,
    max_retries: task.max_retries,
  });
  const middle = JSON.stringify({
    queue: task.queue,
    priority: task.priority,
    detail: task.detail,
    attempt: task.attempt,
    crashes: task.crashes,
    run_at: formatTime(task.run_at),
    started_at: formatTimeOrNull(task.started_at),
    completed_at: formatTimeOrNull(task.completed_at),
    timeout_ms: task.timeout_ms,
    retry: task.retry,
  });
  const tail = JSON.stringify({
    last_error: task.last_error,
    progress: task.progress,
    lease:
      task.lease === null ? null : { ...task.lease, expires_at: formatTime(task.lease.expires_at) },
    version: task.version,
  });
  // `{…}` + member + `{…}`: the braces between the pieces are cut away.
  return `${head.slice(0, -1)},"payload":${task.payload ?? "null"},${middle.slice(1, -1)},"result":${task.result ?? "null"},${tail.slice(1)}`;
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
