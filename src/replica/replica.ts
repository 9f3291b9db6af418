/**
 * The driver: carries out what the Raft core decides, through the ports, and serves the layers above.
 *
 * One member's replica persists, sends, applies, and answers who waits. It decides nothing about
 * consensus (that is `raft/`) and nothing about tasks (that is the state machine). Everything runs on one
 * thread; inputs of one turn of the event loop are gathered, then the core's effects are carried out.
 */
import { decodeConfigurationEntry, EMPTY_CONFIGURATION } from "../raft/configuration.ts";
import { type CoreLimits, DEFAULT_LIMITS } from "../raft/options.ts";
import { Raft } from "../raft/raft.ts";
import {
  asIndex,
  asTerm,
  type Configuration,
  type Effects,
  type Entry,
  type LogIndex,
  type Message,
  type NodeId,
  type PersistAck,
  type Role,
  type Term,
} from "../raft/types.ts";
import { Admission, JOIN_MS } from "./admission.ts";
import { ApplyWaiters } from "./apply-waiters.ts";
import { Calls, type Handler } from "./calls.ts";
import { ClockWatch } from "./clock-watch.ts";
import {
  type Alarm,
  type Consensus,
  ConsensusError,
  type ConsensusStatus,
  type Leadership,
  type SubmitOptions,
} from "./consensus.ts";
import { Consistency } from "./consistency.ts";
import { Contacts } from "./contacts.ts";
import { decodeEntry } from "./envelope.ts";
import { Founder } from "./founder.ts";
import { LogClock } from "./log-clock.ts";
import { Membership, parseFarewell, parseMemberId, parseMemberRequest } from "./membership.ts";
import { Persistence } from "./persistence.ts";
import {
  type Auditor,
  type BootstrapRecord,
  type Clock,
  type DisconnectReason,
  FatalError,
  isNoRoom,
  type Identity,
  type Log,
  type LogStore,
  type Millis,
  type PeerFrame,
  type PeerHello,
  type Random,
  type RecoveredLog,
  type RequestAnswer,
  type SnapshotManifest,
  type SnapshotStore,
  type Refusal,
  type SeenStore,
  type StateMachine,
  type Timer,
  type Transport,
} from "./ports.ts";
import { Reads } from "./reads.ts";
import { repaired } from "./repair.ts";
import { configurationOf, Snapshots } from "./snapshots.ts";
import { Sightings } from "./sightings.ts";
import { BEAT_MS, Staleness } from "./staleness.ts";
import { type MachineVersions, supportedVersion, versionRefusal } from "./versions.ts";
import { type ReplicaObserver, type SealHook, Writes } from "./writes.ts";

/** One logical tick of the core. */
const TICK_MS: Millis = 10;
/** Without a quorum for this long, writes and reads are refused at once (the contract says 2 s, answer included). */
const NO_QUORUM_MS: Millis = 1_700;
/** A leader's own disk may take this long, and two election timeouts, before others lead if they can. */
const STALL_MS: Millis = 1_000;
/** Between two tries to write the state to a full disk. */
const ROOM_RETRY_MS: Millis = 1_000;
/** A tick so late was not late by itself: this member did not run, and could hear nobody. */
const AWAY_MS: Millis = 100;
/** Entries decoded and applied in one transaction. */
const APPLY_ENTRIES_MAX = 64;
const APPLY_BYTES_MAX = 4 * 1024 * 1024;
/**
 * What was applied is committed to the state's file after this long: rows that change several times meanwhile
 * are written once. A crash loses nothing by it, the log is applied again.
 */
const FLUSH_MS: Millis = 100;
/** Before a member whose connection to the leader broke asks for votes, drawn from [0, this). */
const EARLY_CAMPAIGN_MS: Millis = 50;
const CLOCK_WORD_MS: Millis = 1_000;
const FOUNDING_MS: Millis = 100;

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
  /** `--peers`, own id included: the first membership, and address overrides ever after. Empty: a cluster of one. */
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
type ElectionReason = "timeout" | "leader-lost" | "transfer";

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

export class Replica implements Consensus {
  readonly #o: ReplicaOptions;
  readonly #identity: Identity;
  readonly #founder: Founder;
  readonly #sightings: Sightings;
  readonly #admission: Admission;
  readonly #membership: Membership;
  readonly #writes: Writes;
  readonly #persistence: Persistence;
  readonly #calls: Calls;
  readonly #reads: Reads;
  readonly #snapshots: Snapshots;
  readonly #contacts: Contacts;
  readonly #staleness = new Staleness();
  readonly #consistency: Consistency;
  readonly #clockWatch: ClockWatch;
  readonly #applyWaiters = new ApplyWaiters();
  readonly #hellos = new Map<NodeId, PeerHello>();
  /** Who said a moment ago that its disk is full. */
  readonly #fullDisks = new Set<NodeId>();
  /** Who said that it has less room than its reserve. */
  readonly #lowDisks = new Set<NodeId>();
  readonly #leadershipListeners: ((leadership: Leadership) => void)[] = [];
  readonly #installListeners: (() => void)[] = [];
  readonly #counts = {
    elections: 0,
    leaderChanges: 0,
    entriesApplied: 0,
    commandsApplied: 0,
    framesDropped: 0,
    applySeconds: 0,
  };

  readonly #elections: Record<ElectionReason, number> = {
    timeout: 0,
    "leader-lost": 0,
    transfer: 0,
  };
  /** Of the next election, or of the one under way. */
  #campaignReason: ElectionReason = "timeout";

  /** Null until the cluster is founded. */
  #raft: Raft | null = null;
  /** As of the newest look: who was a member then. */
  #configuration: Configuration = EMPTY_CONFIGURATION;
  /** The member at `--join`, once it is known. */
  #seed: NodeId | null = null;
  #leadership: Leadership = { role: "follower", term: asTerm(0), leader: null, active: false };
  #logClock: LogClock | null = null;

  /** Who holds applies: a checkpoint, the consistency check. */
  #applyHolds = 0;
  #flushTimer: Timer | null = null;
  /** A snapshot takes the place of state and log: nothing else may touch either. */
  #halted = false;
  /** Of writes that were handed over before; heard when it is over. */
  #acksHeld: PersistAck[] = [];
  /** Since the start. What was read from the log before one of them must not be applied after it. */
  #installs = 0;
  #readingLog = false;
  /** When the state found no room on the disk last; null while it has some. */
  #fullSince: Millis | null = null;
  #appliedSinceFull = false;
  #pumpScheduled = false;
  #lastQuorumAt: Millis;
  /** As of the newest tick: while requests by the thousand keep the loop busy, the peers' words wait unread. */
  #quorumLost = false;
  #nextTickAt: Millis;
  #nextBeatAt = 0;
  #nextClockWordAt = 0;
  #nextFoundingAt = 0;
  #tickTimer: Timer | null = null;
  #campaignTimer: Timer | null = null;
  #stopped = false;

  /** Opens the log, checks it against the state (S2), and returns a replica that is not started yet. */
  static async open(options: ReplicaOptions): Promise<Replica> {
    const recovered = await options.store.open(
      options.limits?.cacheBytes ?? DEFAULT_LIMITS.cacheBytes,
    );
    const sound = await repaired(
      {
        ...options,
        applied: () => options.machine.applied().index,
        stateDamage: options.stateDamage ?? null,
      },
      recovered,
    );
    return new Replica(options, sound);
  }

  private constructor(options: ReplicaOptions, recovered: RecoveredLog) {
    this.#o = options;
    const { clock, random, log, store } = options;
    this.#identity = recovered.identity;
    const now = options.clock.monotonic();
    this.#lastQuorumAt = now;
    this.#nextTickAt = now + TICK_MS;
    this.#contacts = new Contacts(this.id);
    this.#clockWatch = new ClockWatch(options.clock);
    this.#calls = new Calls(this.id, (to, frame) => this.#send(to, frame));
    this.#reads = new Reads(options.clock, (id) => {
      if (this.#raft === null) this.#reads.answered(id, null);
      else this.#raft.readIndex(id);
      this.#schedulePump();
    });
    this.#persistence = new Persistence(store, (message) => {
      this.#send(message.to, { kind: "raft", message });
    });
    this.#founder = new Founder({
      identity: recovered.identity,
      recovered,
      peers: options.peers,
      join: options.join ?? null,
      advertise: options.advertise,
      settings: options.foundingSettings,
      machineVersion: options.machineVersions.newest,
      store,
      clock,
      random,
      log,
      clockWatch: this.#clockWatch,
      hellos: this.#hellos,
      send: (to, frame) => this.#send(to, frame),
      founded: (grown) => {
        this.#startCore(grown);
        this.#dialPeers();
      },
      fatal: (error) => this.#fatal(asError(error)),
    });
    this.#sightings = new Sightings(options.seen ?? null);
    this.#admission = new Admission({
      identity: recovered.identity,
      overrides: options.peers,
      clock,
      log,
      sightings: this.#sightings,
      clusterId: () => this.#founder.clusterId,
      membership: () =>
        this.#raft === null
          ? null
          : { configuration: this.#raft.configuration, index: this.#raft.configurationIndex },
      add: ({ id, advertise, incarnation }) => {
        const request = { id, url: advertise, incarnation, voter: false, replaces: null };
        return this.call("members.add", request, JOIN_MS);
      },
      redial: () => this.#dialPeers(),
      dismiss: (peer, refusal) => this.#o.transport.dismiss(peer, refusal),
    });
    this.#membership = new Membership({
      self: this.id,
      clock,
      log,
      admission: this.#admission,
      contactTimeoutMs: Math.max(1_000, 2 * options.electionTimeoutMs),
      raft: () => this.#raft,
      clusterId: () => this.#founder.clusterId,
      leadership: () => this.#leadership,
      contactMs: (peer) => this.#contacts.sinceMs(peer, clock.monotonic()),
      connected: (peer) => this.#o.transport.isConnected(peer),
      transfer: (to, timeoutMs) => this.transfer(to, timeoutMs),
      notify: (to, method, body) => this.#calls.notify(to, method, body),
      schedulePump: () => this.#schedulePump(),
    });
    this.#writes = new Writes({
      self: this.id,
      boot: this.boot,
      clock,
      random,
      leadership: () => this.#leadership,
      applied: () => this.#applied(),
      logNow: () => this.logNow(),
      diskFull: () => this.#diskFull(),
      send: (to, frame) => this.#send(to, frame),
      guard: (run) => this.#guard(run),
      schedulePump: () => this.#schedulePump(),
      observer: options.observer ?? null,
    });
    this.#snapshots = new Snapshots({
      store: options.snapshots,
      clock,
      log,
      raft: () => this.#raft,
      record: () => this.#founder.record,
      applied: () => this.#applied(),
      flush: () => this.#flush(),
      logBytes: () => store.stats().bytes,
      halt: () => this.#halt(),
      installed: (manifest) => this.#installed(manifest),
      fatal: (error) => this.#fatal(error),
      send: (to, frame) => this.#send(to, frame),
    });
    this.#consistency = new Consistency(
      {
        self: this.id,
        clock,
        log,
        machine: options.machine,
        auditor: options.auditor ?? null,
        leadership: () => this.#leadership,
        configuration: () => this.#configuration,
        lastIndex: () => this.#raft?.lastIndex ?? asIndex(0),
        notify: (to, method, body) => this.#calls.notify(to, method, body),
        hold: () => this.holdApplies(),
        condemned: (sentence) => this.#condemned(sentence),
      },
      options.condemned ?? null,
    );
    store.onFailure((error) => this.#fatal(error));
    this.#calls.serve("consistency.ask", async (body, from) =>
      this.#guard(() => this.#consistency.heardQuestion(body, from)),
    );
    this.#calls.serve("consistency.word", async (body, from) =>
      this.#consistency.heardWord(body, from),
    );
    this.#calls.serve("consistency.verdict", async (body, from) =>
      this.#guard(() => this.#consistency.heardVerdict(body, from)),
    );
    this.#calls.serve("replica.beat", () => this.#answerBeat());
    this.#calls.serve("replica.clock", (body, from) => this.#hearClock(body, from));
    this.#calls.serve("replica.founded", async (body) => {
      this.#founder.heardRecord(body as BootstrapRecord);
      return null;
    });
    this.#serveMembership();
    const known = recovered.lastIndex > 0 || (recovered.foundations ?? []).length > 0;
    if (known) this.#startCore(recovered);
  }

  #serveMembership(): void {
    this.#calls.serve("members.add", (body) => this.#membership.add(parseMemberRequest(body)));
    this.#calls.serve("members.remove", async (body) => {
      await this.#membership.remove(parseMemberId(body));
      return null;
    });
    this.#calls.serve("members.transfer", async (body) => {
      await this.#membership.transfer(parseMemberId(body), this.#o.electionTimeoutMs * 3);
      return null;
    });
    this.#calls.serve("members.removed", async (body) => {
      const { cluster, index } = parseFarewell(body);
      const own = this.#raft?.configurationIndex ?? 0;
      if (cluster === this.#founder.clusterId && index > own) this.#admission.retire(index);
      return null;
    });
  }

  get id(): NodeId {
    return this.#identity.id;
  }

  get boot(): number {
    return this.#identity.boot;
  }

  /** This folder's cluster began with this member alone. */
  get foundedAlone(): boolean {
    const members = this.#founder.record?.members ?? [];
    return members.length === 1 && members[0]?.id === this.id;
  }

  get identity(): Identity {
    return this.#identity;
  }

  /** Elections that this member stood for, by why they began. */
  get elections(): Readonly<Record<ElectionReason, number>> {
    return { ...this.#elections };
  }

  /** Commands that wait here, and entries that are committed and not applied yet. */
  get waiting(): { readonly own: number; readonly proposals: number; readonly applies: number } {
    const applies = Math.max(0, (this.#raft?.commit ?? 0) - this.#applied());
    return { ...this.#writes.waiting, applies };
  }

  /** What comes in of a snapshot, bytes; null while nothing does. */
  get receiving(): { readonly bytes: number; readonly of: number } | null {
    return this.#snapshots.receiving;
  }

  get counters(): ReplicaCounters {
    return { ...this.#counts, ...this.#writes.counters, ...this.#snapshots.counters };
  }

  /** Starts the connections and the ticks. */
  start(): void {
    this.#o.transport.start(() => this.#hello(), {
      connected: (peer, hello) => this.#connected(peer, hello),
      disconnected: (peer, reason) => this.#disconnected(peer, reason),
      frame: (from, frame, incarnation) => this.#guard(() => this.#frame(from, frame, incarnation)),
      admit: (hello) => this.#admit(hello),
      refused: (peer, refusal) => this.#refused(peer, refusal),
    });
    this.#dialPeers();
    this.#tickTimer = this.#o.clock.after(TICK_MS, () => this.#tick());
    this.#founder.step();
    this.#schedulePump();
  }

  /** Refuses what waits, closes the connections and the log. Hand leadership over before. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#tickTimer?.cancel();
    this.#campaignTimer?.cancel();
    this.#founder.stop();
    this.#admission.stop();
    this.#sightings.keep(this.#o.clock.monotonic(), true);
    const stopping = (): ConsensusError =>
      new ConsensusError("stopping", "this member is shutting down");
    this.#writes.failAll(stopping);
    this.#reads.failAll(stopping);
    this.#calls.failAll(stopping);
    this.#applyWaiters.failAll(stopping);
    this.#flushTimer?.cancel();
    if (this.#hasRoom()) this.#commitState();
    await this.#o.transport.close();
    await this.#snapshots.stop();
    await this.#o.store.close();
  }

  // ------------------------------------------------------------------ Consensus

  async submit(command: Uint8Array, options: SubmitOptions): Promise<unknown> {
    const refusal = this.#refusal();
    if (refusal !== null) throw refusal;
    return this.#writes.submit(command, options);
  }

  linearize(timeoutMs: Millis): Promise<LogIndex> {
    const refusal = this.#refusal();
    if (refusal !== null) return Promise.reject(refusal);
    const { promise, resolve, reject } = Promise.withResolvers<LogIndex>();
    const deadline = this.#o.clock.monotonic() + timeoutMs;
    this.#reads.add({
      deadline,
      reject,
      safe: (index) => {
        if (this.#applied() >= index) resolve(index);
        else this.#applyWaiters.add({ index, deadline, resolve, reject });
      },
    });
    return promise;
  }

  confirmLeadership(timeoutMs: Millis): Promise<Term> {
    const { role, term } = this.#leadership;
    if (role !== "leader") return Promise.reject(notLeader());
    const { promise, resolve, reject } = Promise.withResolvers<Term>();
    this.#reads.add({
      deadline: this.#o.clock.monotonic() + timeoutMs,
      reject,
      safe: () => {
        const still = this.#leadership.role === "leader" && this.#leadership.term === term;
        if (still) resolve(term);
        else reject(notLeader());
      },
    });
    return promise;
  }

  call(method: string, body: unknown, timeoutMs: Millis, signal?: AbortSignal): Promise<unknown> {
    if (this.#stopped)
      return Promise.reject(new ConsensusError("stopping", "this member is shutting down"));
    const { retired } = this.#admission;
    if (retired !== null) return Promise.reject(new ConsensusError("removed", retired));
    // In the order of the calls: a claim must not reach the leader before the end that freed its slot.
    this.#guard(() => this.#writes.flush());
    const deadline = this.#o.clock.monotonic() + timeoutMs;
    return this.#calls.ask(method, body, deadline, this.#leadership.leader, signal);
  }

  serve(method: string, handler: Handler): void {
    this.#calls.serve(method, handler);
  }

  notify(to: NodeId, method: string, body: unknown): void {
    this.#calls.notify(to, method, body);
  }

  onSeal(hook: SealHook): void {
    this.#writes.onSeal(hook);
  }

  onLeadership(listener: (leadership: Leadership) => void): void {
    this.#leadershipListeners.push(listener);
    listener(this.#leadership);
  }

  logNow(): Millis {
    const logClock = this.#logClock;
    if (logClock === null) return this.#o.machine.logTime();
    return logClock.now(this.#clockWatch.skewed() === null);
  }

  async transfer(to: NodeId | null, timeoutMs: Millis): Promise<boolean> {
    const raft = this.#raft;
    if (raft === null || raft.role !== "leader") return false;
    const target = to ?? this.#bestFollower(raft);
    if (target === null || !raft.transfer(target)) return false;
    this.#schedulePump();
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const deadline = this.#o.clock.monotonic() + timeoutMs;
    const look = (): void => {
      if (this.#leadership.role !== "leader" && this.#leadership.leader !== null) resolve(true);
      else if (this.#stopped || this.#o.clock.monotonic() >= deadline) resolve(false);
      else this.#o.clock.after(TICK_MS, look);
    };
    look();
    return promise;
  }

  status(): ConsensusStatus {
    const raft = this.#raft;
    const now = this.#o.clock.monotonic();
    const configuration = raft?.configuration ?? EMPTY_CONFIGURATION;
    const progress = raft?.role === "leader" ? raft.progress() : null;
    return {
      ...this.#leadership,
      id: this.id,
      clusterId: this.#founder.clusterId,
      commit: raft?.commit ?? asIndex(0),
      applied: this.#applied(),
      lastIndex: raft?.lastIndex ?? asIndex(0),
      configuration,
      peers: Object.keys(configuration.members)
        .filter((id) => id !== this.id)
        .map((id) => {
          const peer = id as NodeId;
          const known = progress?.get(peer);
          return {
            id: peer,
            match: known?.match ?? asIndex(0),
            state: known?.state ?? "unknown",
            lastContactMs: this.#contacts.sinceMs(peer, now),
            roundTripMs: this.#o.transport.roundTripMs(peer),
            connected: this.#o.transport.isConnected(peer),
          };
        }),
      contactMs: this.#contactMs(now),
      stalenessMs:
        this.#leadership.role === "leader" ? this.#contactMs(now) : this.#staleness.ageMs(now),
      waiting: this.#waiting(now),
      retired: this.#admission.retired !== null,
      learners: this.#membership.waiting,
      condemned: this.#consistency.condemned,
      alarms: this.#alarms(),
      machineVersions: {
        inForce: this.#o.machine.machineVersion(),
        own: this.#o.machineVersions.newest,
        supported: supportedVersion(
          configuration,
          { id: this.id, newest: this.#o.machineVersions.newest },
          this.#hellos,
        ),
      },
    };
  }

  /**
   * An empty folder's way into a running cluster: asks `seed`, the member at the address of `--join`, to be let
   * in. Does nothing on a folder that belongs to a cluster already.
   */
  joinThrough(seed: NodeId): void {
    this.#seed = seed;
    if (this.#raft === null) this.#dialPeers();
  }

  /** Applies wait, for the last step of a checkpoint say (S3), until what is returned is called. */
  holdApplies(): () => void {
    this.#flush();
    this.#applyHolds += 1;
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#applyHolds -= 1;
      this.#schedulePump();
    };
  }

  /** The log keeps every entry behind this index, for members that fetch a snapshot; null: for nobody. */
  get compactionFloor(): LogIndex | null {
    return this.#snapshots.floor;
  }

  /**
   * Forgets the log up to `index`, in steps, as far as it is applied and no member on its way needs it; the
   * state must hold that much durably (S3). Resolves with the index before the first entry that is kept.
   * @throws Error the disk refuses
   */
  async compact(index: LogIndex): Promise<LogIndex> {
    const raft = this.#raft;
    if (raft === null || this.#halted || this.#stopped) return raft?.compactedIndex ?? asIndex(0);
    const floor = this.compactionFloor ?? index;
    const to = asIndex(Math.min(index, floor, this.#applied()));
    const term = raft.termAt(to);
    if (to <= raft.compactedIndex || term === null) return raft.compactedIndex;
    const installs = this.#installs;
    try {
      await this.#o.store.compact(to, term);
    } catch (error) {
      // A snapshot has replaced that log meanwhile: there is nothing of it to forget.
      if (!this.#halted && installs === this.#installs) throw error;
    }
    if (installs === this.#installs && !this.#halted) this.#guard(() => raft.compacted(to));
    return raft.compactedIndex;
  }

  /** Called after a snapshot has replaced the state, when the machine stands on the new one. */
  onInstall(listener: () => void): void {
    this.#installListeners.push(listener);
  }

  /** A sentence once this member's state is known to differ from a majority's (T9): it does not answer any more. */
  condemned(): string | null {
    return this.#consistency.condemned;
  }

  removed(): string | null {
    return this.#admission.retired;
  }

  /** What the consistency check has covered so far. */
  consistencyChecked(): Consistency["checked"] {
    return this.#consistency.checked;
  }

  #condemned(sentence: string): void {
    this.#o.log.error(sentence);
    this.#o.onCondemned?.(sentence);
    // What was proposed here may be logged all the same; what it did, another member can tell.
    this.#writes.failAll(() => new ConsensusError("outcome-unknown", sentence));
    this.#reads.failAll(() => new ConsensusError("inconsistent", sentence));
  }

  #alarms(): Alarm[] {
    const alarms: Alarm[] = this.#consistency
      .alarms()
      .map(({ member, sentence }) => ({ kind: "inconsistent", member, sentence }));
    const skewed = this.#clockWatch.skewed();
    if (skewed !== null) alarms.push({ kind: "clock-skew", member: this.id, sentence: skewed });
    return alarms;
  }

  /** A sentence when this member's wall clock is the odd one out, else null (T1). */
  clockAlarm(): string | null {
    return this.#clockWatch.skewed();
  }

  // ------------------------------------------------------------------ the core

  #hello(): PeerHello {
    const raft = this.#raft;
    return {
      id: this.id,
      incarnation: this.#identity.incarnation,
      boot: this.boot,
      clusterId: this.#founder.clusterId,
      // Not what the disk may still lose; but all that a log in repair promised, and will hold again.
      lastIndex: raft?.repairingTo ?? raft?.durable ?? asIndex(0),
      lastTerm: raft?.termAt(raft.durable) ?? asTerm(0),
      peerIds: this.#founder.peerIds,
      advertise: this.#o.advertise,
      machineVersion: this.#o.machineVersions.newest,
      machineVersionOldest: this.#o.machineVersions.oldest,
      bootstrap: this.#founder.record === null ? null : JSON.stringify(this.#founder.record),
      term: raft?.durableTerm ?? asTerm(0),
      configIndex: raft?.configurationIndex ?? asIndex(0),
      ...(raft === null && (this.#o.join ?? null) !== null ? { join: true } : {}),
    };
  }

  #startCore(recovered: RecoveredLog): void {
    const { machine } = this.#o;
    const applied = machine.applied();
    if (applied.index > recovered.lastIndex || applied.index < recovered.compacted.index) {
      throw new FatalError(
        `the state is at index ${applied.index}, the log holds ${recovered.compacted.index + 1} to ${recovered.lastIndex}: the files of this folder do not belong together; remove this member and add it again`,
      );
    }
    this.#raft = new Raft(
      {
        id: this.id,
        heartbeatTicks: Math.max(1, Math.round(this.#o.heartbeatMs / TICK_MS)),
        electionTicks: this.#electionTicks(),
        stallTicks: Math.max(2 * this.#electionTicks(), Math.round(STALL_MS / TICK_MS)),
        drawElectionTicks: () => Math.floor(this.#electionTicks() * (1 + this.#o.random.float())),
        ...DEFAULT_LIMITS,
        ...this.#o.limits,
      },
      {
        ...recovered,
        snapshotConfiguration: configurationOf(recovered.foundations ?? []),
        applied: applied.index,
        commit: asIndex(Math.min(Math.max(1, applied.index), recovered.lastIndex)),
      },
    );
    const termOfApplied = this.#raft.termAt(applied.index);
    if (applied.index > 0 && termOfApplied !== null && termOfApplied !== applied.term) {
      throw new FatalError(
        `the state was built from term ${applied.term} at index ${applied.index}, the log has term ${termOfApplied} there: the files of this folder do not belong together; remove this member and add it again`,
      );
    }
    for (const entry of [...(recovered.foundations ?? []), ...recovered.configurations])
      this.#admission.follow(decodeConfigurationEntry(entry), entry.index, []);
    this.#configuration = this.#raft.configuration;
    const { voters } = this.#raft.configuration;
    if (voters.length === 1 && voters[0] === this.id && this.#mayTick(this.#raft)) {
      this.#raft.campaign();
    }
    this.#schedulePump();
  }

  #electionTicks(): number {
    return Math.max(3, Math.round(this.#o.electionTimeoutMs / TICK_MS));
  }

  // ------------------------------------------------------------------ peers

  #dialPeers(): void {
    if (this.#stopped) return;
    const raft = this.#raft;
    const addresses =
      raft === null
        ? new Map([...this.#admission.addresses(EMPTY_CONFIGURATION, asIndex(0)), ...this.#o.peers])
        : this.#admission.addresses(raft.configuration, raft.configurationIndex);
    const { join = null } = this.#o;
    if (raft === null && this.#seed !== null && join !== null && !addresses.has(this.#seed))
      addresses.set(this.#seed, join);
    addresses.delete(this.id);
    this.#contacts.forgetAllBut(new Set<string>(addresses.keys()));
    this.#o.transport.setPeers(addresses);
  }

  #connected(peer: NodeId, hello: PeerHello): void {
    this.#guard(() => {
      this.#hellos.set(peer, hello);
      this.#admission.welcomed(hello);
      this.#founder.step();
      this.#snapshots.connected(peer);
      // At once: who is elected in its first second must know by then whether its clock is the odd one out.
      this.#sendClock(peer);
      if (peer === this.#leadership.leader) this.#toLeader(peer);
      this.#schedulePump();
    });
  }

  #disconnected(peer: NodeId, reason: DisconnectReason): void {
    this.#guard(() => {
      this.#hellos.delete(peer);
      this.#fullDisks.delete(peer);
      this.#lowDisks.delete(peer);
      this.#clockWatch.lost(peer);
      this.#calls.disconnected(peer);
      this.#writes.disconnected(peer);
      const raft = this.#raft;
      if (raft === null || raft.leader !== peer) return;
      if (reason === "refused") this.#leaderLost(raft, peer);
    });
  }

  #admit(hello: PeerHello): Refusal | null {
    const unknown = this.#raft === null ? this.#founder.admit(hello) : null;
    if (unknown !== null) return { sentence: unknown, code: "refused" };
    // Before it is added: what it cannot apply, it must not count for.
    const inForce = this.#o.machine.machineVersion();
    const unfit = this.#raft === null ? null : versionRefusal(hello, inForce);
    if (unfit !== null) return { sentence: unfit, code: "refused" };
    // Its own log will be older than whoever adds it.
    if (this.#raft === null && hello.clusterId !== null) this.#admission.meet(hello);
    const refusal = this.#admission.admit(hello);
    const { id, incarnation, boot } = hello;
    if (refusal === null && this.#configuration.members[id]?.incarnation === incarnation)
      this.#sightings.saw(id, { incarnation, boot, index: asIndex(0), term: asTerm(0) });
    return refusal;
  }

  #refused(peer: NodeId, refusal: Refusal): void {
    if (refusal.code === "joining") return;
    this.#admission.refusedBy(peer, refusal);
    const joining = this.#raft === null && (this.#o.join ?? null) !== null;
    if (joining && peer === this.#seed && refusal.code === "no-join")
      this.#o.onJoinRefused?.(refusal.sentence);
  }

  /** Who is a member has changed: in the log, not yet for good. */
  #reconfigured(configuration: Configuration): void {
    const before = this.#configuration;
    this.#configuration = configuration;
    const removed: (readonly [NodeId, string])[] = [];
    for (const [key, { url }] of Object.entries(before.members)) {
      if (configuration.members[key] !== undefined) continue;
      const id = key as NodeId;
      removed.push([id, url]);
      this.#writes.forget(id);
    }
    this.#admission.follow(configuration, this.#raft?.configurationIndex ?? asIndex(0), removed);
    this.#membership.follow(before, configuration);
    this.#dialPeers();
  }

  /** Why this member does not take part, for people. */
  #waiting(now: Millis): string | null {
    const { retired } = this.#admission;
    if (retired !== null) return retired;
    const alone = this.#leadership.leader === null ? this.#admission.whyAlone(now) : null;
    return alone ?? this.#founder.waiting;
  }

  /**
   * The leader's process is gone: its connection was closed by the other side and a redial was refused. Asks
   * for votes without waiting for the election timeout; a voter agrees only if it saw the same.
   */
  #leaderLost(raft: Raft, leader: NodeId): void {
    raft.leaderLost();
    if (this.#campaignTimer !== null) return;
    this.#campaignTimer = this.#o.clock.after(this.#o.random.float() * EARLY_CAMPAIGN_MS, () => {
      this.#campaignTimer = null;
      if (
        this.#stopped ||
        this.#halted ||
        this.#o.transport.isConnected(leader) ||
        !this.#mayLead()
      )
        return;
      if (raft.role !== "follower" || (raft.leader !== null && raft.leader !== leader)) return;
      this.#campaignReason = "leader-lost";
      this.#guard(() => raft.campaign());
      this.#schedulePump();
    });
  }

  #send(to: NodeId, frame: PeerFrame): boolean {
    const sent = this.#o.transport.send(to, frame);
    if (!sent) this.#counts.framesDropped += 1;
    return sent;
  }

  #frame(from: NodeId, frame: PeerFrame, incarnation: string): void {
    this.#contacts.heard(from, this.#o.clock.monotonic());
    if (this.#isOfEarlierFolder(from, frame, incarnation)) {
      this.#counts.framesDropped += 1;
      return;
    }
    switch (frame.kind) {
      case "raft": {
        const hello = this.#hellos.get(from);
        if (hello?.clusterId === null)
          this.#hellos.set(from, { ...hello, clusterId: this.#founder.clusterId });
        if (frame.message.from !== from || frame.message.to !== this.id) return;
        // Handing leadership over skips the election timer, which stands still at such a member (T1).
        if (frame.message.type === "timeout-now" && !this.#mayLead()) return;
        if (this.#halted) {
          this.#hearHalted(frame.message);
          return;
        }
        if (frame.message.type === "vote" && this.#isOutside()) return;
        if (frame.message.type === "timeout-now" && from === this.#raft?.leader)
          this.#campaignReason = "transfer";
        this.#raft?.step(frame.message);
        this.#schedulePump();
        return;
      }
      case "propose":
        // Of a removed member nothing may be logged behind its removal: its id may come back with another folder.
        if (this.#configuration.members[from] !== undefined)
          this.#writes.proposed(from, frame.proposal);
        return;
      case "refuse":
        this.#writes.refused(from, frame.refusal);
        return;
      case "call":
      case "reply":
      case "error":
        this.#calls.frame(from, frame);
        return;
      case "snapshot":
        this.#snapshots.frame(from, frame.frame);
        return;
    }
  }

  /**
   * The id was removed and has come back with another folder, and what the earlier one still had on its way arrives
   * now: a promise that the new folder does not keep, or a request under a number that it counts anew. What a
   * leader sends is heard all the same: it may be a member by a newer configuration than this member's.
   */
  #isOfEarlierFolder(from: NodeId, frame: PeerFrame, incarnation: string): boolean {
    const known = this.#raft?.configuration.members[from]?.incarnation ?? "";
    if (known === "" || known === incarnation) return false;
    if (frame.kind === "propose") return true;
    return frame.kind === "raft" && frame.message.type.endsWith("-reply");
  }

  /**
   * A heartbeat of the leader that the core follows is answered as the core would, which changes nothing in
   * it: a leader that has only this member for its quorum must not step down because of an install.
   */
  #hearHalted(message: Message): void {
    const { from, term } = message;
    if (message.type !== "heartbeat") return;
    if (from !== this.#raft?.leader || term !== this.#raft.term) return;
    const { round } = message;
    const reply: Message = { from: this.id, to: from, term, type: "heartbeat-reply", round };
    this.#send(from, { kind: "raft", message: reply });
  }

  // ------------------------------------------------------------------ refusals

  #refusal(): ConsensusError | null {
    if (this.#stopped) return new ConsensusError("stopping", "this member is shutting down");
    const { retired } = this.#admission;
    if (retired !== null) return new ConsensusError("removed", retired);
    const { condemned } = this.#consistency;
    if (condemned !== null) return new ConsensusError("inconsistent", condemned);
    return this.#quorumLost ? this.#noQuorum() : null;
  }

  /** There is a leader to talk to: it gets everything that it was not given yet. */
  #toLeader(leader: NodeId): void {
    this.#writes.toLeader(leader);
    this.#calls.redirect(leader);
  }

  #diskFull(): boolean {
    if (this.#fullSince !== null || this.#o.store.noRoom === true) return true;
    return this.#o.diskFull?.() ?? false;
  }

  #noQuorum(): ConsensusError {
    const waiting = this.#waiting(this.#o.clock.monotonic());
    if (waiting !== null) return new ConsensusError("no-leader", waiting);
    return new ConsensusError("no-quorum", "no leader is in touch with a majority of the members");
  }

  // ------------------------------------------------------------------ effects

  #schedulePump(): void {
    if (this.#pumpScheduled || this.#stopped) return;
    this.#pumpScheduled = true;
    this.#o.clock.soon(() => {
      this.#pumpScheduled = false;
      this.#guard(() => this.#pump());
    });
  }

  #pump(): void {
    const raft = this.#raft;
    if (raft === null || this.#stopped || this.#halted) return;
    // What waits travels with the news of what was committed: one append a peer instead of two.
    if (this.#leadership.term === raft.term) this.#writes.seal(raft);
    this.#carryOut(raft);
    this.#apply(raft);
    this.#writes.seal(raft);
    this.#carryOut(raft);
  }

  #carryOut(raft: Raft): void {
    for (let effects = raft.takeEffects(); effects !== null; effects = raft.takeEffects()) {
      if (effects.persist !== null) {
        this.#persistence.write(effects.persist, (ack) => {
          // Not before it stands on the snapshot: a vote that is durable now could make this member a leader.
          if (this.#halted) this.#acksHeld.push(ack);
          else this.#guard(() => raft.persisted(ack));
          this.#schedulePump();
        });
      }
      for (const message of effects.messages) this.#send(message.to, { kind: "raft", message });
      this.#persistence.sendAfter(effects.afterPersist);
      for (const { id, index } of effects.reads) this.#reads.answered(id, index);
      for (const fetch of effects.fetches) this.#fetch(raft, fetch);
      if (effects.configuration !== null) this.#reconfigured(effects.configuration);
      if (effects.roleChange !== null) this.#roleChanged(effects.roleChange);
      this.#snapshots.carryOut(effects);
    }
  }

  #fetch(raft: Raft, { peer, from, to, maxBytes }: Effects["fetches"][number]): void {
    this.#o.store.read(from, to, maxBytes).then(
      (entries) => {
        this.#guard(() => raft.fetched(peer, entries));
        this.#schedulePump();
      },
      (error: unknown) => this.#fatal(asError(error)),
    );
  }

  #roleChanged({ role, term, leader }: { role: Role; term: Term; leader: NodeId | null }): void {
    const before = this.#leadership;
    // One that needs nobody else goes through all of it at once.
    const stands = role === "candidate" || (role === "leader" && before.role !== "candidate");
    if (stands && (before.role !== "candidate" || term !== before.term)) {
      this.#counts.elections += 1;
      this.#elections[this.#campaignReason] += 1;
    }
    if (role === "follower" || role === "leader") this.#campaignReason = "timeout";
    if (leader !== null && leader !== before.leader) this.#counts.leaderChanges += 1;
    this.#leadership = { role, term, leader, active: false };
    const steppedDown = before.role === "leader" && (role !== "leader" || term !== before.term);
    if (steppedDown) {
      this.#logClock = null;
      this.#writes.steppedDown();
    }
    if (leader !== before.leader || role !== before.role) {
      this.#o.log.info(
        role === "leader" ? "leading" : leader === null ? "no leader" : `following ${leader}`,
        {
          term,
          role,
        },
      );
    }
    if (leader !== null && leader !== before.leader) this.#toLeader(leader);
    this.#checkActive();
    this.#tellLeadership();
  }

  /** A leader is active once it applied the entry that opens its term: all that was acknowledged is in its state. */
  #checkActive(): boolean {
    const { role, term, active } = this.#leadership;
    if (active || role !== "leader" || this.#o.machine.applied().term !== term) return false;
    this.#logClock = new LogClock(this.#o.clock, this.#o.machine.logTime());
    this.#leadership = { ...this.#leadership, active: true };
    return true;
  }

  #tellLeadership(): void {
    for (const listener of this.#leadershipListeners) listener(this.#leadership);
  }

  // ------------------------------------------------------------------ apply

  #applied(): LogIndex {
    return this.#o.machine.applied().index;
  }

  /** Applies what is committed and durable here (S2), a bounded piece at a time. */
  #apply(raft: Raft): void {
    if (this.#applyHolds > 0 || this.#readingLog || !this.#hasRoom()) return;
    const from = asIndex(this.#applied() + 1);
    const to = asIndex(Math.min(raft.applicable, from + APPLY_ENTRIES_MAX - 1));
    if (to < from) return;
    const cached = raft.entriesFromCache(from, to);
    if (cached !== null) {
      this.#applyEntries(raft, cached);
      return;
    }
    this.#readingLog = true;
    const installs = this.#installs;
    this.#o.store.read(from, to, APPLY_BYTES_MAX).then(
      (entries) => {
        this.#readingLog = false;
        this.#guard(() => {
          const held = this.#applyHolds > 0 || this.#halted || installs !== this.#installs;
          if (!held && !this.#stopped) this.#applyEntries(raft, entries);
        });
        this.#schedulePump();
      },
      (error: unknown) => this.#fatal(asError(error)),
    );
  }

  #applyEntries(raft: Raft, entries: readonly Entry[]): void {
    let bytes = 0;
    const piece: Entry[] = [];
    const stopAt = this.#consistency.stopAt;
    for (const entry of entries) {
      bytes += entry.data.length;
      if (piece.length > 0 && bytes > APPLY_BYTES_MAX) break;
      piece.push(entry);
      if (entry.index === stopAt) break;
    }
    const startedAt = this.#o.clock.monotonic();
    const decoded = piece.map(decodeEntry);
    let answers: readonly RequestAnswer[];
    try {
      answers = this.#o.machine.apply(decoded);
    } catch (error) {
      this.#outOfRoom(error);
      return;
    }
    this.#appliedSinceFull = true;
    this.#counts.applySeconds += (this.#o.clock.monotonic() - startedAt) / 1_000;
    this.#counts.entriesApplied += piece.length;
    this.#counts.commandsApplied += answers.length;
    const applied = this.#applied();
    // A full disk has put the state back: what comes again was applied once.
    if (applied > raft.appliedIndex) raft.applied(applied);
    this.#staleness.applied(applied);
    const since = this.#admission.memberSince;
    const foreign = decoded
      .filter(({ index }) => since === null || index <= since)
      .reduce((sum, { requests }) => sum + requests.length, 0);
    this.#writes.answered(answers, foreign);
    this.#applyWaiters.applied(applied);
    if (this.#checkActive()) this.#tellLeadership();
    this.#flushLater();
    this.#consistency.reached();
    this.#schedulePump();
  }

  #flushLater(): void {
    this.#flushTimer ??= this.#o.clock.after(FLUSH_MS, () => this.#flush());
  }

  #flush(): void {
    this.#flushTimer?.cancel();
    this.#flushTimer = null;
    if (this.#stopped) return;
    // Under an install the state is being replaced: what it has not committed goes with it.
    if (this.#halted) this.#flushLater();
    else if (this.#hasRoom()) this.#commitState();
  }

  #commitState(): void {
    this.#guard(() => {
      try {
        this.#o.machine.flush();
      } catch (error) {
        this.#outOfRoom(error);
        return;
      }
      this.#staleness.committed();
      this.#foundRoom();
    });
  }

  // ------------------------------------------------------------------ a full disk

  /** While the disk is full nothing is applied: it is tried again once there may be room. */
  #hasRoom(): boolean {
    if (this.#fullSince === null) return true;
    const waited = this.#o.clock.monotonic() - this.#fullSince;
    return waited >= ROOM_RETRY_MS && !(this.#o.diskFull?.() ?? false);
  }

  /** @throws the error, if it is another one */
  #outOfRoom(error: unknown): void {
    if (!isNoRoom(error)) throw error;
    if (this.#fullSince === null)
      this.#o.log.error("the disk is full: nothing is applied until there is room");
    this.#fullSince = this.#o.clock.monotonic();
    this.#appliedSinceFull = false;
    this.#staleness.wentBack();
  }

  /** What was applied since then is committed: not before is it known that there is room. */
  #foundRoom(): void {
    if (this.#fullSince === null || !this.#appliedSinceFull) return;
    this.#fullSince = null;
    this.#o.log.info("there is room on the disk again");
    // The state went back and came again: who waits for it looks again, as after an install.
    for (const listener of this.#installListeners) listener();
  }

  /** This member's disk, or its leader's, has less room than its reserve: what only adds is not to be taken. */
  diskLow(): boolean {
    if (this.#diskFull() || this.#o.diskLow?.() === true) return true;
    const { leader } = this.#leadership;
    return leader !== null && this.#lowDisks.has(leader);
  }

  /** A sentence while this member's log cannot be written. */
  diskFault(): string | null {
    if (this.#fullSince !== null || this.#o.store.noRoom === true) return "the disk is full";
    const waitMs = (this.#raft?.diskWaitTicks ?? 0) * TICK_MS;
    if (waitMs < STALL_MS) return null;
    return `the disk has not answered a write for ${Math.floor(waitMs / 1_000)} s`;
  }

  // ------------------------------------------------------------------ a snapshot in place of state and log

  #halt(): () => void {
    const raft = this.#raft;
    // Handed over before the log is told of the install: it would not take it afterwards.
    this.#guard(() => {
      if (raft !== null) this.#carryOut(raft);
      // A transaction that is open must not outlive the file that it belongs to.
      this.#o.machine.flush();
    });
    this.#halted = true;
    return () => {
      this.#halted = false;
      const acks = this.#acksHeld;
      this.#acksHeld = [];
      this.#guard(() => {
        for (const ack of acks) raft?.persisted(ack);
      });
      this.#schedulePump();
    };
  }

  #installed({ index, bootstrap }: SnapshotManifest): void {
    this.#installs += 1;
    this.#founder.installed(bootstrap);
    this.#staleness.applied(index);
    this.#consistency.replaced();
    this.#applyWaiters.applied(index);
    // What of this member's own commands is in the snapshot was applied unseen; sent again, it is answered.
    this.#writes.unseen();
    for (const listener of this.#installListeners) listener();
  }

  // ------------------------------------------------------------------ time

  #tick(): void {
    if (this.#stopped) return;
    const now = this.#o.clock.monotonic();
    const awayMs = now - this.#nextTickAt;
    if (awayMs > AWAY_MS) this.#lastQuorumAt = Math.min(now, this.#lastQuorumAt + awayMs);
    this.#guard(() => {
      const raft = this.#raft;
      // One tick a turn, however late it is: after a stall the messages that wait come first.
      if (raft !== null && !this.#halted && this.#mayTick(raft)) raft.tick();
      this.#sweep(now);
      this.#pump();
    });
    this.#nextTickAt = Math.max(this.#nextTickAt + TICK_MS, now + 1);
    this.#tickTimer = this.#o.clock.after(
      Math.max(1, this.#nextTickAt - this.#o.clock.monotonic()),
      () => this.#tick(),
    );
  }

  /** A member whose wall clock is the odd one out does not campaign (T1): its election timer stands still. */
  #mayTick(raft: Raft): boolean {
    if (this.#isOutside()) return false;
    return raft.role === "leader" || this.#mayLead();
  }

  /** Not with a clock that is the odd one out (T1), nor with a state that is (T9). */
  #mayLead(): boolean {
    return this.#clockWatch.skewed() === null && this.#consistency.condemned === null;
  }

  /** Removed, or not caught up with the change that added this folder: it has no say in elections. */
  #isOutside(): boolean {
    const raft = this.#raft;
    if (raft === null) return true;
    return this.#admission.retired !== null || this.#admission.isStranger(raft.configuration);
  }

  #sweep(now: Millis): void {
    const contact = this.#contactMs(now);
    if (contact !== null && this.#leadership.leader !== null) {
      this.#lastQuorumAt = Math.max(this.#lastQuorumAt, now - contact);
    }
    this.#quorumLost = now - this.#lastQuorumAt >= NO_QUORUM_MS;
    const lost = this.#quorumLost ? this.#noQuorum() : null;
    const late = (): ConsensusError => this.#late();
    this.#writes.sweep(now, lost, late);
    if (lost !== null) this.#reads.failAll(() => this.#noQuorum());
    this.#reads.sweep(now, late);
    this.#calls.sweep(now, this.#leadership.leader);
    this.#applyWaiters.sweep(now, late);
    this.#consistency.tick(now);
    this.#snapshots.sweep(now);
    this.#membership.look(now);
    this.#sightings.keep(now);
    this.#lookAtSelf();
    this.#speak(now);
  }

  #lookAtSelf(): void {
    const raft = this.#raft;
    if (raft === null || raft.configurationIndex > raft.commit) return;
    this.#admission.settled(raft.configuration, raft.configurationIndex);
  }

  #late(): ConsensusError {
    return this.#leadership.leader === null
      ? new ConsensusError("no-leader", "no leader was found within the time limit")
      : new ConsensusError("no-quorum", "no quorum answered within the time limit");
  }

  /** What members tell each other on their own clock. */
  #speak(now: Millis): void {
    const { role, leader, active } = this.#leadership;
    if (role === "leader" && now >= this.#nextBeatAt) {
      this.#nextBeatAt = now + BEAT_MS;
      // For the time after it leads: until it last had a quorum, nobody else could acknowledge anything.
      const contact = active ? this.#contactMs(now) : null;
      if (contact !== null && this.#raft !== null)
        this.#staleness.beat(now - contact, this.#raft.commit, this.#applied());
    } else if (leader !== null && now >= this.#nextBeatAt) {
      this.#nextBeatAt = now + BEAT_MS;
      void this.#calls.ask("replica.beat", null, now + 2 * BEAT_MS, leader).then(
        (body) => {
          const { commit, seen, floor } = (body ?? {}) as Partial<Record<string, unknown>>;
          this.#snapshots.leaderKeeps(floor);
          this.#sightings.heard(seen);
          if (typeof commit === "number")
            this.#staleness.beat(now, asIndex(commit), this.#applied());
        },
        () => undefined,
      );
    }
    if (now >= this.#nextClockWordAt) {
      this.#nextClockWordAt = now + CLOCK_WORD_MS;
      if (role === "leader" && this.#diskFull()) this.#handOver("the disk is almost full");
      if (role === "leader" && this.#consistency.condemned !== null)
        this.#handOver("the state differs from the others'");
      if (role === "leader" && this.#raft !== null) this.#sight(this.#raft);
      for (const peer of this.#hellos.keys()) this.#sendClock(peer);
    }
    if (now >= this.#nextFoundingAt) {
      this.#nextFoundingAt = now + FOUNDING_MS;
      this.#founder.step();
    }
  }

  #sendClock(peer: NodeId): void {
    const disk = this.#diskFull() ? "full" : this.#o.diskLow?.() === true ? "low" : null;
    const body = { wall: this.#o.clock.wall(), ...(disk === null ? {} : { disk }) };
    this.#send(peer, { kind: "call", id: 0, method: "replica.clock", body });
  }

  async #answerBeat(): Promise<{ commit: LogIndex; seen: unknown; floor: LogIndex | null }> {
    const raft = this.#raft;
    if (raft === null || raft.role !== "leader") throw notLeader();
    const floor = this.compactionFloor;
    return { commit: raft.commit, seen: this.#sightings.toList(), floor };
  }

  /** Leader: what each member has acknowledged on its disk, and is committed, does not go back there. */
  #sight(raft: Raft): void {
    const { term, commit } = raft;
    for (const [id, { match }] of raft.progress()) {
      const record = raft.configuration.members[id];
      const boot = this.#hellos.get(id)?.boot;
      if (record === undefined || boot === undefined || match === 0) continue;
      const index = asIndex(Math.min(match, commit));
      this.#sightings.saw(id, { incarnation: record.incarnation, boot, index, term });
    }
    const { incarnation, boot } = this.#identity;
    const index = asIndex(Math.min(raft.durable, commit));
    this.#sightings.saw(this.id, { incarnation, boot, index, term: raft.durableTerm });
  }

  async #hearClock(body: unknown, from: NodeId): Promise<null> {
    const { wall, disk } = (body ?? {}) as { wall?: unknown; disk?: unknown };
    if (disk === "full") this.#fullDisks.add(from);
    else this.#fullDisks.delete(from);
    if (disk === "full" || disk === "low") this.#lowDisks.add(from);
    else this.#lowDisks.delete(from);
    if (typeof wall === "number" && Number.isFinite(wall)) this.#clockWatch.heard(from, wall);
    return null;
  }

  #contactMs(now: Millis): Millis | null {
    const raft = this.#raft;
    if (raft === null) return null;
    if (raft.role === "leader") return this.#contacts.quorumMs(raft.configuration, now);
    return raft.leader === null ? null : this.#contacts.sinceMs(raft.leader, now);
  }

  /** Best effort: whoever takes over may have a disk to write to. */
  #handOver(why: string): void {
    const target = this.#raft === null ? null : this.#bestFollower(this.#raft, this.#fullDisks);
    if (target === null || this.#raft?.transfer(target) !== true) return;
    this.#o.log.warn(`${why}: handing leadership to ${target}`);
    this.#schedulePump();
  }

  #bestFollower(raft: Raft, except: ReadonlySet<NodeId> = new Set()): NodeId | null {
    let best: { id: NodeId; match: LogIndex } | null = null;
    for (const [id, { match, learner, recentActive }] of raft.progress()) {
      if (except.has(id)) continue;
      if (id === this.id || learner || !recentActive || !this.#o.transport.isConnected(id))
        continue;
      // It would not take over; unless this member is the odd one out itself.
      if (!this.#clockWatch.agreesWith(id) && this.#clockWatch.skewed() === null) continue;
      if (best === null || match > best.match) best = { id, match };
    }
    return best?.id ?? null;
  }

  // ------------------------------------------------------------------ failure

  /** A broken invariant, an unknown entry version, a failed transaction: nothing here can go on safely. */
  #guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.#fatal(asError(error));
    }
  }

  #fatal(error: Error): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#tickTimer?.cancel();
    this.#o.log.error(error.message, { stack: error.stack });
    this.#o.onFatal(error);
  }
}

function notLeader(): ConsensusError {
  return new ConsensusError("not-leader", "this member does not lead");
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
