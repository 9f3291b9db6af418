/**
 * Task rows and what they mean: the integers that stand for statuses and details (part of the file
 * format: append, never reorder), the columns of a row, and a row as the outside sees it.
 */
import { asNodeId } from "../raft/types.ts";
import type { RunningLease } from "./state.ts";
import {
  DEFAULT_RETRY,
  type Detail,
  DETAILS,
  type ClaimedTask,
  type Progress,
  type RetryPolicy,
  type Status,
  STATUSES,
  type Task,
  type TaskError,
} from "./types.ts";

export const PENDING = 0;
export const RUNNING = 1;
export const COMPLETED = 2;
export const FAILED = 3;
export const CANCELLED = 4;
/** Index into STATUSES, as stored. */
export type StatusCode = 0 | 1 | 2 | 3 | 4;
export const FINAL_CODES = [COMPLETED, FAILED, CANCELLED] as const;

export const statusName = (code: StatusCode): Status => STATUSES[code];
export const statusCode = (status: Status): StatusCode => STATUSES.indexOf(status) as StatusCode;
/** Index into DETAILS, as stored. */
export const detailCode = (detail: Detail): number => DETAILS.indexOf(detail);

export const READY = detailCode("ready");
export const SCHEDULED = detailCode("scheduled");
export const RETRYING = detailCode("retrying");
export const WORKING = detailCode("running");
export const CANCELLING = detailCode("cancelling");

/**
 * A task's row, as the table has it or will have it: the store changes rows in memory and writes them later.
 * Only the store changes one.
 */
export interface TaskRow {
  readonly seq: number;
  readonly id: string;
  readonly name: string;
  readonly queue: string;
  status: StatusCode;
  detail: number | null;
  readonly priority: number;
  readonly created_at: number;
  run_at: number;
  due_at: number | null;
  ready_seq: number | null;
  started_at: number | null;
  completed_at: number | null;
  retries: number;
  readonly max_retries: number;
  attempt: number;
  crashes: number;
  releases: number;
  readonly timeout_ms: number | null;
  /** JSON; null: the default policy. */
  readonly retry: string | null;
  readonly body_hash: string | null;
  version: number;
  changed: number;
  fence: number | null;
  worker: string | null;
  principal: string | null;
  member: string | null;
  boot: number | null;
  confirmed: number;
  seen: number;
  log_rows: number;
  log_bytes: number;
  progress: string | null;
  last_error: string | null;
  readonly large: number;
  /** What of it is not in the table yet, and what of the table is not in here: bits of {@link ROW}. */
  flags: number;
  /** How often it stands in the window of a lane (ready.ts). */
  shown: number;
  payload: string | null;
  result: string | null;
}

export const ROW = {
  /** The table has no such row yet. */
  born: 1,
  changed: 2,
  /** `result` is known and may differ from the table's; it counts once the row is `changed`. */
  result: 4,
  /** Payload and result were not read, or are not kept: the table has them. */
  slim: 8,
  /** In the store's map: whoever reads this task gets this object. */
  kept: 16,
} as const;
/** Something of it is to be written. */
export const UNSAVED: number = ROW.born | ROW.changed;

const SLIM = `t.seq, t.id, t.name, t.queue, t.status, t.detail, t.priority, t.created_at, t.run_at, t.due_at,
  t.ready_seq, t.started_at, t.completed_at, t.retries, t.max_retries, t.attempt, t.crashes, t.releases,
  t.timeout_ms, t.retry, t.body_hash, t.version, t.changed, t.fence, t.worker, t.principal, t.member,
  t.boot, t.confirmed, t.seen, t.log_rows, t.log_bytes, t.progress, t.last_error, t.large`;
/** Expression for a task's payload, wherever it lies; the table must be aliased `t`. */
export const PAYLOAD = `CASE t.large WHEN 0 THEN t.payload ELSE (SELECT p.payload FROM payloads p WHERE p.seq = t.seq) END`;
/** Every column of {@link TaskRow}; the table must be aliased `t`. */
export const COLUMNS = `${SLIM}, 0 AS flags, 0 AS shown, ${PAYLOAD} AS payload, t.result`;
/** The same without the bodies, for transitions that do not look at them. */
export const SLIM_COLUMNS = `${SLIM}, ${ROW.slim} AS flags, 0 AS shown, NULL AS payload, NULL AS result`;
/** The same with a payload that lies in the row; one that lies elsewhere is not read. */
export const HEAD_COLUMNS = `${SLIM}, CASE t.large WHEN 0 THEN 0 ELSE ${ROW.slim} END AS flags, 0 AS shown, t.payload, t.result`;

/** Parsed retry policies by their text: a queue uses few. Emptied when it holds this many. */
const POLICIES_MAX = 256;
const policies = new Map<string, RetryPolicy>();

const DEFAULT_TEXT = JSON.stringify(DEFAULT_RETRY);
/** Texts of policies by object: the tasks of one command mostly share theirs. */
let lastPolicy: RetryPolicy = DEFAULT_RETRY;
let lastText: string | null = null;

/** What a row has of a policy. */
export function retryText(policy: RetryPolicy): string | null {
  if (policy === lastPolicy) return lastText;
  const text = JSON.stringify(policy);
  lastPolicy = policy;
  lastText = text === DEFAULT_TEXT ? null : text;
  return lastText;
}

/** The policy of a row; rows of equal policies share one object. */
export function retryPolicy(text: string | null): RetryPolicy {
  if (text === null) return DEFAULT_RETRY;
  const known = policies.get(text);
  if (known !== undefined) return known;
  if (policies.size >= POLICIES_MAX) policies.clear();
  const policy = JSON.parse(text) as RetryPolicy;
  policies.set(text, policy);
  return policy;
}

/** `leaseMs`: the period in force, for `lease.expires_at` (a heartbeat extends it in the leader's memory). */
export function toTask(row: TaskRow, leaseMs: number): Task {
  const running = row.status === RUNNING;
  return {
    id: row.id,
    name: row.name,
    status: STATUSES[row.status],
    detail: row.detail === null ? null : (DETAILS[row.detail] ?? null),
    created_at: row.created_at,
    retries: row.retries,
    max_retries: row.max_retries,
    payload: row.payload,
    queue: row.queue,
    priority: row.priority,
    attempt: row.attempt,
    crashes: row.crashes,
    run_at: row.run_at,
    started_at: row.started_at,
    completed_at: row.completed_at,
    timeout_ms: row.timeout_ms,
    retry: retryPolicy(row.retry),
    result: row.result,
    last_error: row.last_error === null ? null : (JSON.parse(row.last_error) as TaskError),
    progress: row.progress === null ? null : (JSON.parse(row.progress) as Progress),
    lease: running
      ? {
          worker: row.worker ?? "",
          attempt: row.attempt,
          fence: row.fence ?? 0,
          expires_at: (row.started_at ?? 0) + leaseMs,
        }
      : null,
    version: row.version,
  };
}

/** A running row as a worker gets it; null for any other row. */
export function toClaimedTask(row: TaskRow, leaseMs: number): ClaimedTask | null {
  const task = toTask(row, leaseMs);
  return isClaimed(task) ? task : null;
}

const isClaimed = (task: Task): task is ClaimedTask => task.lease !== null;

export function toRunningLease(row: TaskRow): RunningLease {
  const started = row.started_at ?? 0;
  return {
    task_id: row.id,
    attempt: row.attempt,
    fence: row.fence ?? 0,
    name: row.name,
    queue: row.queue,
    worker: row.worker ?? "",
    principal: row.principal ?? "",
    local:
      row.member === null || row.boot === null
        ? null
        : { member: asNodeId(row.member), boot: row.boot },
    started_at: started,
    timeout_at: row.timeout_ms === null ? null : started + row.timeout_ms,
    cancelling: row.detail === CANCELLING,
    seen: row.seen === 1,
    confirmed: row.confirmed,
  };
}
