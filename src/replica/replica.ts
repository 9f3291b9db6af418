/**
 * The driver: carries out what the Raft core decides, through the ports, and serves the layers above.
 *
 * One member's replica persists, sends, applies, and answers who waits. It decides nothing about
 * consensus (that is `raft/`) and nothing about tasks (that is the state machine). Everything runs on one
 * thread; inputs of one turn of the event loop are gathered, then the core's effects are carried out.
 */
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
  type Role,
  type Term,
} from "../raft/types.ts";
import { Batcher, ENTRIES_IN_FLIGHT_MAX, type QueuedRequest } from "./batcher.ts";
import { Calls, type Handler } from "./calls.ts";
import { ClockWatch } from "./clock-watch.ts";
import {
  type Consensus,
  ConsensusError,
  type ConsensusStatus,
  type Leadership,
  type SealedRequest,
  type SubmitOptions,
} from "./consensus.ts";
import { Contacts } from "./contacts.ts";
import { decodeBootstrap, decodeEntry, encodeBootstrap, encodeEnvelope } from "./envelope.ts";
import { firstConfiguration, foundingRecord, foundingStep, names } from "./founding.ts";
import { LogClock } from "./log-clock.ts";
import { type PendingCommand, PendingCommands } from "./pending.ts";
import {
  type BootstrapRecord,
  type Clock,
  type DisconnectReason,
  FatalError,
  type ForwardedProposal,
  type Identity,
  type Log,
  type LogStore,
  type Millis,
  type PeerFrame,
  type PeerHello,
  type ProposalRefusal,
  type Random,
  type RecoveredLog,
  type StateMachine,
  type Timer,
  type Transport,
} from "./ports.ts";
import { Reads } from "./reads.ts";
import { BEAT_MS, Staleness } from "./staleness.ts";

/** One logical tick of the core. */
const TICK_MS: Millis = 10;
/** Without a quorum for this long, writes and reads are refused at once (the contract says 2 s, answer included). */
const NO_QUORUM_MS: Millis = 1_700;
/** A forwarded command without an answer is sent again after this long; the leader drops repeats. */
const RESEND_MS: Millis = 1_000;
/** Characters in one `propose` frame: at most three bytes each, so a frame stays under its 16 MiB. */
const FORWARD_CHARACTERS_MAX = 4 * 1024 * 1024;
/** Entries decoded and applied in one transaction. */
const APPLY_ENTRIES_MAX = 64;
const APPLY_BYTES_MAX = 4 * 1024 * 1024;
/** Entry cache of the core, and the tail read at start. */
const CACHE_BYTES = 16 * 1024 * 1024;
/** Before a member whose connection to the leader broke asks for votes, drawn from [0, this). */
const EARLY_CAMPAIGN_MS: Millis = 50;
const CLOCK_WORD_MS: Millis = 1_000;
const FOUNDING_MS: Millis = 100;

export interface ReplicaOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly store: LogStore;
  readonly transport: Transport;
  readonly machine: StateMachine;
  /** Highest machine version this build applies. */
  readonly machineVersion: number;
  readonly heartbeatMs: Millis;
  readonly electionTimeoutMs: Millis;
  /** The address that clients and other members shall use. */
  readonly advertise: string;
  /** `--peers`, own id included: the first membership, and address overrides ever after. Empty: a cluster of one. */
  readonly peers: ReadonlyMap<NodeId, string>;
  /** The cluster's settings, if this member founds it. */
  readonly foundingSettings: unknown;
  /** True while the disk is almost full: nothing is written, and leadership is handed over. */
  readonly diskFull?: () => boolean;
  /** The process must stop: called once. */
  readonly onFatal: (error: Error) => void;
}

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
}

interface ApplyWaiter {
  readonly index: LogIndex;
  readonly deadline: Millis;
  readonly resolve: (index: LogIndex) => void;
  readonly reject: (error: ConsensusError) => void;
}

export class Replica implements Consensus {
  readonly #o: ReplicaOptions;
  readonly #identity: Identity;
  readonly #pending = new PendingCommands();
  readonly #batcher = new Batcher();
  readonly #calls: Calls;
  readonly #reads: Reads;
  readonly #contacts: Contacts;
  readonly #staleness = new Staleness();
  readonly #clockWatch: ClockWatch;
  readonly #hellos = new Map<NodeId, PeerHello>();
  readonly #leadershipListeners: ((leadership: Leadership) => void)[] = [];
  readonly counters: ReplicaCounters = {
    elections: 0,
    leaderChanges: 0,
    entriesSealed: 0,
    commandsSealed: 0,
    entriesApplied: 0,
    commandsApplied: 0,
    commandsForwarded: 0,
    framesDropped: 0,
    applySeconds: 0,
  };

  /** Null until the cluster is founded. */
  #raft: Raft | null = null;
  #record: BootstrapRecord | null = null;
  readonly #recovered: RecoveredLog;
  #waiting: string | null = null;
  #sealHook:
    ((batch: readonly SealedRequest[], add: (text: string) => Promise<unknown>) => void) | null =
    null;
  #leadership: Leadership = { role: "follower", term: asTerm(0), leader: null, active: false };
  #logClock: LogClock | null = null;

  /** Writes handed to storage and acknowledged by it, counted; what a message waits for is a count. */
  #persistIssued = 0;
  #persistDone = 0;
  readonly #heldMessages: { after: number; messages: readonly Message[] }[] = [];
  /** Indexes sealed by this leadership and not applied yet. */
  #inFlight: LogIndex[] = [];
  #applyWaiters: ApplyWaiter[] = [];
  #applyHeld = false;
  #readingLog = false;
  #pumpScheduled = false;
  #outbox: PendingCommand[] = [];
  #flushScheduled = false;
  #lastQuorumAt: Millis;
  #nextTickAt: Millis;
  #nextBeatAt = 0;
  #nextClockWordAt = 0;
  #nextFoundingAt = 0;
  #founding = false;
  #tickTimer: Timer | null = null;
  #campaignTimer: Timer | null = null;
  #stopped = false;

  /** Opens the log, checks it against the state (S2), and returns a replica that is not started yet. */
  static async open(options: ReplicaOptions): Promise<Replica> {
    const recovered = await options.store.open(CACHE_BYTES);
    return new Replica(options, recovered);
  }

  private constructor(options: ReplicaOptions, recovered: RecoveredLog) {
    this.#o = options;
    this.#recovered = recovered;
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
    options.store.onFailure((error) => this.#fatal(error));
    this.#calls.serve("replica.beat", () => this.#answerBeat());
    this.#calls.serve("replica.clock", (body, from) => this.#hearClock(body, from));
    this.#calls.serve("replica.founded", (body) => this.#hearFounded(body));
    if (recovered.lastIndex > 0) this.#startCore(recovered);
  }

  get id(): NodeId {
    return this.#identity.id;
  }

  get boot(): number {
    return this.#identity.boot;
  }

  get identity(): Identity {
    return this.#identity;
  }

  /** Starts the connections and the ticks. */
  start(): void {
    this.#o.transport.start(() => this.#hello(), {
      connected: (peer, hello) => this.#connected(peer, hello),
      disconnected: (peer, reason) => this.#disconnected(peer, reason),
      frame: (from, frame) => this.#guard(() => this.#frame(from, frame)),
      admit: (hello) => this.#admit(hello),
    });
    this.#dialPeers();
    this.#tickTimer = this.#o.clock.after(TICK_MS, () => this.#tick());
    if (this.#raft === null) this.#found();
    this.#schedulePump();
  }

  /** Refuses what waits, closes the connections and the log. Hand leadership over before. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#tickTimer?.cancel();
    this.#campaignTimer?.cancel();
    const stopping = (): ConsensusError =>
      new ConsensusError("stopping", "this member is shutting down");
    for (const command of this.#pending.values()) this.#pending.fail(command, stopping());
    this.#reads.failAll(stopping);
    this.#calls.failAll(stopping);
    for (const waiter of this.#applyWaiters.splice(0)) waiter.reject(stopping());
    await this.#o.transport.close();
    await this.#o.store.close();
  }

  // ------------------------------------------------------------------ Consensus

  submit(text: string, options: SubmitOptions): Promise<unknown> {
    const refusal = this.#refusal() ?? (this.#diskFull() ? lowDisk() : null);
    if (refusal !== null) return Promise.reject(refusal);
    try {
      const deadline = this.#o.clock.monotonic() + options.timeoutMs;
      const { command, answer } = this.#pending.add(
        text,
        options.hint ?? null,
        options.weight ?? 1,
        deadline,
      );
      this.#outbox.push(command);
      this.#scheduleFlush();
      return answer;
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)));
    }
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
        else this.#applyWaiters.push({ index, deadline, resolve, reject });
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
    const deadline = this.#o.clock.monotonic() + timeoutMs;
    return this.#calls.ask(method, body, deadline, this.#leadership.leader, signal);
  }

  serve(method: string, handler: Handler): void {
    this.#calls.serve(method, handler);
  }

  notify(to: NodeId, method: string, body: unknown): void {
    this.#calls.notify(to, method, body);
  }

  onSeal(
    hook: (batch: readonly SealedRequest[], add: (text: string) => Promise<unknown>) => void,
  ): void {
    this.#sealHook = hook;
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
      clusterId: this.#record?.clusterId ?? this.#identity.clusterId,
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
      waiting: this.#waiting,
    };
  }

  /** Holds applies for the last step of a checkpoint (S3); call what it returns to go on. */
  holdApplies(): () => void {
    this.#applyHeld = true;
    return () => {
      this.#applyHeld = false;
      this.#schedulePump();
    };
  }

  /** A sentence when this member's wall clock is the odd one out, else null (T1). */
  clockAlarm(): string | null {
    return this.#clockWatch.skewed();
  }

  // ------------------------------------------------------------------ founding

  #hello(): PeerHello {
    const raft = this.#raft;
    return {
      id: this.id,
      incarnation: this.#identity.incarnation,
      boot: this.boot,
      clusterId: this.#record?.clusterId ?? this.#identity.clusterId,
      lastIndex: raft?.lastIndex ?? asIndex(0),
      lastTerm: raft?.lastTerm ?? asTerm(0),
      peerIds: this.#peerIds(),
      advertise: this.#o.advertise,
      machineVersion: this.#o.machineVersion,
      bootstrap: this.#record === null ? null : JSON.stringify(this.#record),
    };
  }

  #peerIds(): NodeId[] {
    return [...this.#o.peers.keys()].sort();
  }

  /** A sentence refuses the connection. */
  #admit(hello: PeerHello): string | null {
    if (hello.id === this.id)
      return `${hello.id} is this member's own id: every member needs one of its own`;
    if (this.#raft === null) {
      if (hello.clusterId !== null || this.#o.peers.has(hello.id)) return null;
      return `${this.id} does not know ${hello.id}: it is not in its --peers`;
    }
    const clusterId = this.#record?.clusterId ?? this.#identity.clusterId;
    if (hello.clusterId !== null && hello.clusterId !== clusterId) {
      return `${this.id} belongs to cluster ${clusterId}, ${hello.id} to ${hello.clusterId}`;
    }
    const member = this.#raft.configuration.members[hello.id];
    if (member === undefined) return `${hello.id} is not a member of cluster ${clusterId}`;
    if (member.incarnation !== hello.incarnation) {
      return `${hello.id} has another data folder than the one that joined cluster ${clusterId}: remove it and add it again`;
    }
    return null;
  }

  /** Takes the next step towards entry 1, as far as what the peers said allows. */
  #found(): void {
    if (this.#raft !== null || this.#founding || this.#stopped) return;
    const peerIds = this.#o.peers.size === 0 ? [this.id] : this.#peerIds();
    const step = foundingStep(this.#identity, peerIds, this.#hellos);
    switch (step.do) {
      case "wait":
        if (this.#waiting !== step.reason) this.#o.log.info(step.reason);
        this.#waiting = step.reason;
        return;
      case "adopt":
        this.#adopt(step.record);
        return;
      case "found": {
        const self = {
          id: this.id,
          incarnation: this.#identity.incarnation,
          url: this.#o.advertise,
        };
        // The record begins log time, which never goes back: a wrong clock of this member must not be it.
        const unknown = [...this.#hellos.keys()].filter((peer) => !this.#clockWatch.knows(peer));
        if (unknown.length > 0) {
          this.#waiting = `waiting for the wall clock of ${unknown.join(", ")}`;
          return;
        }
        const now = this.#clockWatch.medianWall();
        const clusterId = this.#o.random.uuid(now);
        const record = foundingRecord(clusterId, now, self, this.#hellos, this.#o.foundingSettings);
        this.#adopt(record);
        return;
      }
    }
  }

  /** Writes entry 1 and starts the core on it. Only with an empty log. */
  #adopt(record: BootstrapRecord): void {
    this.#founding = true;
    const configuration = firstConfiguration(record);
    const entry: Entry = {
      term: asTerm(1),
      index: asIndex(1),
      kind: "bootstrap",
      data: encodeBootstrap(configuration, record),
    };
    const hardState = { term: asTerm(1), vote: null };
    this.#o.store.append({ hardState, entries: [entry] }, () => {
      this.#o.store
        .bindCluster(record.clusterId)
        .then(() => {
          this.#founding = false;
          this.#o.log.info("cluster founded", {
            cluster: record.clusterId,
            members: record.members.map(({ id }) => id),
          });
          this.#startCore({
            ...this.#recovered,
            hardState,
            lastIndex: asIndex(1),
            terms: [{ index: asIndex(1), term: asTerm(1) }],
            configurations: [entry],
            tail: [entry],
          });
          this.#dialPeers();
          this.#spreadRecord();
        })
        .catch((error: unknown) => this.#fatal(asError(error)));
    });
  }

  /** Initialised members tell empty ones of the record, until they show that they have it. */
  #spreadRecord(): void {
    if (this.#record === null) return;
    for (const [peer, hello] of this.#hellos) {
      if (hello.clusterId !== null || !names(this.#record, hello)) continue;
      this.#send(peer, { kind: "call", id: 0, method: "replica.founded", body: this.#record });
    }
  }

  async #hearFounded(body: unknown): Promise<null> {
    if (this.#raft !== null || this.#founding) return null;
    const record = body as BootstrapRecord;
    if (typeof record.clusterId === "string" && names(record, this.#identity)) this.#adopt(record);
    return null;
  }

  #startCore(recovered: RecoveredLog): void {
    const { machine } = this.#o;
    const applied = machine.applied();
    const first = recovered.configurations.find((entry) => entry.kind === "bootstrap");
    if (first !== undefined) this.#record = decodeBootstrap(first).record;
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
        drawElectionTicks: () => Math.floor(this.#electionTicks() * (1 + this.#o.random.float())),
        maxAppendBytes: 1024 * 1024,
        maxInflightMessages: 64,
        maxInflightBytes: 8 * 1024 * 1024,
        maxUncommittedBytes: 64 * 1024 * 1024,
        cacheBytes: CACHE_BYTES,
      },
      {
        ...recovered,
        snapshotConfiguration: null,
        applied: applied.index,
        commit: asIndex(Math.max(1, applied.index)),
      },
    );
    const termOfApplied = this.#raft.termAt(applied.index);
    if (applied.index > 0 && termOfApplied !== null && termOfApplied !== applied.term) {
      throw new FatalError(
        `the state was built from term ${applied.term} at index ${applied.index}, the log has term ${termOfApplied} there: the files of this folder do not belong together; remove this member and add it again`,
      );
    }
    this.#waiting = null;
    if (
      this.#raft.configuration.voters.length === 1 &&
      this.#raft.configuration.voters[0] === this.id
    ) {
      this.#raft.campaign();
    }
    this.#schedulePump();
  }

  #electionTicks(): number {
    return Math.max(3, Math.round(this.#o.electionTimeoutMs / TICK_MS));
  }

  // ------------------------------------------------------------------ peers

  #dialPeers(): void {
    const addresses = new Map<NodeId, string>();
    if (this.#raft === null) {
      for (const [id, url] of this.#o.peers) addresses.set(id, url);
    } else {
      for (const [id, record] of Object.entries(this.#raft.configuration.members)) {
        const peer = id as NodeId;
        addresses.set(peer, this.#o.peers.get(peer) ?? record.url);
      }
    }
    addresses.delete(this.id);
    this.#contacts.forgetAllBut(new Set<string>(addresses.keys()));
    this.#o.transport.setPeers(addresses);
  }

  #connected(peer: NodeId, hello: PeerHello): void {
    this.#guard(() => {
      this.#hellos.set(peer, hello);
      if (this.#raft === null) this.#found();
      else this.#spreadRecord();
      // At once: who is elected in its first second must know by then whether its clock is the odd one out.
      this.#sendClock(peer);
      if (peer === this.#leadership.leader) this.#toLeader(peer);
      this.#schedulePump();
    });
  }

  #disconnected(peer: NodeId, reason: DisconnectReason): void {
    this.#guard(() => {
      this.#hellos.delete(peer);
      this.#clockWatch.forget(peer);
      this.#calls.disconnected(peer);
      for (const command of this.#pending.values())
        if (command.sentTo === peer) command.sentTo = null;
      const raft = this.#raft;
      if (raft === null || raft.leader !== peer) return;
      if (reason === "refused") this.#leaderLost(raft, peer);
    });
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
        this.#o.transport.isConnected(leader) ||
        this.#clockWatch.skewed() !== null
      )
        return;
      if (raft.role !== "follower" || (raft.leader !== null && raft.leader !== leader)) return;
      this.#guard(() => raft.campaign());
      this.#schedulePump();
    });
  }

  #send(to: NodeId, frame: PeerFrame): boolean {
    const sent = this.#o.transport.send(to, frame);
    if (!sent) this.counters.framesDropped += 1;
    return sent;
  }

  #frame(from: NodeId, frame: PeerFrame): void {
    this.#contacts.heard(from, this.#o.clock.monotonic());
    switch (frame.kind) {
      case "raft": {
        const hello = this.#hellos.get(from);
        if (hello?.clusterId === null)
          this.#hellos.set(from, { ...hello, clusterId: this.#record?.clusterId ?? null });
        if (frame.message.from !== from || frame.message.to !== this.id) return;
        // Handing leadership over skips the election timer, which stands still at such a member (T1).
        if (frame.message.type === "timeout-now" && this.#clockWatch.skewed() !== null) return;
        this.#raft?.step(frame.message);
        this.#schedulePump();
        return;
      }
      case "propose":
        this.#proposed(from, frame.proposal);
        return;
      case "refuse":
        this.#refused(from, frame.refusal);
        return;
      case "call":
      case "reply":
      case "error":
        this.#calls.frame(from, frame);
        return;
    }
  }

  // ------------------------------------------------------------------ writes

  #refusal(): ConsensusError | null {
    if (this.#stopped) return new ConsensusError("stopping", "this member is shutting down");
    if (this.#o.clock.monotonic() - this.#lastQuorumAt < NO_QUORUM_MS) return null;
    return this.#noQuorum();
  }

  #diskFull(): boolean {
    return this.#o.diskFull?.() ?? false;
  }

  #noQuorum(): ConsensusError {
    if (this.#waiting !== null) return new ConsensusError("no-leader", this.#waiting);
    return new ConsensusError("no-quorum", "no leader is in touch with a majority of the members");
  }

  #scheduleFlush(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    this.#o.clock.soon(() => {
      this.#flushScheduled = false;
      this.#guard(() => this.#flush());
    });
  }

  /** Hands what waits to the leader, which may be this member. What finds no leader waits for the next one. */
  #flush(): void {
    const leader = this.#leadership.leader;
    const outbox = this.#outbox;
    this.#outbox = [];
    if (leader === null) return;
    if (leader === this.id) this.#queueOwn(outbox);
    else this.#forward(leader, outbox);
  }

  /** There is a leader to talk to: everything that it was not given yet. */
  #toLeader(leader: NodeId): void {
    this.#outbox = [...this.#pending.values()].filter((command) => command.sentTo !== leader);
    this.#calls.redirect(leader);
    this.#scheduleFlush();
  }

  #queueOwn(commands: readonly PendingCommand[]): void {
    const now = this.#o.clock.monotonic();
    this.#batcher.acked(this.id, this.boot, this.#pending.ackedBelow());
    for (const command of commands) {
      if (this.#pending.get(command.seq) === undefined) continue;
      const { seq, text, hint, weight } = command;
      if (!this.#batcher.add({ member: this.id, boot: this.boot, seq, text, hint, weight })) {
        this.#pending.fail(command, overloaded());
        continue;
      }
      command.sentTo = this.id;
      command.sentAt = now;
      command.exposures += 1;
    }
    this.#schedulePump();
  }

  #forward(leader: NodeId, commands: readonly PendingCommand[]): void {
    const now = this.#o.clock.monotonic();
    let chunk: PendingCommand[] = [];
    let characters = 0;
    const send = (): void => {
      if (chunk.length === 0) return;
      const requests = chunk.map(({ seq, text, hint, weight }) => ({
        seq,
        text,
        hint: { weight, hint },
      }));
      const proposal: ForwardedProposal = {
        boot: this.boot,
        acked: this.#pending.ackedBelow(),
        requests,
      };
      const sent = this.#send(leader, { kind: "propose", proposal });
      for (const command of chunk) {
        command.sentTo = sent ? leader : null;
        command.sentAt = now;
        if (sent) command.exposures += 1;
      }
      this.counters.commandsForwarded += sent ? chunk.length : 0;
      chunk = [];
      characters = 0;
    };
    for (const command of commands) {
      if (this.#pending.get(command.seq) === undefined) continue;
      if (characters + command.text.length > FORWARD_CHARACTERS_MAX) send();
      chunk.push(command);
      characters += command.text.length;
    }
    send();
  }

  /** A member forwards its commands. A forwarded command is never forwarded again: `not-leader` says so. */
  #proposed(from: NodeId, proposal: ForwardedProposal): void {
    const { boot } = proposal;
    if (this.#leadership.role !== "leader") {
      const seqs = proposal.requests.map(({ seq }) => seq);
      this.#send(from, {
        kind: "refuse",
        refusal: { boot, seqs, code: "not-leader", leader: this.#leadership.leader },
      });
      return;
    }
    if (this.#diskFull()) {
      const seqs = proposal.requests.map(({ seq }) => seq);
      this.#send(from, {
        kind: "refuse",
        refusal: { boot, seqs, code: "low-disk", leader: this.id },
      });
      return;
    }
    this.#batcher.acked(from, boot, proposal.acked);
    const full: number[] = [];
    for (const { seq, text, hint } of proposal.requests) {
      const { weight, hint: inner } = hint as { weight: number; hint: unknown };
      if (!this.#batcher.add({ member: from, boot, seq, text, weight, hint: inner }))
        full.push(seq);
    }
    if (full.length > 0) {
      this.#send(from, {
        kind: "refuse",
        refusal: { boot, seqs: full, code: "overloaded", leader: this.id },
      });
    }
    this.#schedulePump();
  }

  #refused(from: NodeId, refusal: ProposalRefusal): void {
    if (refusal.boot !== this.boot) return;
    for (const seq of refusal.seqs) {
      const command = this.#pending.get(seq);
      if (command === undefined || command.sentTo !== from) continue;
      command.exposures = Math.max(0, command.exposures - 1);
      command.sentTo = null;
      if (refusal.code === "overloaded") this.#pending.fail(command, overloaded());
      if (refusal.code === "low-disk") this.#pending.fail(command, lowDisk());
    }
  }

  /** Makes entries of what waits. Only once this leader has applied its term's first entry: log time is known then. */
  #seal(raft: Raft): void {
    if (!this.#leadership.active || raft.role !== "leader" || raft.transferTarget !== null) return;
    const applied = this.#applied();
    while (this.#inFlight[0] !== undefined && this.#inFlight[0] <= applied) this.#inFlight.shift();
    while (this.#inFlight.length < ENTRIES_IN_FLIGHT_MAX) {
      const batch = this.#batcher.take();
      if (batch.length === 0) return;
      const requests = this.#withAdditions(batch);
      const data = encodeEnvelope(
        this.logNow(),
        this.#o.random.uint32(),
        this.#batcher.takeAcks(),
        requests,
      );
      const result = raft.propose([{ kind: "command", data }]);
      if (!result.ok) {
        this.#giveBack(requests);
        return;
      }
      this.#inFlight.push(result.last);
      this.counters.entriesSealed += 1;
      this.counters.commandsSealed += requests.length;
    }
  }

  /** Lets the layer above add to the entry, behind the batch (T5). */
  #withAdditions(batch: readonly QueuedRequest[]): readonly QueuedRequest[] {
    if (this.#sealHook === null) return batch;
    const added: QueuedRequest[] = [];
    const deadline = this.#o.clock.monotonic() + NO_QUORUM_MS;
    this.#sealHook(batch, (text) => {
      const { command, answer } = this.#pending.add(text, null, 1, deadline);
      command.sentTo = this.id;
      command.sentAt = this.#o.clock.monotonic();
      command.exposures = 1;
      added.push({
        member: this.id,
        boot: this.boot,
        seq: command.seq,
        text,
        weight: 1,
        hint: null,
      });
      return answer;
    });
    return added.length === 0 ? batch : [...batch, ...added];
  }

  /** Leadership ended before these were logged: their members may hand them to the next leader. */
  #giveBack(requests: readonly QueuedRequest[]): void {
    const seqsOf = new Map<NodeId, { boot: number; seqs: number[] }>();
    for (const { member, boot, seq } of requests) {
      if (member === this.id) {
        const command = this.#pending.get(seq);
        if (command === undefined) continue;
        command.exposures = Math.max(0, command.exposures - 1);
        command.sentTo = null;
        continue;
      }
      const known = seqsOf.get(member) ?? { boot, seqs: [] };
      known.seqs.push(seq);
      seqsOf.set(member, known);
    }
    for (const [member, { boot, seqs }] of seqsOf) {
      const refusal: ProposalRefusal = {
        boot,
        seqs,
        code: "not-leader",
        leader: this.#leadership.leader,
      };
      this.#send(member, { kind: "refuse", refusal });
    }
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
    if (raft === null || this.#stopped) return;
    this.#carryOut(raft);
    this.#apply(raft);
    this.#seal(raft);
    this.#carryOut(raft);
  }

  #carryOut(raft: Raft): void {
    for (let effects = raft.takeEffects(); effects !== null; effects = raft.takeEffects()) {
      this.#persist(raft, effects);
      for (const message of effects.messages) this.#send(message.to, { kind: "raft", message });
      this.#sendAfterPersist(effects.afterPersist);
      for (const { id, index } of effects.reads) this.#reads.answered(id, index);
      for (const fetch of effects.fetches) this.#fetch(raft, fetch);
      if (effects.configuration !== null) this.#dialPeers();
      if (effects.roleChange !== null) this.#roleChanged(effects.roleChange);
      if (effects.snapshots.length > 0 || effects.install !== null) {
        this.#o.log.error("a member needs a snapshot, which this build cannot send", {
          peers: effects.snapshots,
        });
      }
    }
  }

  #persist(raft: Raft, { persist }: Effects): void {
    if (persist === null) return;
    this.#persistIssued += 1;
    this.#o.store.append(persist, (ack) => {
      this.#persistDone += 1;
      this.#guard(() => {
        raft.persisted(ack);
        while (
          this.#heldMessages[0] !== undefined &&
          this.#heldMessages[0].after <= this.#persistDone
        ) {
          const held = this.#heldMessages.shift();
          for (const message of held?.messages ?? [])
            this.#send(message.to, { kind: "raft", message });
        }
      });
      this.#schedulePump();
    });
  }

  #sendAfterPersist(messages: readonly Message[]): void {
    if (messages.length === 0) return;
    if (this.#persistDone === this.#persistIssued) {
      for (const message of messages) this.#send(message.to, { kind: "raft", message });
      return;
    }
    this.#heldMessages.push({ after: this.#persistIssued, messages });
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
    if (role === "candidate" && before.role !== "candidate") this.counters.elections += 1;
    if (leader !== null && leader !== before.leader) this.counters.leaderChanges += 1;
    this.#leadership = { role, term, leader, active: false };
    const steppedDown = before.role === "leader" && (role !== "leader" || term !== before.term);
    if (steppedDown) {
      this.#logClock = null;
      this.#inFlight = [];
      this.#giveBack(this.#batcher.clear());
      for (const command of this.#pending.values())
        if (command.sentTo === this.id) command.sentTo = null;
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
    if (this.#applyHeld || this.#readingLog) return;
    const from = asIndex(this.#applied() + 1);
    const to = asIndex(Math.min(raft.applicable, from + APPLY_ENTRIES_MAX - 1));
    if (to < from) return;
    const cached = raft.entriesFromCache(from, to);
    if (cached !== null) {
      this.#applyEntries(raft, cached);
      return;
    }
    this.#readingLog = true;
    this.#o.store.read(from, to, APPLY_BYTES_MAX).then(
      (entries) => {
        this.#readingLog = false;
        this.#guard(() => {
          if (!this.#applyHeld && !this.#stopped) this.#applyEntries(raft, entries);
        });
        this.#schedulePump();
      },
      (error: unknown) => this.#fatal(asError(error)),
    );
  }

  #applyEntries(raft: Raft, entries: readonly Entry[]): void {
    let bytes = 0;
    const piece: Entry[] = [];
    for (const entry of entries) {
      bytes += entry.data.length;
      if (piece.length > 0 && bytes > APPLY_BYTES_MAX) break;
      piece.push(entry);
    }
    const startedAt = this.#o.clock.monotonic();
    const decoded = piece.map(decodeEntry);
    const answers = this.#o.machine.apply(decoded);
    this.counters.applySeconds += (this.#o.clock.monotonic() - startedAt) / 1_000;
    this.counters.entriesApplied += piece.length;
    this.counters.commandsApplied += answers.length;
    const applied = this.#applied();
    raft.applied(applied);
    this.#staleness.applied(applied);
    for (const { member, boot, seq, answer } of answers) {
      this.#batcher.applied(member, boot, seq);
      if (member === this.id && boot === this.boot) this.#pending.answered(seq, answer);
    }
    this.#wakeReaders(applied);
    if (this.#checkActive()) this.#tellLeadership();
    this.#schedulePump();
  }

  #wakeReaders(applied: LogIndex): void {
    if (this.#applyWaiters.length === 0) return;
    const ready = this.#applyWaiters.filter((waiter) => waiter.index <= applied);
    if (ready.length === 0) return;
    this.#applyWaiters = this.#applyWaiters.filter((waiter) => waiter.index > applied);
    for (const waiter of ready) waiter.resolve(waiter.index);
  }

  // ------------------------------------------------------------------ time

  #tick(): void {
    if (this.#stopped) return;
    const now = this.#o.clock.monotonic();
    this.#guard(() => {
      const raft = this.#raft;
      // One tick a turn, however late it is: after a stall the messages that wait come first.
      if (raft !== null && this.#mayTick(raft)) raft.tick();
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
    return raft.role === "leader" || this.#clockWatch.skewed() === null;
  }

  #sweep(now: Millis): void {
    const contact = this.#contactMs(now);
    if (contact !== null && this.#leadership.leader !== null) {
      this.#lastQuorumAt = Math.max(this.#lastQuorumAt, now - contact);
    }
    const lost = now - this.#lastQuorumAt >= NO_QUORUM_MS;
    const leader = this.#leadership.leader;
    for (const command of this.#pending.values()) {
      if (lost) this.#pending.fail(command, this.#noQuorum());
      else if (command.deadline <= now) this.#pending.fail(command, this.#late());
      else if (leader !== null && leader !== this.id && now - command.sentAt >= RESEND_MS)
        this.#resend(command);
      else if (leader !== null && command.sentTo === null) this.#resend(command);
    }
    if (lost) this.#reads.failAll(() => this.#noQuorum());
    this.#reads.sweep(now, () => this.#late());
    this.#calls.sweep(now, leader);
    if (this.#applyWaiters.some((waiter) => waiter.deadline <= now)) {
      const late = this.#applyWaiters.filter((waiter) => waiter.deadline <= now);
      this.#applyWaiters = this.#applyWaiters.filter((waiter) => waiter.deadline > now);
      for (const waiter of late) waiter.reject(this.#late());
    }
    this.#speak(now);
  }

  #resend(command: PendingCommand): void {
    command.sentTo = null;
    this.#outbox.push(command);
    this.#scheduleFlush();
  }

  #late(): ConsensusError {
    return this.#leadership.leader === null
      ? new ConsensusError("no-leader", "no leader was found within the time limit")
      : new ConsensusError("no-quorum", "no quorum answered within the time limit");
  }

  /** What members tell each other on their own clock. */
  #speak(now: Millis): void {
    const { role, leader } = this.#leadership;
    if (role !== "leader" && leader !== null && now >= this.#nextBeatAt) {
      this.#nextBeatAt = now + BEAT_MS;
      void this.#calls.ask("replica.beat", null, now + 2 * BEAT_MS, leader).then(
        (body) => {
          const commit = (body as { commit?: unknown } | null)?.commit;
          if (typeof commit === "number")
            this.#staleness.beat(now, asIndex(commit), this.#applied());
        },
        () => undefined,
      );
    }
    if (now >= this.#nextClockWordAt) {
      this.#nextClockWordAt = now + CLOCK_WORD_MS;
      if (role === "leader" && this.#diskFull()) this.#handOver();
      for (const peer of this.#hellos.keys()) this.#sendClock(peer);
    }
    if (now >= this.#nextFoundingAt) {
      this.#nextFoundingAt = now + FOUNDING_MS;
      if (this.#raft === null) this.#found();
      else this.#spreadRecord();
    }
  }

  #sendClock(peer: NodeId): void {
    const body = { wall: this.#o.clock.wall() };
    this.#send(peer, { kind: "call", id: 0, method: "replica.clock", body });
  }

  async #answerBeat(): Promise<{ commit: LogIndex }> {
    const raft = this.#raft;
    if (raft === null || raft.role !== "leader") throw notLeader();
    return { commit: raft.commit };
  }

  async #hearClock(body: unknown, from: NodeId): Promise<null> {
    const wall = (body as { wall?: unknown } | null)?.wall;
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
  #handOver(): void {
    const target = this.#raft === null ? null : this.#bestFollower(this.#raft);
    if (target === null || this.#raft?.transfer(target) !== true) return;
    this.#o.log.warn(`the disk is almost full: handing leadership to ${target}`);
    this.#schedulePump();
  }

  #bestFollower(raft: Raft): NodeId | null {
    let best: { id: NodeId; match: LogIndex } | null = null;
    for (const [id, { match, learner, recentActive }] of raft.progress()) {
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

const EMPTY_CONFIGURATION: Configuration = {
  voters: [],
  outgoing: [],
  learners: [],
  learnersNext: [],
  members: {},
};

function notLeader(): ConsensusError {
  return new ConsensusError("not-leader", "this member does not lead");
}

function overloaded(): ConsensusError {
  return new ConsensusError("overloaded", "the leader has too many commands waiting");
}

function lowDisk(): ConsensusError {
  return new ConsensusError(
    "low-disk",
    "the disk is almost full: nothing is written until there is room",
  );
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
