/**
 * The vocabulary of consensus: identifiers, log entries, messages and effects.
 *
 * Nothing here performs I/O. `raft/` imports nothing but itself; the driver in `replica/` gives the
 * core its inputs and carries its effects out.
 */

declare const brand: unique symbol;
type Brand<T, B extends string> = T & { readonly [brand]: B };

/** Election epoch, from 1; 0 means "before the first". Never decreases on a member. */
export type Term = Brand<number, "Term">;
/** Position in the log, from 1; 0 means "before the first entry". */
export type LogIndex = Brand<number, "LogIndex">;
/** Name of a member, `[a-z0-9-]{1,32}`. The identity of a member is its id, not its address. */
export type NodeId = Brand<string, "NodeId">;

export const asTerm = (n: number): Term => n as Term;
export const asIndex = (n: number): LogIndex => n as LogIndex;
export const asNodeId = (s: string): NodeId => s as NodeId;

export const TERM_0: Term = asTerm(0);
export const INDEX_0: LogIndex = asIndex(0);

/**
 * - `noop`: the entry that opens a term; without it nothing of earlier terms commits (Raft 5.4.2).
 * - `command`: opaque to the core, meant for the state machine.
 * - `config`: `data` is an encoded {@link Configuration}; takes effect when appended.
 * - `bootstrap`: entry 1 only; an encoded configuration plus what the driver adds to it.
 */
export type EntryKind = "noop" | "command" | "config" | "bootstrap";

export interface Entry {
  readonly term: Term;
  readonly index: LogIndex;
  readonly kind: EntryKind;
  /** Opaque bytes; counted by the size limits. Never mutated after construction. */
  readonly data: Uint8Array;
}

/** What must be on disk before a member may answer (Raft figure 2, "persistent state"). */
export interface HardState {
  readonly term: Term;
  /** The candidate that got this member's vote in `term`, or null. */
  readonly vote: NodeId | null;
}

/** What a member of the cluster is, beside its id. Opaque to the core; kept in the configuration. */
export interface MemberRecord {
  readonly url: string;
  /** Random name of the data folder; a wiped folder has another one. Empty: nobody came with one yet. */
  readonly incarnation: string;
  /** Learners only: becomes a voter by itself even if that makes their number even. */
  readonly voter?: true;
  /** Learners only: in the change that makes it a voter, this member goes. */
  readonly replaces?: NodeId;
}

/** Membership (Raft dissertation, 4.3). Joint while `outgoing` is not empty: both halves must agree. */
export interface Configuration {
  readonly voters: readonly NodeId[];
  /** Voters of the old half of a joint configuration; empty outside one. */
  readonly outgoing: readonly NodeId[];
  /** Receive the log, count for nothing. */
  readonly learners: readonly NodeId[];
  /** Voters of the old half that become learners when the joint configuration is left. */
  readonly learnersNext: readonly NodeId[];
  readonly members: Readonly<Record<string, MemberRecord>>;
}

/** A change of membership; the core turns it into a joint configuration and leaves that by itself. */
export type ConfigurationChange =
  | { readonly op: "add-learner"; readonly id: NodeId; readonly record: MemberRecord }
  | { readonly op: "promote"; readonly id: NodeId }
  | { readonly op: "demote"; readonly id: NodeId }
  | { readonly op: "remove"; readonly id: NodeId }
  | { readonly op: "update"; readonly id: NodeId; readonly record: MemberRecord };

export type Role = "follower" | "pre-candidate" | "candidate" | "leader";

/** Messages between cores. All carry the sender's term (for a pre-vote: the term asked for). */
export type Message = { readonly from: NodeId; readonly to: NodeId; readonly term: Term } & (
  | {
      readonly type: "vote";
      /** Pre-vote (dissertation 9.6): asks "would you?", changes nothing at either side. */
      readonly pre: boolean;
      readonly lastIndex: LogIndex;
      readonly lastTerm: Term;
      /** Set by a leadership transfer: the vote overrides the leader stickiness (dissertation 4.2.3). */
      readonly transfer: boolean;
      /** The candidate's connection to the leader was closed by the other side: early pre-vote. */
      readonly leaderLost: boolean;
    }
  | { readonly type: "vote-reply"; readonly pre: boolean; readonly granted: boolean }
  | {
      readonly type: "append";
      readonly prevIndex: LogIndex;
      readonly prevTerm: Term;
      /** Contiguous from prevIndex + 1; may be empty (probe). */
      readonly entries: readonly Entry[];
      readonly commit: LogIndex;
    }
  | {
      /** News of the commit index alone, as an append without entries would bring it; it has no answer. */
      readonly type: "commit";
      readonly prevIndex: LogIndex;
      readonly prevTerm: Term;
      readonly commit: LogIndex;
    }
  | {
      readonly type: "append-reply";
      /** The `prevIndex` of the append that this answers. */
      readonly prevIndex: LogIndex;
      /** Success: all of the log up to `match` equals the leader's and is durable here. */
      readonly match: LogIndex | null;
      /** Refusal: where the follower's log could agree, (index, term) of its best guess; else null. */
      readonly hint: { readonly index: LogIndex; readonly term: Term } | null;
      /** This log was damaged and ends at the hint: what was acknowledged behind it is lost. */
      readonly lost?: true;
    }
  | {
      readonly type: "heartbeat";
      /** min(match of the receiver, commit): never beyond what the receiver has been checked on. */
      readonly commit: LogIndex;
      /** Grows with every round of heartbeats of a leadership; names the ReadIndex batch. */
      readonly round: number;
    }
  | { readonly type: "heartbeat-reply"; readonly round: number }
  /** A follower asks the leader for a read index; `id` is fresh for every try. */
  | { readonly type: "read-index"; readonly id: number }
  /** `index` null: refused (not leader, or leadership lost); the follower asks again under a new id. */
  | { readonly type: "read-index-reply"; readonly id: number; readonly index: LogIndex | null }
  | { readonly type: "timeout-now" }
  /** The sender's log no longer reaches back to what the receiver needs; bytes travel outside. */
  | { readonly type: "snapshot"; readonly snapshot: SnapshotMeta }
  | { readonly type: "snapshot-reply"; readonly index: LogIndex; readonly ok: boolean }
);

export interface SnapshotMeta {
  readonly index: LogIndex;
  readonly term: Term;
  /** The configuration as of `index` (committed by definition). */
  readonly configuration: Configuration;
}

/** One atomic, ordered write to the log. The driver hands it to storage before any later one. */
export interface PersistOp {
  readonly hardState: HardState | null;
  /** Contiguous; rows at and beyond entries[0].index are replaced. */
  readonly entries: readonly Entry[];
}

/** What storage says about a write that is durable now. An ack for an overwritten entry counts for nothing. */
export interface PersistAck {
  readonly hardState: HardState | null;
  /** Last entry of that write, with its term, or null when it had none (guards the append ABA). */
  readonly last: { readonly index: LogIndex; readonly term: Term } | null;
}

/** A read that may be served once this member has applied `index` (Raft 6.4, ReadIndex). */
export interface ReadState {
  readonly id: number;
  /** null: refused; no leader, or leadership lost. The caller asks again with a new id. */
  readonly index: LogIndex | null;
}

/** The core wants entries that have left its cache; the driver answers with `Raft.fetched`. */
export interface FetchRequest {
  readonly peer: NodeId;
  /** First index wanted. */
  readonly from: LogIndex;
  /** Last index wanted, inclusive. */
  readonly to: LogIndex;
  readonly maxBytes: number;
}

/**
 * Everything the core wants done since the last call of `Raft.takeEffects`. Order for the driver:
 * hand `persist` to storage; send `messages` at once; send `afterPersist` when `persist` AND all writes
 * handed over before it are durable; then the rest.
 */
export interface Effects {
  readonly persist: PersistOp | null;
  readonly messages: readonly Message[];
  /** Promises about this member's disk (votes, append acknowledgements): must not leave earlier. */
  readonly afterPersist: readonly Message[];
  readonly reads: readonly ReadState[];
  readonly fetches: readonly FetchRequest[];
  /** Last index that is committed AND durable in this member's own log (rule S2), when it moved. */
  readonly applicable: LogIndex | null;
  /** Set when role, term or known leader changed. */
  readonly roleChange: {
    readonly role: Role;
    readonly term: Term;
    readonly leader: NodeId | null;
  } | null;
  /** Set when the configuration in force changed (appended, truncated or installed). */
  readonly configuration: Configuration | null;
  /** Peers that need a snapshot because the log no longer reaches back far enough. */
  readonly snapshots: readonly NodeId[];
  /** A snapshot that the leader offers and that is newer than this log; the driver fetches and installs it. */
  readonly install: { readonly from: NodeId; readonly snapshot: SnapshotMeta } | null;
}
