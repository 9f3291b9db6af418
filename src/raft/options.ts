/** What a core is made with, and what it answers its owner. */
import type { LeadershipOptions } from "./leadership.ts";
import type { ProgressState } from "./progress.ts";
import type { EntryKind, LogIndex, NodeId, Term } from "./types.ts";

export interface RaftOptions extends LeadershipOptions {
  readonly id: NodeId;
  /** Between two rounds of heartbeats. */
  readonly heartbeatTicks: number;
  /** How long a leader is believed in without a sign; the least time before a campaign. */
  readonly electionTicks: number;
  /**
   * A leader gives leadership up when its oldest own write is on its way for longer than this while a quorum
   * without it has acknowledged beyond.
   */
  readonly stallTicks: number;
  /** Draws the randomised timeout, in ticks, from [electionTicks, 2 * electionTicks). The core has no randomness. */
  readonly drawElectionTicks: () => number;
  /** Data of one append; a larger single entry still goes, alone. */
  readonly maxAppendBytes: number;
  /** Appends on their way to one peer. */
  readonly maxInflightMessages: number;
  readonly maxInflightBytes: number;
  /** Proposals beyond are refused 'overloaded'; one always passes when nothing is outstanding. */
  readonly maxUncommittedBytes: number;
  /** Writes on their way to the own disk; while there are as many, what would need another is not heard. */
  readonly maxWritesUnderWay: number;
  /** Reads that wait at one core; beyond it they are refused. A driver that batches has few of them. */
  readonly maxReadsWaiting: number;
  /** Bound of the entry cache; what is not durable yet stays even beyond it (entry-cache.ts). */
  readonly cacheBytes: number;
}

export interface ProposalItem {
  readonly kind: EntryKind;
  readonly data: Uint8Array;
}

/** `detail` is a sentence for the operator. */
export type ProposeResult =
  | { readonly ok: true; readonly first: LogIndex; readonly last: LogIndex; readonly term: Term }
  | {
      readonly ok: false;
      readonly reason: "not-leader" | "transferring" | "overloaded" | "pending-change" | "invalid";
      readonly detail: string;
    };

export interface PeerProgress {
  readonly match: LogIndex;
  readonly next: LogIndex;
  readonly state: ProgressState;
  /** Appends on their way. */
  readonly inflight: number;
  readonly inflightBytes: number;
  readonly recentActive: boolean;
  /** A voter, also by the configuration to come: leadership may be handed to it. */
  readonly mayLead: boolean;
}

const MIB = 1024 * 1024;

/**
 * Limits of one member, as production takes them. The cache holds `cacheBytes` of durable entries at most, and
 * never less than what is not durable yet, which is at most `maxUncommittedBytes` or one single larger entry
 * (18 MiB and its envelope): together they stay under 24 MB, whatever the traffic.
 */
export const DEFAULT_LIMITS = {
  maxAppendBytes: MIB,
  maxInflightMessages: 64,
  maxInflightBytes: 8 * MIB,
  maxUncommittedBytes: 20 * MIB,
  maxWritesUnderWay: 4_096,
  maxReadsWaiting: 4_096,
  cacheBytes: 16 * MIB,
} as const satisfies Partial<RaftOptions>;

export type CoreLimits = Readonly<Record<keyof typeof DEFAULT_LIMITS, number>>;
