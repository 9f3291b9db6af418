/**
 * What the service and the leader's dispatcher read of the replicated state, on the writer's own
 * connection and without a wait. `TaskMachine` implements it; nothing here changes anything.
 */
import type { NodeId } from "../raft/types.ts";
import type { Answer, Signal } from "./commands.ts";
import type {
  Attempt,
  ClaimRef,
  ClaimedTask,
  IdempotencyScope,
  LeaseRef,
  LogLine,
  Settings,
  Status,
  Task,
} from "./types.ts";

/** A lease in force, as a new leader needs it to rebuild its deadlines. Times in epoch ms of log time. */
export interface RunningLease extends LeaseRef {
  readonly name: string;
  readonly queue: string;
  readonly worker: string;
  readonly principal: string;
  /** Member and boot of a local executor; null for outside workers. */
  readonly local: { readonly member: NodeId; readonly boot: number } | null;
  /** When it was claimed. */
  readonly started_at: number;
  /** When the attempt times out; null: never. */
  readonly timeout_at: number | null;
  /** A cancel was asked for: a heartbeat is answered `cancel`. */
  readonly cancelling: boolean;
  /** A heartbeat confirmed it in some leadership: the work was seen to start. */
  readonly seen: boolean;
  /** Number of the last leadership that confirmed it, or that granted it. */
  readonly confirmed: number;
}

/** What a batch of signals belongs to: the newest entry of the transaction and the log time after it. */
export interface SignalContext {
  readonly index: number;
  readonly now: number;
}

export type SignalListener = (signals: readonly Signal[], at: SignalContext) => void;

export interface LogPage {
  readonly lines: readonly LogLine[];
  /** Opaque; null on the last page. */
  readonly next: string | null;
}

export interface TaskState {
  settings(): Settings;
  /** Highest entry version in force in the cluster. */
  machineVersion(): number;
  /** Null before entry 1. */
  clusterId(): string | null;
  applied(): { readonly index: number; readonly term: number };
  /** Highest log time applied, epoch ms. */
  logTime(): number;

  task(id: string): Task | null;
  /** The tasks of `ids`, in their order; null where unknown. */
  tasksByIds(ids: readonly string[]): (Task | null)[];
  /** Oldest first, the one under way last; null: unknown id. */
  attempts(id: string): readonly Attempt[] | null;
  /** Log lines, oldest first; null: unknown id. @throws BadCursor */
  logs(id: string, cursor: string | null, limit: number): LogPage | null;
  /** Visible tasks per status, kept up to date in memory. */
  counts(): Readonly<Record<Status, number>>;

  /** Live view: how many tasks of each queue and name are ready. Only pairs with at least one. */
  ready(): ReadonlyMap<string, ReadonlyMap<string, number>>;
  /** Names that a module or an explicit claim ever named: the built-in "*" never takes them. */
  namedNames(): ReadonlySet<string>;

  running(): readonly RunningLease[];
  /** The lease in force on this task; null when it is not running (or unknown). */
  leaseOf(id: string): RunningLease | null;
  /**
   * What this request got when it was claimed, less what is not held under the same fence any more (so
   * possibly nothing). Null: no claim of this request that took anything is remembered.
   */
  claimAnswer(name: ClaimRef): readonly ClaimedTask[] | null;
  /**
   * What this idempotency key is answered with: the first answer again (a submit's tasks without payloads), or
   * the refusal of another body. Null: nothing is kept under it.
   */
  keyedAnswer(scope: IdempotencyScope): Answer | null;
  /** Number of the current leadership (T6): grows with every `takeover`. */
  leadership(): number;
  /**
   * Leases that no leadership confirmed for too long (T6): expired whatever the leader's own deadlines say.
   * `now`: log time, epoch ms. At most `max`.
   */
  unconfirmed(now: number, max: number): readonly RunningLease[];

  /** Log time at which the next scheduled or retrying task becomes ready; null: none waits. */
  nextDueAt(): number | null;
  /** Log time at which the next `purge` has something to remove; null: nothing is kept. */
  nextPurgeAt(): number | null;
  /** A clear is under way: `clear-step` has rows to delete. */
  clearing(): boolean;

  /** Commits what was applied: other connections, which read lists, see it from here on. */
  flush(): void;

  /** Called after each apply that changed something. Returns how to stop it. */
  onSignals(listener: SignalListener): () => void;
}
