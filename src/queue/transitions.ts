/**
 * The transitions of one task, as functions over the store: each checks that it is due, changes the row and
 * answers. A transition that is not due changes nothing.
 */
import { cutError } from "./cut.ts";
import {
  CANCELLED,
  CANCELLING,
  detailCode,
  FAILED,
  PENDING,
  READY,
  RETRYING,
  retryPolicy,
  RUNNING,
  SCHEDULED,
  type TaskRow,
} from "./rows.ts";
import { backoffMs, jitterHash } from "./retry.ts";
import type { TaskStore } from "./store.ts";
import {
  type LeaseEnd,
  type LeaseEndAnswer,
  type LeaseRef,
  LIMITS,
  type TaskError,
} from "./types.ts";

const USER = detailCode("user");
const EXHAUSTED = detailCode("exhausted");
const NON_RETRYABLE = detailCode("non_retryable");
const TIMEOUT = detailCode("timeout");
const CRASHED = detailCode("crashed");

/** Ten years: a delay beyond it is a slip, and must not leave the range of exact integers. */
const DELAY_MAX_MS = 10 * 365 * 86_400_000;

/** The task that this lease holds now; null when it holds none. */
export function leased(store: TaskStore, ref: LeaseRef): TaskRow | null {
  const row = store.slimById(ref.task_id);
  if (row === null || row.status !== RUNNING) return null;
  return row.attempt === ref.attempt && row.fence === ref.fence ? row : null;
}

/** A worker ends its lease. A stale fence changes nothing; a repeat is answered as the first time. */
export function endLease(
  store: TaskStore,
  worker: string,
  principal: string,
  ref: LeaseRef,
  end: LeaseEnd,
): LeaseEndAnswer {
  const row = store.slimById(ref.task_id);
  if (row === null) return "not-found";
  if (row.status !== RUNNING || row.attempt !== ref.attempt || row.fence !== ref.fence) {
    return repeatedEnd(store, row, worker, principal, ref, end);
  }
  if (row.worker !== worker || row.principal !== principal) return "forbidden";
  if (row.detail === CANCELLING) {
    finishCancel(store, row, true);
    return end.kind === "release" ? "ok" : "cancelled";
  }
  switch (end.kind) {
    case "complete":
      store.complete(row, end.result);
      return "ok";
    case "fail":
      if (end.crashed) crash(store, row, cutError(end.error), true);
      else fail(store, row, cutError(end.error), end.retry_after_ms);
      return "ok";
    case "snooze":
      store.endAttempt(row, "snoozed", true, null);
      putBack(store, row, SCHEDULED, end.delay_ms, {});
      return "ok";
    case "release":
      store.endAttempt(row, "released", true, null);
      putBack(store, row, SCHEDULED, 0, {});
      return "ok";
  }
}

/** The lease is over: is this the call that ended it, come again? */
function repeatedEnd(
  store: TaskStore,
  row: TaskRow,
  worker: string,
  principal: string,
  ref: LeaseRef,
  end: LeaseEnd,
): LeaseEndAnswer {
  const ended = store.endedAttempt(row, ref.attempt);
  if (ended === null || ended.fence !== ref.fence) return "stale-lease";
  if (ended.worker !== worker || ended.principal !== principal) return "forbidden";
  if (ended.outcome === "cancelled") return end.kind === "release" ? "ok" : "cancelled";
  if (end.kind === "release" && ended.outcome === "released") return "ok";
  if (ended.by_worker === 0) return "stale-lease";
  switch (end.kind) {
    case "complete":
      return ended.outcome === "completed" ? "ok" : "stale-lease";
    case "fail":
      return ended.outcome === "failed" || ended.outcome === "crashed" ? "ok" : "stale-lease";
    case "snooze":
      return ended.outcome === "snoozed" ? "ok" : "stale-lease";
    case "release":
      return "stale-lease";
  }
}

/** A failure of the work itself, charged to `retries`. */
function fail(store: TaskStore, row: TaskRow, error: TaskError, retryAfterMs: number | null): void {
  const text = JSON.stringify(error);
  store.endAttempt(row, "failed", true, text);
  if (!error.retryable) {
    store.move(row, { status: FAILED, detail: NON_RETRYABLE, last_error: text });
    return;
  }
  retryOrFail(store, row, text, retryAfterMs, EXHAUSTED);
}

/** The leader's verdict that the attempt took too long, re-checked by log time. */
export function timeOut(store: TaskStore, ref: LeaseRef): boolean {
  const row = leased(store, ref);
  if (row === null || row.timeout_ms === null || row.started_at === null) return false;
  if (store.moment.now < row.started_at + row.timeout_ms) return false;
  lost(store, row, "timeout");
  if (row.detail === CANCELLING) {
    finishCancel(store, row, false);
    return true;
  }
  const text = JSON.stringify({
    type: "Timeout",
    message: `the attempt ran longer than ${row.timeout_ms} ms`,
    stack: null,
    retryable: true,
  } satisfies TaskError);
  store.endAttempt(row, "timeout", false, text);
  retryOrFail(store, row, text, null, TIMEOUT);
  return true;
}

/** A lease unheard of. `seen`: the work was seen to start, so that it counts as a crash. */
export function expireLease(store: TaskStore, ref: LeaseRef, seen: boolean): boolean {
  const row = leased(store, ref);
  if (row === null) return false;
  lost(store, row, "expired");
  if (row.detail === CANCELLING) finishCancel(store, row, false);
  else if (seen || row.seen === 1) crash(store, row, LEASE_EXPIRED, false);
  else releaseFree(store, row);
  return true;
}

/** A restart of the member that ran it: its older leases go back at once. */
export function releaseByBoot(store: TaskStore, row: TaskRow): void {
  lost(store, row, "released");
  if (row.detail === CANCELLING) finishCancel(store, row, false);
  else releaseFree(store, row);
}

const LEASE_EXPIRED: TaskError = {
  type: "LeaseExpired",
  message: "the worker was not heard of for longer than the lease",
  stack: null,
  retryable: true,
};
const NEVER_STARTED: TaskError = {
  type: "NeverStarted",
  message: `the task was claimed and given back without a start more than ${LIMITS.freeReleases} times`,
  stack: null,
  retryable: true,
};

/** Put back at no cost while the free ones last; from then on it counts as a crash. */
function releaseFree(store: TaskStore, row: TaskRow): void {
  if (row.releases >= LIMITS.freeReleases) {
    crash(store, row, NEVER_STARTED, false);
    return;
  }
  store.endAttempt(row, "released", false, null);
  putBack(store, row, SCHEDULED, 0, { releases: row.releases + 1 });
}

/** Charged to `crashes`; the last one allowed by `max_crashes` fails the task. */
function crash(store: TaskStore, row: TaskRow, error: TaskError, byWorker: boolean): void {
  const text = JSON.stringify(error);
  const crashes = row.crashes + 1;
  store.endAttempt(row, "crashed", byWorker, text);
  if (crashes >= store.settings.max_crashes) {
    store.move(row, { status: FAILED, detail: CRASHED, crashes, last_error: text });
    return;
  }
  putBack(store, row, RETRYING, backoff(store, row, crashes), { crashes, last_error: text });
}

function retryOrFail(
  store: TaskStore,
  row: TaskRow,
  error: string,
  retryAfterMs: number | null,
  finalDetail: number,
): void {
  if (row.retries >= row.max_retries) {
    store.move(row, { status: FAILED, detail: finalDetail, last_error: error });
    return;
  }
  const retries = row.retries + 1;
  const delay = retryAfterMs ?? backoff(store, row, retries);
  putBack(store, row, RETRYING, delay, { retries, last_error: error });
}

function backoff(store: TaskStore, row: TaskRow, n: number): number {
  return backoffMs(retryPolicy(row.retry), n, jitterHash(store.moment.seed, row.seq, row.attempt));
}

interface Charges {
  readonly retries?: number;
  readonly crashes?: number;
  readonly releases?: number;
  readonly last_error?: string;
}

/** To Pending: ready at once without a delay, else waiting under `detail`. */
function putBack(
  store: TaskStore,
  row: TaskRow,
  detail: number,
  delayMs: number,
  charges: Charges,
): void {
  const { now } = store.moment;
  const delay = Math.max(0, Math.min(DELAY_MAX_MS, Math.floor(delayMs) || 0));
  const at = now + delay;
  if (delay === 0) store.move(row, { ...charges, status: PENDING, detail: READY, run_at: at });
  else store.move(row, { ...charges, status: PENDING, detail, run_at: at, due_at: at });
}

/** The work of a cancelling task is over, however it ended. */
function finishCancel(store: TaskStore, row: TaskRow, byWorker: boolean): void {
  store.endAttempt(row, "cancelled", byWorker, null);
  store.move(row, { status: CANCELLED, detail: USER });
}

function lost(store: TaskStore, row: TaskRow, reason: "timeout" | "expired" | "released"): void {
  store.signals.push({ type: "lease-lost", id: row.id, fence: row.fence ?? 0, reason });
}

export type CancelAnswer = "ok" | "not-found" | "already-final";

/** Pending: Cancelled at once. Running: no completion counts from here on; the worker is told. */
export function cancelTask(store: TaskStore, id: string): CancelAnswer {
  const row = store.slimById(id);
  if (row === null) return "not-found";
  switch (row.status) {
    case 0:
      store.move(row, { status: CANCELLED, detail: USER });
      return "ok";
    case 1:
      if (row.detail !== CANCELLING) store.markCancelling(row, CANCELLING);
      return "ok";
    case 4:
      return "ok";
    case 2:
    case 3:
      return "already-final";
  }
}

export type RetryAnswer = "ok" | "not-found" | "not-final" | "version-mismatch";

/** From any final status back to ready, with fresh budgets; attempts and history stay. */
export function retryTask(store: TaskStore, id: string, ifVersion: number | null): RetryAnswer {
  const row = store.slimById(id);
  if (row === null) return "not-found";
  if (ifVersion !== null && row.version !== ifVersion) return "version-mismatch";
  if (row.status === PENDING || row.status === RUNNING) return "not-final";
  store.revive(row);
  return "ok";
}
