/**
 * The task queue as `api/`, `dashboard/` and `executor/` see it. It knows no HTTP: refusals are
 * `QueueError`s with a code; whoever speaks HTTP maps codes to statuses.
 */
import type {
  Attempt,
  Claim,
  ClaimedTask,
  ClusterView,
  Detail,
  Directive,
  HeartbeatLease,
  IdempotencyScope,
  LeaseEnd,
  LeaseEndAnswer,
  LeaseRef,
  LeaseVerdict,
  LogLine,
  NewTask,
  Progress,
  Settings,
  SettingsChange,
  Status,
  Task,
} from "./types.ts";
import type { Alarm } from "../replica/consensus.ts";
import type { RefusalCode } from "./commands.ts";

/** Reads are linearizable unless the caller takes this member's own state, whatever its age. */
export type Consistency = "linearizable" | "stale";

export type QueueErrorCode =
  | RefusalCode
  /** No leader or no quorum within the time limit: nothing was done. 503. */
  | "no-leader"
  | "no-quorum"
  /** The write may or may not happen. 503. */
  | "outcome-unknown"
  /** Admission limits: 429. */
  | "overloaded"
  /** Disk below the reserve: 503. */
  | "low-disk"
  /** This member's state differs from the others': ask another one. 503. */
  | "inconsistent"
  /** This member was removed from the cluster: ask another one. 503. */
  | "removed"
  /** A member whose build is older keeps the cluster from having this: 409. */
  | "machine-version"
  | "stopping";

export class QueueError extends Error {
  constructor(
    readonly reason: QueueErrorCode,
    message: string,
    readonly retryAfterMs: number | null = null,
    /** A task that the refusal is about. */
    readonly taskId: string | null = null,
  ) {
    super(message);
    this.name = "QueueError";
  }
}

export interface TaskFilter {
  readonly statuses?: readonly Status[];
  readonly details?: readonly Detail[];
  readonly queue?: string;
  readonly name?: string;
  /** Prefix of the id or of the name. */
  readonly q?: string;
  /** Equality on a dotted path into the JSON payload; values compare as JSON scalars or text. */
  readonly payload?: readonly { readonly path: string; readonly value: string }[];
  readonly createdAfter?: number;
  readonly createdBefore?: number;
}

export interface TaskPage {
  readonly tasks: readonly Task[];
  /** Opaque; null on the last page. */
  readonly next: string | null;
}

/** How old what was read may be. Linearizable reads have staleness 0. */
export interface ReadInfo {
  readonly appliedIndex: number;
  readonly stalenessMs: number;
}

export interface Stats {
  readonly stats: Readonly<Record<Status, number>>;
  readonly total_tasks: number;
}

/** What a worker process says of itself; replicated nowhere, kept by the leader and asked of it. */
export interface WorkerView {
  readonly id: string;
  readonly member: string | null;
  readonly principal: string;
  readonly queues: readonly string[] | null;
  readonly names: readonly string[] | null;
  /** Null: an outside worker, which has claims and no slots. */
  readonly slots: number | null;
  readonly running: readonly {
    readonly task_id: string;
    readonly name: string;
    readonly attempt: number;
    readonly started_at: number;
  }[];
  readonly stuck: number;
  readonly kills: number;
  readonly restarts: number;
  readonly directive: Directive;
  /** Since the leader last heard of it. */
  readonly last_seen_ms: number;
}

export interface WriteContext {
  readonly principal: string;
  readonly idempotency: IdempotencyScope | null;
  /** Aborts the wait, not the write. */
  readonly signal?: AbortSignal;
}

export interface Submitted {
  readonly ids: readonly string[];
  /** The client-given id was there already with an equal body. */
  readonly existing: boolean;
  readonly replayed: boolean;
  /** With an idempotency key: the tasks as of the first answer, in the order of `ids`. */
  readonly tasks?: readonly Task[];
}

export interface HeartbeatAnswer {
  readonly verdicts: readonly LeaseVerdict[];
  readonly directive: Directive;
}

/** An answer, and whether it is the first one under its key again. */
export interface Keyed<T> {
  readonly value: T;
  readonly replayed: boolean;
}

/**
 * What outside workers and operators do under an Idempotency-Key, as the principal of its scope; otherwise like
 * the calls of the same names. @throws QueueError idempotency-mismatch, idempotency-full
 */
export interface KeyedQueue {
  /** Whether anything is kept under this key: what arrives with it now is a repeat, and changes nothing. */
  known(scope: IdempotencyScope): Promise<boolean>;
  end(
    scope: IdempotencyScope,
    workerId: string,
    items: readonly (LeaseRef & { end: LeaseEnd })[],
  ): Promise<Keyed<readonly LeaseEndAnswer[]>>;
  report(
    scope: IdempotencyScope,
    workerId: string,
    items: readonly (LeaseRef & { progress: Progress | null; lines: readonly string[] })[],
  ): Promise<Keyed<readonly LeaseEndAnswer[]>>;
  /** Logged, unlike a heartbeat without a key; a repeat keeps no lease. */
  heartbeat(
    scope: IdempotencyScope,
    workerId: string,
    leases: readonly HeartbeatLease[],
  ): Promise<Keyed<HeartbeatAnswer>>;
  quiet(scope: IdempotencyScope, workerId: string): Promise<Keyed<boolean>>;
}

export interface TaskQueue {
  // --- writes
  submit(tasks: readonly NewTask[], context: WriteContext): Promise<Submitted>;
  /** More submits wait than can be answered soon: the next one would be refused as `overloaded`. Costs nothing. */
  refusesSubmits(): boolean;
  cancel(id: string, context: WriteContext): Promise<void>;
  retry(
    id: string,
    ifVersion: number | null,
    context: WriteContext,
  ): Promise<{
    replayed: boolean;
    /** With an idempotency key: the task as of the first answer. */
    task?: Task;
  }>;
  clear(status: Status | null, context: WriteContext): Promise<number>;
  /**
   * Merged where it is applied, nested groups too; all settings, as they are then. @throws QueueError machine-version
   */
  updateSettings(change: SettingsChange, context: WriteContext): Promise<Settings>;

  // --- reads; each says how fresh it was
  get(id: string, consistency: Consistency): Promise<{ task: Task | null; read: ReadInfo }>;
  /** The tasks of `ids` as this member has them at this moment, in their order; null where unknown. @throws QueueError inconsistent, removed */
  held(ids: readonly string[]): (Task | null)[];
  list(
    filter: TaskFilter,
    limit: number,
    cursor: string | null,
    consistency: Consistency,
  ): Promise<{ page: TaskPage; read: ReadInfo }>;
  attempts(
    id: string,
    consistency: Consistency,
  ): Promise<{ attempts: readonly Attempt[] | null; read: ReadInfo }>;
  logs(
    id: string,
    cursor: string | null,
    limit: number,
    consistency: Consistency,
  ): Promise<{ lines: readonly LogLine[] | null; next: string | null; read: ReadInfo }>;
  stats(consistency: Consistency): Promise<{ stats: Stats; read: ReadInfo }>;
  /** As this member has applied them: for defaults and limits of what passes through it. */
  settings(): Settings;
  /** As they are for the whole cluster, like any other read. */
  readSettings(consistency: Consistency): Promise<{ settings: Settings; read: ReadInfo }>;
  /** The task once it is final, or as it is when the time is up. Null: unknown id. */
  waitFinal(id: string, waitMs: number, signal: AbortSignal | null): Promise<Task | null>;

  // --- the lease protocol, for outside workers and for this member's executors alike
  /** Long poll. Aborting `signal` withdraws the claim; tasks that it got all the same are released free of charge. */
  claim(
    claim: Claim,
    waitMs: number,
    signal: AbortSignal | null,
  ): Promise<{ tasks: readonly ClaimedTask[]; directive: Directive; replayed?: boolean }>;
  heartbeat(
    workerId: string,
    principal: string,
    leases: readonly HeartbeatLease[],
    info?: WorkerInfo,
  ): Promise<HeartbeatAnswer>;
  end(
    workerId: string,
    principal: string,
    items: readonly (LeaseRef & { end: LeaseEnd })[],
    idempotency: IdempotencyScope | null,
  ): Promise<readonly LeaseEndAnswer[]>;
  /** Gathered for up to a second; `prompt`: on record as soon as this worker's last report is. */
  report(
    workerId: string,
    principal: string,
    items: readonly (LeaseRef & { progress: Progress | null; lines: readonly string[] })[],
    prompt?: boolean,
  ): Promise<readonly LeaseEndAnswer[]>;
  readonly keyed: KeyedQueue;
  /** Local executors: told at once when a lease is cancelled or lost, as soon as this member applies it. */
  onLease(listener: (event: LeaseEvent) => void): () => void;

  // --- watching
  /** As the leader knows them. @throws QueueError no-leader, no-quorum */
  workers(): Promise<readonly WorkerView[]>;
  /** Stale: what this member knows by itself: who holds which leases, and how its own executors fare. */
  readWorkers(
    consistency: Consistency,
  ): Promise<{ workers: readonly WorkerView[]; read: ReadInfo }>;
  quiet(workerId: string): Promise<boolean>;
  cluster(): Promise<ClusterView>;
  /** Stale: the leader is not asked. Neither ever fails for the lack of one. */
  readCluster(consistency: Consistency): Promise<{ cluster: ClusterView; read: ReadInfo }>;
  health(): Health;
  /** Called at most once per event-loop turn after this member applied something; for live pages. */
  onChange(listener: (change: Change) => void): () => void;
  /** Tasks finished on this member's view per second for the last 60 whole seconds, newest last. */
  throughput(): readonly {
    readonly at: number;
    readonly completed: number;
    readonly failed: number;
    readonly submitted: number;
  }[];
}

/** What an executor pool tells of itself with its heartbeats. */
export interface WorkerInfo {
  readonly member: string;
  readonly slots: number;
  readonly names: readonly string[];
  readonly stuck: number;
  readonly kills: number;
  readonly restarts: number;
}

export interface LeaseEvent {
  readonly type: "cancel" | "lost";
  readonly task_id: string;
  readonly fence: number;
  /** For the handler's AbortSignal and the dashboard: timeout, expired, cleared, cancelled… */
  readonly reason: string;
}

export interface Change {
  readonly appliedIndex: number;
  readonly tasks: ReadonlySet<string>;
}

export type Health =
  | {
      readonly status: "healthy";
      readonly ready: boolean;
      readonly notReady: string | null;
      readonly alarms: readonly Alarm[];
    }
  | {
      readonly status: "unhealthy";
      readonly ready: false;
      readonly reason: string;
      readonly alarms: readonly Alarm[];
    };
