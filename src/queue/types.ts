/**
 * The task queue's vocabulary: tasks as the outside sees them, settings, and what a worker exchanges.
 * Times are epoch milliseconds of log time inside; the API renders them as RFC 3339.
 */
import type { Alarm } from "../replica/consensus.ts";
import type { NodeId } from "../raft/types.ts";

export const STATUSES = ["Pending", "Running", "Completed", "Failed", "Cancelled"] as const;
export type Status = (typeof STATUSES)[number];
/** Statuses that nothing but a retry or a purge leaves. */
export const FINAL_STATUSES: readonly Status[] = ["Completed", "Failed", "Cancelled"];

export const DETAILS = [
  "ready",
  "scheduled",
  "retrying",
  "blocked",
  "throttled",
  "paused",
  "running",
  "cancelling",
  "exhausted",
  "non_retryable",
  "timeout",
  "crashed",
  "dependency",
  "expired",
  "user",
  "superseded",
] as const;
export type Detail = (typeof DETAILS)[number];

export interface RetryPolicy {
  readonly kind: "exponential" | "fixed" | "linear" | "none";
  readonly initial_ms: number;
  readonly factor: number;
  readonly max_ms: number;
  readonly jitter: boolean;
}

export interface TaskError {
  readonly type: string;
  readonly message: string;
  readonly stack: string | null;
  readonly retryable: boolean;
}

export interface Progress {
  /** 0 to 100. */
  readonly percent: number;
  readonly message: string | null;
}

export interface LeaseView {
  readonly worker: string;
  readonly attempt: number;
  readonly fence: number;
  readonly expires_at: number;
}

/** One task, times in epoch ms. `payload` and `result` are JSON text, exactly as it was sent. */
export interface Task {
  readonly id: string;
  readonly name: string;
  readonly status: Status;
  readonly detail: Detail | null;
  readonly created_at: number;
  readonly retries: number;
  readonly max_retries: number;
  readonly payload: string | null;
  readonly queue: string;
  readonly priority: number;
  readonly attempt: number;
  readonly crashes: number;
  readonly run_at: number;
  readonly started_at: number | null;
  readonly completed_at: number | null;
  readonly timeout_ms: number | null;
  readonly retry: RetryPolicy;
  readonly result: string | null;
  readonly last_error: TaskError | null;
  readonly progress: Progress | null;
  readonly lease: LeaseView | null;
  /** Log index of the last change; the ETag. */
  readonly version: number;
}

export type AttemptOutcome =
  "running" | "completed" | "failed" | "timeout" | "crashed" | "cancelled" | "snoozed" | "released";

export interface Attempt {
  readonly attempt: number;
  readonly fence: number;
  readonly worker: string;
  readonly started_at: number;
  readonly finished_at: number | null;
  readonly outcome: AttemptOutcome;
  readonly error: TaskError | null;
}

export interface LogLine {
  readonly attempt: number;
  readonly at: number;
  readonly line: string;
}

/** Cluster-wide, replicated from entry 1; durations in ms, sizes in bytes. */
export interface Settings {
  readonly lease: number;
  readonly retention: {
    readonly completed: number;
    readonly cancelled: number;
    readonly failed: number;
  };
  readonly max_payload: number;
  readonly max_waiting: number;
  readonly max_crashes: number;
  readonly retry: RetryPolicy;
  readonly timeout_ms: number | null;
  /** A setting from machine version 2 on; absent before, and {@link DEFAULT_LOG_TAIL} counts. */
  readonly log_tail?: LogTail;
}

/** What of the log a member keeps for others that were away (storage/log-compaction.ts). */
export interface LogTail {
  /** A tail is as long as the state, and no longer than this. Bytes. */
  readonly max_bytes: number;
  /** Nothing older is kept. Milliseconds. */
  readonly max_ms: number;
  /** What is younger than `young_ms` is kept up to this length, however small the state is. Bytes. */
  readonly young_bytes: number;
  readonly young_ms: number;
}

/** Some of the settings, parts of the nested groups too: what is not named stays as it is when it is applied. */
export type SettingsChange = Partial<Omit<Settings, "retention" | "retry" | "log_tail">> & {
  readonly retention?: Partial<Settings["retention"]>;
  readonly retry?: Partial<RetryPolicy>;
  readonly log_tail?: Partial<LogTail>;
};

export const DEFAULT_RETRY: RetryPolicy = {
  kind: "exponential",
  initial_ms: 1_000,
  factor: 2,
  max_ms: 300_000,
  jitter: true,
};

/**
 * 256 MiB are a minute of 4 MiB/s, a restart under load: disks are larger, but they are somebody's. 32 MiB are four
 * times what may be on its way to one member. Who was away for longer than a minute has not just fallen behind, and
 * who was away for a day is new.
 */
export const DEFAULT_LOG_TAIL: LogTail = {
  max_bytes: 256 * 1024 * 1024,
  max_ms: 86_400_000,
  young_bytes: 32 * 1024 * 1024,
  young_ms: 60_000,
};

/** Part of what an entry does, as far as entry 1 does not say otherwise: never changed without a machine version. */
export const DEFAULT_SETTINGS: Required<Settings> = {
  lease: 15_000,
  retention: { completed: 86_400_000, cancelled: 86_400_000, failed: 7 * 86_400_000 },
  max_payload: 256 * 1024,
  max_waiting: 10_000_000,
  max_crashes: 3,
  retry: DEFAULT_RETRY,
  timeout_ms: 60_000,
  log_tail: DEFAULT_LOG_TAIL,
};

export const MAX_RETRIES_DEFAULT = 3;
export const PRIORITY_DEFAULT = 5;
export const QUEUE_DEFAULT = "default";

/** What a task, a call and the table of keys may be at most, in bytes of UTF-8 unless the name says otherwise. */
export const LIMITS = {
  body: 8 * 1024 * 1024,
  name: 255,
  errorMessage: 4 * 1024,
  errorStack: 16 * 1024,
  attemptLog: 64 * 1024,
  /** Attempts kept per task: the first and the last `attemptsKept - 1`. */
  attemptsKept: 100,
  bulkTasks: 1_000,
  listLimit: 1_000,
  /** A client-given id may be this old at most, and its tombstone lives as long after its own time. */
  clientIdAgeMs: 3_600_000,
  idempotencyTtlMs: 86_400_000,
  idempotencyKeys: 1_000_000,
  /** Of the answers kept with them; a POST with a new key is refused beyond either. */
  idempotencyBytes: 1024 * 1024 * 1024,
  /** Claims whose answer never arrived, or that a restart released, that cost nothing. */
  freeReleases: 10,
  claimMax: 1_000,
  waitMs: 60_000,
} as const;

/** A submit as the proposer completed it: every default resolved, nothing left to decide but the state. */
export interface NewTask {
  readonly id: string;
  readonly name: string;
  readonly queue: string;
  readonly priority: number;
  /** JSON text as sent, or null when none was given. */
  readonly payload: string | null;
  readonly max_retries: number;
  /** Epoch ms; null: at once. */
  readonly run_at: number | null;
  readonly timeout_ms: number | null;
  readonly retry: RetryPolicy;
  /** Set when the client gave the id: hash over the submit, to tell a repeat from a conflict. */
  readonly body_hash: string | null;
}

/** Repeats of a POST with the same key answer the same (docs/api.md). */
export interface IdempotencyScope {
  readonly principal: string;
  readonly route: string;
  readonly key: string;
  /** SHA-256 of the body, hex. */
  readonly hash: string;
}

/** Names a claim. The principal is part of it: nobody answers, repeats or withdraws another's. */
export interface ClaimRef {
  readonly principal: string;
  readonly worker_id: string;
  /** Repeating it returns the same tasks. Unique per principal and worker. */
  readonly request_id: string;
}

export interface Claim extends ClaimRef {
  /** null: every queue. */
  readonly queues: readonly string[] | null;
  /** null: every name. */
  readonly names: readonly string[] | null;
  /** Also names that nobody in the cluster ever named (the built-in "*"). Only with `names`. */
  readonly star: boolean;
  readonly max: number;
  /** Member and boot of local executors: a restart of that member releases its leases. Null for outside workers. */
  readonly local: { readonly member: NodeId; readonly boot: number } | null;
  /** Served when no other claim wants the task: nobody is free for it yet. The leader's business, not the log's. */
  readonly ahead?: boolean;
  /** The claim came with an Idempotency-Key: its first tasks are answered again, whatever became of them. */
  readonly idem?: IdempotencyScope;
}

/** A claimed task: what a worker needs to run it. */
export interface ClaimedTask extends Task {
  readonly lease: LeaseView;
}

export interface LeaseRef {
  readonly task_id: string;
  readonly attempt: number;
  readonly fence: number;
}

export interface HeartbeatLease extends LeaseRef {
  readonly progress?: Progress;
}

export type LeaseVerdict = "ok" | "cancel" | "lost";
export type Directive = "ok" | "quiet" | "terminate";

/** How a worker ends a lease. */
export type LeaseEnd =
  | { readonly kind: "complete"; readonly result: string | null }
  | {
      readonly kind: "fail";
      readonly error: TaskError;
      /** Overrides the policy's delay for this one retry. */
      readonly retry_after_ms: number | null;
      /** The Worker died under the task: charged to `crashes`, not to `retries`. */
      readonly crashed: boolean;
    }
  | { readonly kind: "snooze"; readonly delay_ms: number }
  /** Put back at no cost; confirms a cancel. */
  | { readonly kind: "release" };

/**
 * `cancelled`: the task was being cancelled, the end was not accepted and the task is Cancelled now.
 * `forbidden`: another worker or principal claimed it. `not-found`: unknown id.
 */
export type LeaseEndAnswer = "ok" | "stale-lease" | "cancelled" | "forbidden" | "not-found";

export interface ClusterMemberView {
  readonly id: NodeId;
  readonly url: string;
  readonly role: string;
  readonly voter: boolean;
  readonly match_index: number | null;
  readonly lag: number | null;
  readonly reachable: boolean;
  readonly last_contact_ms: number | null;
  /** Why this learner is no voter yet, as the leader says; null: a voter, or the leader was not asked. */
  readonly waiting: string | null;
  /** The member whose place this learner takes once it is a voter: that one is removed then; else null. */
  readonly replaces: string | null;
  /** Of the newest ping of the member that answers; null: not connected, or that member itself. */
  readonly round_trip_ms: number | null;
  /** How the leader sends to it: probe, replicate, snapshot; null at followers, and for the leader. */
  readonly replication: string | null;
}

export interface ClusterView {
  readonly cluster_id: string | null;
  readonly node_id: NodeId;
  readonly role: string;
  readonly term: number;
  readonly leader_id: NodeId | null;
  readonly commit_index: number;
  readonly applied_index: number;
  /** Newest entry in the log of the member that answers. */
  readonly last_index: number;
  /** `newest`: what the member that answers applies; `supported`: what all do, null while one was not heard of. */
  readonly machine_version: {
    readonly in_force: number;
    readonly newest: number;
    readonly supported: number | null;
  };
  /** Of the snapshot that comes in at the member that answers; null while none does. */
  readonly snapshot: { readonly received_bytes: number; readonly size_bytes: number } | null;
  readonly alarms: readonly Alarm[];
  readonly members: readonly ClusterMemberView[];
}

export type { NodeId };
