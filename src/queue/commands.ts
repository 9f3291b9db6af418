/**
 * What the log can say to the task machine, and what the machine answers. A command is complete: every
 * default was resolved by the proposer; apply reads nothing but the command, the entry's `now`, `seed`,
 * `term` and `index`, and the tables.
 *
 * Any command that came with an Idempotency-Key carries `idem`; the machine's wrapper handles it for all.
 */
import type { NodeId } from "../raft/types.ts";
import type {
  Claim,
  ClaimedTask,
  ClusterMemberView,
  Directive,
  IdempotencyScope,
  LeaseEnd,
  LeaseEndAnswer,
  LeaseRef,
  LeaseVerdict,
  NewTask,
  Progress,
  Settings,
  SettingsChange,
  Status,
  Task,
} from "./types.ts";

/**
 * What this build applies; `machine_version` in the state says which version is in force. `newest` grows with
 * every change of what an entry does, of the chain, or of the tables; the code of older versions stays.
 *
 *     1  the first release
 *     2  `log_tail` is a setting
 */
export const MACHINE_VERSIONS = { oldest: 1, newest: 2 } as const;

export type Command = { readonly idem?: IdempotencyScope } & (
  | { readonly type: "submit"; readonly tasks: readonly NewTask[] }
  | { readonly type: "cancel"; readonly id: string }
  | { readonly type: "retry"; readonly id: string; readonly if_version: number | null }
  /** Raises the watermark: everything older vanishes at once; rows go by `clear-step`. */
  | { readonly type: "clear"; readonly status: Status | null }
  /** Merged into what is in force when it is applied: two at once, about different parts, both count. */
  | { readonly type: "settings"; readonly settings: SettingsChange }
  | ({ readonly type: "claim" } & Claim)
  | {
      readonly type: "end";
      readonly worker_id: string;
      readonly principal: string;
      readonly items: readonly (LeaseRef & { readonly end: LeaseEnd })[];
    }
  /** Progress and log lines, gathered, at most one a second per task. */
  | {
      readonly type: "report";
      readonly worker_id: string;
      readonly principal: string;
      readonly items: readonly (LeaseRef & {
        readonly progress: Progress | null;
        readonly lines: readonly string[];
      })[];
    }
  /**
   * Puts the answer to something outside the log under the key it came with (it always has `idem`), so that
   * the first one to get here is given again, at any member and after any failover.
   */
  | { readonly type: "remember"; readonly answer: Remembered }
  /** A member (re)started: names its modules handle; releases leases of its older boots, free of charge. */
  | {
      readonly type: "boot";
      readonly member: NodeId;
      readonly boot: number;
      readonly names: readonly string[];
    }
  // From here on proposed by the leader alone; void when `term` is not the entry's own term.
  | { readonly type: "takeover"; readonly term: number }
  /** Every member applies this version: from the next entry on it is in force. Never lowered. */
  | { readonly type: "raise"; readonly term: number; readonly version: number }
  /** First heartbeat of a lease in this leadership: the work was seen to run. */
  | { readonly type: "confirm"; readonly term: number; readonly items: readonly LeaseRef[] }
  /** Leases unheard of for 1.2 periods. `seen`: a heartbeat named it, so the crash is charged. */
  | {
      readonly type: "expire";
      readonly term: number;
      readonly items: readonly (LeaseRef & { readonly seen: boolean })[];
    }
  | { readonly type: "timeout"; readonly term: number; readonly items: readonly LeaseRef[] }
  /** Moves tasks whose run_at has come (in log time) to ready, at most `max`. */
  | { readonly type: "due"; readonly term: number; readonly max: number }
  /** One step of deleting what a clear made invisible. */
  | { readonly type: "clear-step"; readonly term: number; readonly max: number }
  /** One step of retention: final tasks past their time, old idempotency keys, tombstones, claim answers. */
  | { readonly type: "purge"; readonly term: number; readonly max: number }
);

/** What was answered without a command: heartbeats, directives, changes of the membership. */
export type Remembered =
  | {
      readonly kind: "heartbeat";
      readonly verdicts: readonly LeaseVerdict[];
      readonly directive: Directive;
    }
  | { readonly kind: "quiet" }
  | { readonly kind: "member"; readonly member: ClusterMemberView; readonly added: boolean }
  | { readonly kind: "transfer"; readonly leader: string };

/** `idempotency-mismatch`: same key, other body (422). `replayed` answers carry the first call's outcome. */
export type Answer =
  | { readonly ok: true; readonly replayed?: boolean; readonly value: AnswerValue }
  | {
      readonly ok: false;
      readonly code: RefusalCode;
      readonly detail?: string;
      readonly id?: string;
    };

export type RefusalCode =
  | "not-found"
  | "already-final"
  | "not-final"
  | "id-conflict"
  | "id-expired"
  | "idempotency-mismatch"
  | "idempotency-full"
  | "queue-full"
  | "version-mismatch"
  /** The cluster knows the greatest number of handler names already: the claim names one too many. */
  | "names-full"
  | "void"
  /** The member's session is over (an older boot), or the answer was acknowledged already. */
  | "stale-session";

export type AnswerValue =
  | {
      readonly type: "submitted";
      readonly ids: readonly string[];
      readonly existing: boolean;
      /** Only with an idempotency key: the tasks as they were when this was applied, in the order of `ids`. */
      readonly tasks?: readonly Task[];
    }
  | { readonly type: "cancelled"; readonly id: string }
  /** `task`: as above. */
  | { readonly type: "retried"; readonly id: string; readonly task?: Task }
  | { readonly type: "cleared"; readonly cleared: number }
  | { readonly type: "settings"; readonly settings: Settings }
  | { readonly type: "claimed"; readonly tasks: readonly ClaimedTask[] }
  | { readonly type: "ended"; readonly items: readonly LeaseEndAnswer[] }
  | { readonly type: "remembered"; readonly answer: Remembered }
  | { readonly type: "done"; readonly count: number; readonly more: boolean };

/** What one apply changed, for who dispatches, executes, waits or watches on this member. Never replicated. */
export type Signal =
  /** Tasks of this queue and name became ready. */
  | {
      readonly type: "ready";
      readonly queue: string;
      readonly name: string;
      readonly count: number;
    }
  | { readonly type: "claimed"; readonly task: ClaimedTask; readonly claim: Claim }
  /** A lease ended other than by its worker: the executor that still runs it must stop. */
  | {
      readonly type: "lease-lost";
      readonly id: string;
      readonly fence: number;
      readonly reason: "timeout" | "expired" | "cleared" | "released";
    }
  | { readonly type: "lease-cancel"; readonly id: string; readonly fence: number }
  /** A lease is over, whatever the reason: the leader forgets its deadline. */
  | { readonly type: "lease-end"; readonly id: string; readonly fence: number }
  | { readonly type: "final"; readonly id: string; readonly status: Status }
  | {
      readonly type: "changed";
      readonly id: string;
      readonly from: Status | null;
      readonly to: Status | null;
    }
  /** Everything of this status (null: of every status) vanished at once; no `changed` follows for each task. */
  | { readonly type: "cleared"; readonly status: Status | null }
  | { readonly type: "settings"; readonly settings: Settings };
