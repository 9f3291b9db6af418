/**
 * What the layers above need of the replicated log. `Replica` implements it; tests of the queue may use
 * anything that keeps the same promises.
 */
import type { Configuration, LogIndex, NodeId, Role, Term } from "../raft/types.ts";
import type { Millis } from "./ports.ts";

export type ConsensusErrorCode =
  /** No leader was known for the whole time limit: nothing was proposed. */
  | "no-leader"
  /** A leader, but no quorum: nothing was proposed, or (reads) nothing is at stake. */
  | "no-quorum"
  /** Proposed, and no answer within the time limit: it may still happen. */
  | "outcome-unknown"
  /** Refused early: too much is waiting already. Nothing was proposed. */
  | "overloaded"
  /** This member's disk, or the leader's, is almost full: nothing is written any more. */
  | "low-disk"
  /** This member is not the leader (leader-only calls). */
  | "not-leader"
  /** A call to another member got no answer. */
  | "timeout"
  /** This member's state differs from a majority's: it does not answer any more. */
  | "inconsistent"
  /** This member was removed from the cluster: it takes nothing any more. */
  | "removed"
  | "stopping";

export class ConsensusError extends Error {
  override name = "ConsensusError";
  constructor(
    readonly reason: ConsensusErrorCode,
    message: string,
  ) {
    super(message);
  }
}

/** An error that a `serve` handler raises on purpose; code and detail reach the caller unchanged. */
export class CallError extends Error {
  override name = "CallError";
  constructor(
    readonly reason: string,
    message: string,
  ) {
    super(message);
  }
}

export interface Leadership {
  readonly role: Role;
  readonly term: Term;
  readonly leader: NodeId | null;
  /** True once this member leads AND has applied the entry that opens its term: its state is current. */
  readonly active: boolean;
}

/** A request of the batch that is about to be sealed into an entry, with what its submitter said about it. */
export interface SealedRequest {
  readonly hint: unknown;
}

export interface SubmitOptions {
  readonly timeoutMs: Millis;
  /** Rows that applying it may touch; an entry is sealed before it exceeds its budget (T3). */
  readonly weight?: number;
  /** For `onSeal` at the leader; JSON-able, small. */
  readonly hint?: unknown;
  /** Another member may act on it as soon as it has applied it: all hear of the commit at once, not with the next one. */
  readonly awaitedElsewhere?: boolean;
  /** Logged by this member in its present leadership, or never: no other leader is asked for it, nor this one later. */
  readonly thisLeadership?: boolean;
}

/**
 * - `inconsistent`: states of members differ (T9).
 * - `clock-skew`: this member's wall clock is the odd one out (T1).
 * - `low-disk`, `no-quorum`, `stuck-executors`: as they say.
 */
export type AlarmKind =
  "inconsistent" | "clock-skew" | "low-disk" | "no-quorum" | "stuck-executors";

/** Something that does not mend itself, or not soon: for the health check, the metrics and the dashboard. */
export interface Alarm {
  readonly kind: AlarmKind;
  /** The member that it is about; null: the cluster, or nobody knows which. */
  readonly member: NodeId | null;
  /** What is wrong, and what to do. */
  readonly sentence: string;
}

export interface ConsensusStatus extends Leadership {
  readonly id: NodeId;
  readonly clusterId: string | null;
  readonly commit: LogIndex;
  readonly applied: LogIndex;
  readonly lastIndex: LogIndex;
  readonly configuration: Configuration;
  /** Leader only: what it knows of each peer. */
  readonly peers: readonly {
    readonly id: NodeId;
    readonly match: LogIndex;
    readonly state: string;
    /** Since the last message of it, or null. */
    readonly lastContactMs: Millis | null;
    readonly roundTripMs: Millis | null;
    readonly connected: boolean;
  }[];
  /** Time since the newest contact with a quorum (leader) or with the leader (follower), or null. */
  readonly contactMs: Millis | null;
  /** Time since the SENDING of the newest leader message whose commit is applied here (0 on a leader with quorum). */
  readonly stalenessMs: Millis | null;
  /** A sentence once this member's state is known to differ from a majority's. */
  readonly condemned: string | null;
  /** What needs an operator, as far as this member knows. */
  readonly alarms: readonly Alarm[];
  readonly machineVersions: {
    readonly inForce: number;
    /** Highest one that this build applies. */
    readonly own: number;
    /** Highest one that every member's build applies; null while a member was not heard of. */
    readonly supported: number | null;
  };
  /** Why this member does not take part (yet), for people: waiting for members, refused, removed, … or null. */
  readonly waiting: string | null;
  /** It was removed: nothing is asked of it any more. */
  readonly retired: boolean;
  /** Leader only: why each learner is no voter yet. */
  readonly learners: ReadonlyMap<NodeId, string>;
  /** Of the snapshot that comes in, bytes; null while none does. */
  readonly receiving: { readonly bytes: number; readonly of: number } | null;
  /** A sentence until this member's state has once been as of what was committed when it found the leader. */
  readonly catchingUp: string | null;
}

export interface Consensus {
  readonly id: NodeId;
  readonly boot: number;

  /**
   * Proposes one command (its bytes) and resolves with the machine's answer, on whichever member it is
   * called: a follower forwards, an election is waited out, and (member, boot, seq) makes it happen once (T2).
   * @throws ConsensusError no-leader, no-quorum, overloaded, stopping (nothing happened) or outcome-unknown
   */
  submit(command: Uint8Array, options: SubmitOptions): Promise<unknown>;

  /**
   * Resolves once this member has applied everything that was acknowledged anywhere before the call
   * (ReadIndex). @throws ConsensusError no-leader, no-quorum, stopping
   */
  linearize(timeoutMs: Millis): Promise<LogIndex>;

  /**
   * Leader only: resolves after a quorum answered a round that began after this call, so a deposed leader
   * never gets here. @throws ConsensusError not-leader, no-quorum
   */
  confirmLeadership(timeoutMs: Millis): Promise<Term>;

  /**
   * Asks the leader (or this member itself, when it leads) outside the log; waits out an election.
   * @throws ConsensusError no-leader, timeout, stopping; CallError as the handler threw it
   */
  call(method: string, body: unknown, timeoutMs: Millis, signal?: AbortSignal): Promise<unknown>;
  /** Answers calls. `from` is the asking member (this one too). Handlers for the leader check it themselves. */
  serve(method: string, handler: (body: unknown, from: NodeId) => Promise<unknown>): void;
  /** Tells a member something, best effort, no answer. Same handlers; a lost one is lost. */
  notify(to: NodeId, method: string, body: unknown): void;

  /**
   * Leader only: runs before a batch becomes an entry; what it adds goes into the same entry, behind the
   * batch (T5: a submit and its claim are one round). `index`: where that entry will stand, unless leadership ends before.
   * `add` returns the promise of the answer.
   */
  onSeal(
    hook: (
      batch: readonly SealedRequest[],
      index: LogIndex,
      add: (command: Uint8Array) => Promise<unknown>,
    ) => void,
  ): void;
  /** Called at every change of role, term, leader or `active`, and once at registration. */
  onLeadership(listener: (leadership: Leadership) => void): void;

  /** Leader: the log time it would put into an entry now. Others: the newest applied log time. */
  logNow(): Millis;
  /** Hands leadership to `to`, or to the best follower. Resolves false when nobody took it in time. */
  transfer(to: NodeId | null, timeoutMs: Millis): Promise<boolean>;
  status(): ConsensusStatus;
  /** A sentence once this member must not answer any more, whatever was asked: its state is wrong (T9). */
  condemned(): string | null;
  /** A sentence once this member knows that it was removed: it takes nothing any more. */
  removed(): string | null;
}
