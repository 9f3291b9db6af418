/**
 * The ports through which the driver touches the world. Production implements them in `storage/` and
 * `transport/`, the simulator with models of its own; the driver and the core never know which.
 */
import type {
  Configuration,
  Entry,
  HardState,
  LogIndex,
  Message,
  NodeId,
  PersistAck,
  PersistOp,
  Term,
} from "../raft/types.ts";

/** Milliseconds. Durations everywhere; wall-clock times are epoch milliseconds. */
export type Millis = number;

export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Never goes back; unrelated to any other member's. */
  monotonic(): Millis;
  /** Epoch milliseconds; may jump. */
  wall(): Millis;
  after(delay: Millis, run: () => void): Timer;
  /** After what is already waiting in the event loop: gathers (`setImmediate`; a microtask does not). */
  soon(run: () => void): void;
}

export interface Random {
  /** Uniform in [0, 1). */
  float(): number;
  /** Uniform 32-bit unsigned integer. */
  uint32(): number;
  /** UUIDv7 for the given epoch milliseconds, strictly increasing within a process. */
  uuid(now: Millis): string;
  /** `bytes` random bytes in hex. */
  hex(bytes: number): string;
}

/** Who a data folder belongs to. Written once (id, incarnation) or once known (clusterId); boot grows. */
export interface Identity {
  readonly id: NodeId;
  /** Random name of this data folder, minted when it is created. */
  readonly incarnation: string;
  readonly clusterId: string | null;
  /** Counts the starts of a process on this folder, from 1. */
  readonly boot: number;
}

/** What the log holds after it was opened, synced (S1) and verified. */
export interface RecoveredLog {
  readonly identity: Identity;
  readonly hardState: HardState;
  /** Entry before the first one kept; (0, 0) when nothing was compacted. */
  readonly compacted: { readonly index: LogIndex; readonly term: Term };
  /**
   * What compaction keeps of the entries it forgets, ascending: the `bootstrap` entry and the newest `config`
   * entry up to `compacted`. Absent or empty while neither was compacted.
   */
  readonly foundations?: readonly Entry[];
  readonly lastIndex: LogIndex;
  /** Terms by the first index that bears them, ascending, from `compacted.index + 1` on. */
  readonly terms: readonly { readonly index: LogIndex; readonly term: Term }[];
  /** Every `config` and `bootstrap` entry still in the log, ascending. */
  readonly configurations: readonly Entry[];
  /** The newest entries, contiguous up to lastIndex, at most the cache size asked for. */
  readonly tail: readonly Entry[];
  /**
   * Set when an entry behind lastIndex cannot be believed. Nothing was changed yet: the owner cuts the log there
   * ({@link LogStore.cut}), replaces it, or stops.
   */
  readonly damage?: LogDamage | null;
  /** Set while a log that was cut is repaired from the others, and does not yet hold all that it promised. */
  readonly promised?: LogPromise | null;
}

export interface LogDamage {
  /** The first entry that is damaged: lastIndex + 1. */
  readonly index: LogIndex;
  /** What is wrong with it, and where. */
  readonly what: string;
  readonly promised: LogPromise;
}

/** What a log whose end is lost may have acknowledged: nothing behind `index`, nothing of a later term than `term`. */
export interface LogPromise {
  readonly index: LogIndex;
  readonly term: Term;
}

/**
 * The durable log. Writes are ordered and answered in order; many that wait become one transaction.
 * A failed write is never answered: `onFailure` is called once, and the process must stop (S6).
 */
export interface LogStore {
  open(tailBytes: number): Promise<RecoveredLog>;
  /** Hands one atomic write over; `done` runs when it is durable (fsynced), in the order of the calls. */
  append(op: PersistOp, done: (ack: PersistAck) => void): void;
  /** What was appended in this turn goes to the disk now, not at its end: something that takes long follows. */
  flush?(): void;
  /**
   * Entries [from, to] as far as they are held, cut so that their data stays under maxBytes, but at least one;
   * none when `from` itself is compacted or beyond the end.
   */
  read(from: LogIndex, to: LogIndex, maxBytes: number): Promise<readonly Entry[]>;
  /**
   * Forgets entries up to and including `index` in steps; the entry itself stays known as `compacted`.
   * @throws Error when `index` is beyond the log or its entry is of another term: nothing is forgotten then
   */
  compact(index: LogIndex, term: Term): Promise<void>;
  /**
   * First half of an install (S5): notes durably what shall take the place of this log. The log itself stays
   * as it is; when the store is opened next, the install is finished if `install.state` is current by then,
   * else forgotten. A later mark replaces an earlier one. Nothing may be appended until it is finished.
   * @throws Error when the log holds the entry (index, term): then its suffix is valid and must stay (Raft
   * section 7); nothing is marked
   */
  markInstall(install: LogInstall): Promise<void>;
  /**
   * Second half, once the state that the mark names is current: everything held goes, also what is behind
   * `index`, since it may conflict; the log begins after `index`, and the mark is cleared, in one transaction.
   * @throws Error when nothing is marked
   */
  finishInstall(): Promise<void>;
  /**
   * Forgets everything behind `lastIndex` of a log that was found damaged, but not what it promised, in one
   * transaction. @throws Error when it was not
   */
  cut(): Promise<void>;
  /** Binds the folder to a cluster, durably. Refused when it is bound to another one. */
  bindCluster(clusterId: string): Promise<void>;
  /** True while a write waits for room on a full disk; it is tried again by itself. */
  readonly noRoom?: boolean;
  /** Bytes on disk, newest durable index, writes and fsyncs so far. */
  stats(): LogStats;
  onFailure(report: (error: Error) => void): void;
  close(): Promise<void>;
}

/** What takes the place of a log when the state is replaced by a snapshot (S5). */
export interface LogInstall {
  /** Last entry that the new state holds. */
  readonly index: LogIndex;
  readonly term: Term;
  /** As {@link RecoveredLog.foundations}: entry 1, and the configuration as of `index`. */
  readonly foundations: readonly Entry[];
  /** Name of the state database that belongs to it. */
  readonly state: string;
  /** Set when the log and the state begin anew because they were damaged: both index and term are 0 then. */
  readonly promised?: LogPromise;
  /** The folder belongs to this cluster from then on; absent: to the one that it belonged to. */
  readonly clusterId?: string;
}

export interface LogStats {
  readonly writes: number;
  readonly transactions: number;
  /** Held now: compacted and replaced ones do not count. */
  readonly entries: number;
  /** On disk, as of the newest upkeep and with what was written since. */
  readonly bytes: number;
  /** Of entries' data, handed over since the log was opened. */
  readonly bytesWritten: number;
  /** Duration of each of the newest transactions, fsync included, milliseconds; newest last, at most 512. */
  readonly recentMs: readonly number[];
}

/** A copy of the state that this member made, to be read from as often as anybody wants. */
export interface SnapshotCopy {
  /** Identity: another copy is another one, whatever its index. `[0-9]+-[0-9a-f]+` */
  readonly id: string;
  /** Last entry that it holds. */
  readonly index: LogIndex;
  readonly term: Term;
  readonly machineVersion: number;
  readonly bytes: number;
  /** SHA-256 of all its bytes, hex. */
  readonly checksum: string;
}

/** A piece of a snapshot's bytes. Checked where it is written, beside the thread that ticks. */
export interface SnapshotChunk {
  readonly data: Uint8Array;
  /** CRC32 of the data. */
  readonly crc: number;
}

/** Everything about a snapshot but its bytes: what a receiver is told before the first chunk. */
export interface SnapshotManifest extends SnapshotCopy {
  /** As of `index`. */
  readonly configuration: Configuration;
  /** Entry 1's record. */
  readonly bootstrap: BootstrapRecord;
}

/**
 * Copies of the state: made, read and received beside the thread that ticks, and put in place of it (S4, S5).
 * What is received is kept in part, by identity, until it is whole, discarded, or the store is opened next.
 */
export interface SnapshotStore {
  /** Copies the state as of some moment during the call; writers go on. @throws Error disk full, not readable */
  create(): Promise<SnapshotCopy>;
  /** Bytes [offset, offset + bytes), fewer at the end. @throws Error unknown or removed */
  read(id: string, offset: number, bytes: number): Promise<SnapshotChunk>;
  /** Forgets a copy made here. Unknown ones are removed already. */
  remove(id: string): Promise<void>;
  /** Begins to receive, or goes on with what has the same identity; anything else that was begun is discarded. */
  receive(manifest: SnapshotManifest): Promise<void>;
  /**
   * Bytes of what is being received, in any order. False: damaged on their way, nothing was written.
   * @throws Error another identity, beyond its size, disk full
   */
  write(id: string, offset: number, chunk: SnapshotChunk): Promise<boolean>;
  /**
   * All bytes are written: checks the whole against its checksum, index and term, and makes it durable.
   * @throws Error it is not what the manifest says: discarded
   */
  verify(id: string): Promise<void>;
  discard(id: string): Promise<void>;
  /**
   * Puts what was verified in place of state and log, by steps of which each leaves a folder that opens (S5).
   * Nothing may be applied or appended meanwhile. When it resolves, the state machine is at `index`.
   * @throws Error the log holds that entry: nothing has changed; FatalError: start anew
   */
  install(manifest: SnapshotManifest, foundations: readonly Entry[]): Promise<void>;
  /**
   * Puts what was verified in place of the state alone, which is wrong; the log, which is right, must hold that index.
   * The state before is kept beside it, for whoever finds out what was wrong, in place of one that was kept before.
   * Nothing may be applied meanwhile. When it resolves, the state machine is at `index`. @throws FatalError start anew
   */
  replaceState(manifest: SnapshotManifest): Promise<void>;
  /**
   * Begins the state anew, empty, because it is damaged; with `log` the log too, which keeps only what it promised
   * and who the members are. Steps as of an install. @throws FatalError start anew
   */
  reset(
    log: { readonly promised: LogPromise; readonly foundations: readonly Entry[] } | null,
  ): Promise<void>;
  close(): Promise<void>;
}

/**
 * How a snapshot travels. The receiver asks for each chunk, so its asking is the acknowledgement and the
 * window; the sender only answers, and keeps no state about how far a receiver is.
 */
export type SnapshotFrame =
  /** Asks for a snapshot; `held`: identity of what was received in part and could go on. */
  | { readonly type: "open"; readonly held: string | null }
  | { readonly type: "manifest"; readonly manifest: SnapshotManifest }
  | {
      readonly type: "read";
      readonly id: string;
      readonly offset: number;
      readonly bytes: number;
    }
  | {
      readonly type: "chunk";
      readonly id: string;
      readonly offset: number;
      /** CRC32 of the data. */
      readonly crc: number;
      readonly data: Uint8Array;
    }
  /** The sender cannot serve: the snapshot is gone (`id`), or none can be made. */
  | { readonly type: "gone"; readonly id: string | null; readonly detail: string }
  /** The receiver needs it no more. */
  | { readonly type: "done"; readonly id: string };

/** Frames that members exchange once a connection is authenticated. `body` is JSON-able. */
export type PeerFrame =
  | { readonly kind: "raft"; readonly message: Message }
  /** Commands for the leader to propose; answered by applying them, or by `refuse`. */
  | { readonly kind: "propose"; readonly proposal: ForwardedProposal }
  | { readonly kind: "refuse"; readonly refusal: ProposalRefusal }
  /** A question to a member (usually the leader) outside the log. */
  | { readonly kind: "call"; readonly id: number; readonly method: string; readonly body: unknown }
  | { readonly kind: "reply"; readonly id: number; readonly body: unknown }
  | { readonly kind: "error"; readonly id: number; readonly code: string; readonly detail: string }
  | { readonly kind: "snapshot"; readonly frame: SnapshotFrame };

/** A member's own commands on their way to the leader. (member, boot, seq) makes each one unique (T2). */
export interface ForwardedProposal {
  readonly boot: number;
  /** Every answer below this sequence has reached the member: the leader logs it with its next entry. */
  readonly acked: number;
  readonly requests: readonly {
    readonly seq: number;
    readonly command: Uint8Array;
    readonly hint: unknown;
  }[];
}

export interface ProposalRefusal {
  readonly boot: number;
  readonly seqs: readonly number[];
  readonly code: "not-leader" | "overloaded" | "low-disk";
  readonly leader: NodeId | null;
}

/** What was seen of the other members (sightings.ts), kept beside the log; losing it loses a memory only. */
export interface SeenStore {
  /** As it was kept last; null: nothing was. Whoever reads it checks it. */
  load(): unknown;
  /** Takes JSON-able data over; it is on the disk some time later, or never. */
  keep(seen: unknown): void;
}

/** What a peer says of itself when a connection opens. */
export interface PeerHello {
  readonly id: NodeId;
  readonly incarnation: string;
  readonly boot: number;
  readonly clusterId: string | null;
  /** Newest log index and its term: zero and zero is an empty folder. */
  readonly lastIndex: LogIndex;
  readonly lastTerm: Term;
  /** Ids given by `--peers`, sorted; compared before a bootstrap. Empty with none. */
  readonly peerIds: readonly NodeId[];
  /** The address that clients and joining members shall use. */
  readonly advertise: string;
  /** Highest machine version this member can apply. */
  readonly machineVersion: number;
  /** Lowest one: what it applies, it applies as a build of that version did. */
  readonly machineVersionOldest: number;
  /** The bootstrap record of an initialised member: lets one that crashed half-way through adopt it. */
  readonly bootstrap: string | null;
  /** Durable term; a folder that was put back shows a lower one than before. */
  readonly term?: Term;
  /** Index of the configuration in force there: who has the newer one knows better who is a member. */
  readonly configIndex?: LogIndex;
  /** A folder that asks to be added: empty, or never a member as far as the log goes that it has begun to hold. */
  readonly join?: boolean;
  /** When this process began, by its own wall clock: of two processes with one number of starts, one has an old copy. */
  readonly startedAt?: Millis;
}

/** Why a member does not let another one in. */
export interface Refusal {
  readonly sentence: string;
  readonly code: RefusalCode;
}

/**
 * - `refused`: no more than the sentence says.
 * - `joining`: it is being added; it knocks again.
 * - `no-join`: it will not be added as it is.
 * - `removed`: it is no member, by a configuration that is committed and no older than its own.
 */
export type RefusalCode = "refused" | "joining" | "no-join" | "removed";

/**
 * What a refusal is about:
 * - `hello`: this member's, which said `configIndex`.
 * - `connection`: one that was open, made with such a hello; or one that had come to none (0).
 * - `peer`: this member judged what it had dialled.
 */
export type Judged =
  | { readonly what: "hello" | "connection"; readonly configIndex: LogIndex }
  | { readonly what: "peer" };

/** Why a connection ended. `closed-by-peer` and `refused` point at a dead process; the rest do not. */
export type DisconnectReason = "closed-by-peer" | "refused" | "timeout" | "ours" | "rejected";

export interface TransportEvents {
  /** The connection on which we send to `peer` is authenticated. */
  connected(peer: NodeId, hello: PeerHello): void;
  disconnected(peer: NodeId, reason: DisconnectReason): void;
  /** `incarnation`: of the folder that this connection was let in for. */
  frame(from: NodeId, frame: PeerFrame, incarnation: string): void;
  /** A hello was seen that this member must judge; null lets it in. */
  admit(hello: PeerHello): Refusal | null;
  /** Nothing came of the connection to `peer`: it refused this member, or this one what was there. */
  refused(peer: NodeId, refusal: Refusal, judged: Judged): void;
}

/**
 * Best-effort, per-connection ordered, possibly lossy delivery of frames. A member sends on the
 * connection that it dialled and receives on those that the others dialled.
 */
export interface Transport {
  start(self: () => PeerHello, events: TransportEvents): void;
  /** Dial exactly these from now on, each at its addresses by turns, until it answers. Own id is ignored. */
  setPeers(peers: ReadonlyMap<NodeId, readonly string[]>): void;
  /** False: dropped (no connection, or the send limit reached). True promises nothing more than an attempt. */
  send(to: NodeId, frame: PeerFrame): boolean;
  /** What was sent in this turn leaves now, not at its end: something that takes long follows. */
  flush?(): void;
  /** Bytes that the connection to this peer was given and has not sent yet. */
  waitingBytes?(peer: NodeId): number;
  isConnected(peer: NodeId): boolean;
  /** Ends the connection that `peer` dialled, and says why. */
  dismiss(peer: NodeId, refusal: Refusal): void;
  /** Round trip of the newest transport ping, milliseconds, or null. */
  roundTripMs(peer: NodeId): number | null;
  close(): Promise<void>;
}

/** A request as the state machine sees it: who asked, and the command as the machine's own codec wrote it. */
export interface LoggedRequest {
  readonly member: NodeId;
  readonly boot: number;
  readonly seq: number;
  readonly command: Uint8Array;
}

/** A committed entry, decoded. `requests` is empty for `noop` and `config`. */
export interface CommittedEntry {
  readonly index: LogIndex;
  readonly term: Term;
  /** Log time, epoch milliseconds; never less than the entry before (T1). 0 for entries without one. */
  readonly now: Millis;
  /** 32-bit seed for what must look random in apply (jitter). */
  readonly seed: number;
  readonly requests: readonly LoggedRequest[];
  /** Per member: its boot and the sequence below which it has received every answer. */
  readonly acks: readonly {
    readonly member: NodeId;
    readonly boot: number;
    readonly below: number;
  }[];
  /** Set on entry 1: the cluster's first settings and members. */
  readonly bootstrap: BootstrapRecord | null;
  /** Set on an entry that changes the membership: the ids of all members from then on. */
  readonly members?: readonly NodeId[];
}

/** Entry 1. */
export interface BootstrapRecord {
  readonly clusterId: string;
  readonly createdAt: Millis;
  readonly members: readonly {
    readonly id: NodeId;
    readonly incarnation: string;
    readonly url: string;
  }[];
  /** The cluster's settings, opaque here; the machine reads them. */
  readonly settings: unknown;
  /** In force from the beginning: what every founding member applies. */
  readonly machineVersion: number;
  /** A cluster that began with the state of another one. */
  readonly origin?: {
    readonly kind: "rescue" | "restore";
    /** Of the other one; its members are refused for ever. Null: it is not known. */
    readonly clusterId: string | null;
    /** Last entry of it that the state holds. */
    readonly index: LogIndex;
    readonly term: Term;
    /** What was left behind, for people. */
    readonly note: string;
  };
}

export interface RequestAnswer {
  readonly member: NodeId;
  readonly boot: number;
  readonly seq: number;
  /** JSON-able. */
  readonly answer: unknown;
}

/**
 * The replicated state. `apply` is a function of the entries and the state alone: no clock, randomness,
 * locale or flag. The entries of one call or of several share one transaction with the applied index.
 */
export interface StateMachine {
  /** What was applied last, committed to the state's file or not; read at start and after every apply. */
  applied(): { readonly index: LogIndex; readonly term: Term };
  /** Highest log time applied, epoch milliseconds. */
  logTime(): Millis;
  /** In force: replicated, raised by an entry only. */
  machineVersion(): number;
  /** T9: the rolling hash of what was decided up to `index`; null: too long ago, or not applied yet. */
  chainAt(index: LogIndex): string | null;
  /**
   * @throws FatalError when an entry has a version this build does not know; NoRoomError: the state is as of its
   * newest commit again, `applied` too, and goes on from there when there is room
   */
  apply(entries: readonly CommittedEntry[]): readonly RequestAnswer[];
  /**
   * Commits what was applied to the state's file. Other connections see it then, and a restart goes on behind
   * it; what is not committed comes again from the log. The driver calls it on its clock, and before applies
   * are held for a checkpoint. @throws NoRoomError as `apply`
   */
  flush(): void;
}

/** Hashes rows of the state (T9), beside the thread that ticks where the state is a file. */
export interface Auditor {
  /**
   * The rows behind `cursor`; null: from the first. `begun` is told as of which index they are read: the state must
   * not change until then, and may afterwards. One at a time. @throws StateDamage, Error they cannot be read
   */
  read(cursor: string | null, begun: (index: number) => void): Promise<AuditSlice>;
}

export interface AuditSlice {
  /** Equal for equal rows. */
  readonly digest: string;
  /** Where the next rows begin; null: these were the last ones. */
  readonly next: string | null;
  readonly rows: number;
}

/** Structured log; implemented by the composition root (the core and the driver read no clock, not even here). */
export interface Log {
  debug(message: string, fields?: Readonly<Record<string, unknown>>): void;
  info(message: string, fields?: Readonly<Record<string, unknown>>): void;
  warn(message: string, fields?: Readonly<Record<string, unknown>>): void;
  error(message: string, fields?: Readonly<Record<string, unknown>>): void;
}

/**
 * The disk has no room for what was to be written; nothing of it was, and it can be tried again. Unlike any other
 * failure of a write this says nothing about what is on the disk already.
 */
export class NoRoomError extends Error {
  override name = "NoRoomError";
}

/** SQLite's word for a full disk; a sync that fails for it has another one, and is not forgiven. */
export function isNoRoom(error: unknown): boolean {
  if (error instanceof NoRoomError) return true;
  if (!(error instanceof Error) || !("code" in error)) return false;
  return error.code === "SQLITE_FULL" || error.code === "SQLITE_IOERR_SHMSIZE";
}

/** The state's file is not what was written: SQLite finds it malformed. */
export class StateDamage extends Error {
  override name = "StateDamage";
  readonly code = "SQLITE_CORRUPT";
}

/** Nothing in this process can go on safely: it logs the message and ends with a non-zero code. */
export class FatalError extends Error {
  override name = "FatalError";
}
