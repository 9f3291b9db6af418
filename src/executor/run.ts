/** One claimed task on its way through the pool, and what the queue is told when it is over. */
import type { Timer } from "../replica/ports.ts";
import type { ClaimedTask, LeaseEnd, LeaseRef } from "../queue/types.ts";
import type { RunEnding, Slot } from "./slot.ts";

/** Why a run is being stopped. A later cause replaces an earlier one only to be quieter. */
export type StopCause =
  /** Confirmed with `release`. */
  | "cancel"
  | "drain"
  /** The lease is not ours any more: nothing is said. */
  | "lost";

/** By its fence it is unique in the cluster. */
export interface Run {
  readonly task: ClaimedTask;
  readonly lease: LeaseRef;
  readonly slot: Slot;
  /** Monotonic. */
  readonly startedAt: number;
  /** Monotonic time at which the newest heartbeat that was answered was sent; at first, of the claim's answer. */
  confirmedAt: number;
  stop: StopCause | null;
  grace: Timer | null;
}

/** What the queue is told; null: nothing. */
export function endOf(stop: StopCause | null, ending: RunEnding): LeaseEnd | null {
  if (stop === "lost") return null;
  if (stop === "cancel") return { kind: "release" };
  switch (ending.kind) {
    case "not-started":
    case "killed":
      return { kind: "release" };
    case "crashed":
      return { kind: "fail", error: ending.error, retry_after_ms: null, crashed: true };
    case "outcome":
      break;
  }
  const { outcome } = ending;
  switch (outcome.kind) {
    case "result":
      return { kind: "complete", result: outcome.result };
    case "snooze":
      return { kind: "snooze", delay_ms: outcome.delayMs };
    case "error":
      // Aborted by the drain: what the handler makes of it is no failure of the task.
      if (stop === "drain") return { kind: "release" };
      return {
        kind: "fail",
        error: outcome.error,
        retry_after_ms: outcome.retryAfterMs,
        crashed: false,
      };
  }
}
