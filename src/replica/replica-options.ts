/** What a replica is made with, and what it counts. */
import type { CoreLimits } from "../raft/options.ts";
import type { NodeId } from "../raft/types.ts";
import type {
  Auditor,
  Clock,
  Log,
  LogStore,
  Millis,
  Random,
  SeenStore,
  SnapshotStore,
  StateMachine,
  Transport,
} from "./ports.ts";
import type { MachineVersions } from "./versions.ts";
import type { ReplicaObserver } from "./writes.ts";

export interface ReplicaOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly store: LogStore;
  readonly snapshots: SnapshotStore;
  readonly transport: Transport;
  readonly machine: StateMachine;
  /** What this build applies. */
  readonly machineVersions: MachineVersions;
  readonly heartbeatMs: Millis;
  readonly electionTimeoutMs: Millis;
  /** The address that clients and other members shall use. */
  readonly advertise: string;
  /** `--peers`, own id included: the first membership; ever after, where the others are looked for first. Empty: a cluster of one. */
  readonly peers: ReadonlyMap<NodeId, string>;
  /** `--join`: an empty folder asks to be added to the cluster of the member there; see `joinThrough`. */
  readonly join?: string | null;
  /** Where what was seen of the others outlives a start; absent: in memory only. */
  readonly seen?: SeenStore;
  /** The cluster will not add this member: called once, with a sentence. */
  readonly onJoinRefused?: (sentence: string) => void;
  /** The cluster's settings, if this member founds it. */
  readonly foundingSettings: unknown;
  /** A sentence when the state was found damaged: the machine stands on nothing, and is made anew. */
  readonly stateDamage?: string | null;
  /** True while the disk is almost full: nothing is written, and leadership is handed over. */
  readonly diskFull?: () => boolean;
  /** True while the disk has less room than its reserve; told to the others. */
  readonly diskLow?: () => boolean;
  /** Other limits of the core than production's: small ones bring its rarer branches within a test's reach. */
  readonly limits?: Partial<CoreLimits>;
  /** Hashes rows for the consistency check (T9); without one the rolling hash alone is compared. */
  readonly auditor?: Auditor;
  /** This very state was found to differ from the others' before the process was started: a sentence. */
  readonly condemned?: string | null;
  /** This member's state differs from a majority's: it does not answer any more. */
  readonly onCondemned?: (sentence: string) => void;
  /**
   * That the folder with this incarnation was removed from that cluster, in a sentence: the log that it holds may not tell. A
   * rescue makes another cluster of the same folder.
   */
  readonly removed?: {
    load(clusterId: string, incarnation: string): string | null;
    keep(clusterId: string, incarnation: string, sentence: string): void;
  };
  /** Told of entries, for metrics. */
  readonly observer?: ReplicaObserver;
  /** The process must stop: called once. */
  readonly onFatal: (error: Error) => void;
}

/**
 * - `timeout`: nothing was heard of a leader.
 * - `leader-lost`: its process was seen to be gone.
 * - `transfer`: it handed leadership over.
 */
export type ElectionReason = "timeout" | "leader-lost" | "transfer";

/** Counters since the start, for metrics. */
export interface ReplicaCounters {
  elections: number;
  leaderChanges: number;
  entriesSealed: number;
  commandsSealed: number;
  entriesApplied: number;
  commandsApplied: number;
  commandsForwarded: number;
  framesDropped: number;
  applySeconds: number;
  snapshotsInstalled: number;
  snapshotBytesSent: number;
  snapshotReceiversDropped: number;
}
