/** The part of the task queue that an executor pool uses, and how it treats that part's failures. */
import type { TaskQueue } from "../queue/service.ts";
import { QueueError } from "../queue/service.ts";

export type ExecutorQueue = Pick<TaskQueue, "claim" | "heartbeat" | "end" | "report" | "onLease">;

/** Who local executors are to the queue's check "only the principal that claimed". */
export const EXECUTOR_PRINCIPAL = "executor";

const RETRY_MIN_MS = 50;
const RETRY_MAX_MS = 1_000;

/** Delay before try `failures + 1`: jitter over a window that doubles, from 50 ms to 1 s. */
export function retryDelayMs(failures: number, random: () => number): number {
  const window = Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** Math.min(failures, 10));
  return RETRY_MIN_MS + random() * (window - RETRY_MIN_MS);
}

/**
 * The same call may succeed later. Anything but a refusal of the state machine may: no leader, no
 * quorum, an outcome that nobody knows, or an error that is not the queue's.
 */
export function mayPass(error: unknown): boolean {
  if (!(error instanceof QueueError)) return true;
  switch (error.reason) {
    case "no-leader":
    case "no-quorum":
    case "outcome-unknown":
    case "overloaded":
    case "low-disk":
    case "removed":
    case "inconsistent":
    case "stopping":
    case "stale-session": // the call is proposed again in the new session
    case "void":
      return true;
    case "not-found":
    case "already-final":
    case "not-final":
    case "id-conflict":
    case "id-expired":
    case "idempotency-mismatch":
    case "idempotency-full":
    case "queue-full":
    case "version-mismatch":
    case "names-full":
    case "machine-version":
      return false;
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
