/** The queue's refusals as words and an HTTP status. */
import type { QueueError, QueueErrorCode } from "../queue/service.ts";

export interface Refusal {
  readonly status: number;
  readonly text: string;
}

const REFUSALS: Readonly<Record<QueueErrorCode, Refusal>> = {
  "no-leader": {
    status: 503,
    text: "There is no leader at the moment, so nothing was done. Try again in a few seconds.",
  },
  "no-quorum": {
    status: 503,
    text: "Too few members can be reached, so nothing was done. Try again in a few seconds.",
  },
  "outcome-unknown": {
    status: 503,
    text: "The cluster did not confirm in time: it may have been done or not. Sending the form again is safe.",
  },
  overloaded: { status: 429, text: "The cluster is overloaded. Try again in a few seconds." },
  "low-disk": { status: 503, text: "The disk is nearly full: no new tasks are taken." },
  inconsistent: {
    status: 503,
    text: "The state of this member differs from the others': it does not answer. Use another one.",
  },
  removed: { status: 503, text: "This member was removed from the cluster. Use another one." },
  "machine-version": {
    status: 409,
    text: "A member whose build is older keeps the cluster from this. Start all of them with the same build.",
  },
  stopping: { status: 503, text: "This member is stopping. Use another one." },
  "not-found": { status: 404, text: "There is no such task any more." },
  "already-final": { status: 409, text: "The task has already ended, so it cannot be cancelled." },
  "not-final": { status: 409, text: "The task has not ended, so it cannot be run again yet." },
  "id-conflict": { status: 409, text: "Another task has this id." },
  "id-expired": { status: 400, text: "The id of the task is too old." },
  "idempotency-mismatch": {
    status: 409,
    text: "This form was sent before with other values. Nothing was done; send it again.",
  },
  "idempotency-full": { status: 429, text: "Too many idempotency keys are in use. Try later." },
  "queue-full": { status: 429, text: "The queue is full: no new tasks are taken for now." },
  "version-mismatch": { status: 409, text: "The task has changed since. Look again." },
  "names-full": { status: 409, text: "The cluster knows too many handler names." },
  void: { status: 409, text: "The change was not made. Try again." },
  "stale-session": { status: 503, text: "This member has just restarted. Try again." },
};

/** What to tell a person; the queue's own words follow for a code that says little by itself. */
export function refusalOf(error: QueueError): Refusal {
  return REFUSALS[error.reason];
}
