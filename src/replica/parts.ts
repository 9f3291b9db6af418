/**
 * The parts of a replica, put together: each is made with what it may ask of the others, by a function where they
 * know each other.
 */
import { asIndex, type LogIndex, type NodeId } from "../raft/types.ts";
import { Admission, JOIN_MS } from "./admission.ts";
import { Applier } from "./applier.ts";
import { ApplyWaiters } from "./apply-waiters.ts";
import { Beats } from "./beats.ts";
import { Calls } from "./calls.ts";
import { CatchingUp } from "./catching-up.ts";
import { ClockWatch } from "./clock-watch.ts";
import { ConsensusError, type Leadership } from "./consensus.ts";
import { Consistency } from "./consistency.ts";
import { Contacts } from "./contacts.ts";
import { Core } from "./core.ts";
import { DiskRoom } from "./disk-room.ts";
import { Eligibility } from "./eligibility.ts";
import { asError } from "./errors.ts";
import { Founder } from "./founder.ts";
import { Handover } from "./handover.ts";
import { Inbox } from "./inbox.ts";
import { Membership } from "./membership.ts";
import { serveMembership } from "./membership-calls.ts";
import { Peers } from "./peers.ts";
import type {
  BootstrapRecord,
  Identity,
  Millis,
  PeerFrame,
  PeerHello,
  RecoveredLog,
  SnapshotManifest,
} from "./ports.ts";
import { firstNumber } from "./question-numbers.ts";
import { QuorumWatch } from "./quorum-watch.ts";
import { Reads } from "./reads.ts";
import type { ReplicaOptions } from "./replica-options.ts";
import { Sightings } from "./sightings.ts";
import { Snapshots } from "./snapshots.ts";
import { Staleness } from "./staleness.ts";
import { Standing } from "./standing.ts";
import { Ticks } from "./ticks.ts";
import { Writes } from "./writes.ts";

/** What the parts ask of who holds them. */
export interface PartsPort {
  /** As `Consensus.call`. */
  call(method: string, body: unknown, timeoutMs: Millis): Promise<unknown>;
  /** The state is another one, or as of its newest commit again: who waits for something in it looks again. */
  replaced(): void;
  /** A frame found no connection. */
  unsent(): void;
}

export class Parts {
  readonly identity: Identity;
  readonly core: Core;
  readonly standing: Standing;
  readonly founder: Founder;
  readonly sightings: Sightings;
  readonly admission: Admission;
  readonly eligibility: Eligibility;
  readonly membership: Membership;
  readonly writes: Writes;
  readonly calls: Calls;
  readonly reads: Reads;
  readonly snapshots: Snapshots;
  readonly contacts: Contacts;
  readonly quorum: QuorumWatch;
  readonly room: DiskRoom;
  readonly applier: Applier;
  readonly handover: Handover;
  readonly beats: Beats;
  readonly peers: Peers;
  readonly inbox: Inbox;
  readonly ticks: Ticks;
  readonly consistency: Consistency;
  readonly clockWatch: ClockWatch;
  readonly staleness = new Staleness();
  readonly catchingUp = new CatchingUp();
  readonly waiters = new ApplyWaiters();
  /** Whose connection is open, and what they said of themselves. */
  readonly hellos = new Map<NodeId, PeerHello>();
  readonly #port: PartsPort;
  readonly #o: ReplicaOptions;

  constructor(options: ReplicaOptions, recovered: RecoveredLog, port: PartsPort) {
    this.#o = options;
    this.#port = port;
    this.identity = recovered.identity;
    const { clock, random, log, store, machine, transport } = options;
    const { identity, hellos } = this;
    const self = identity.id;
    const send = (to: NodeId, frame: PeerFrame): boolean => {
      // An answer may rest on anything that is committed, and whoever gets it may look at its own state next.
      if (frame.kind === "reply" && this.core.raft !== null)
        this.core.raft.awaitsCommit(to, this.core.raft.commit);
      const sent = transport.send(to, frame);
      if (!sent) port.unsent();
      return sent;
    };
    const applied = (): LogIndex => machine.applied().index;
    const schedulePump = (): void => this.core.schedulePump();
    const leadership = (): Leadership => this.standing.leadership;
    const waiting = (): string | null => this.peers.waiting(clock.monotonic());

    this.contacts = new Contacts(self);
    this.clockWatch = new ClockWatch(clock);
    this.calls = new Calls(self, firstNumber(identity), send);
    this.sightings = new Sightings(options.seen ?? null);
    this.standing = new Standing({
      clock,
      log,
      machine,
      skewed: () => this.clockWatch.skewed() !== null,
      medianWall: () => this.clockWatch.medianWall(),
      steppedDown: () => this.writes.steppedDown(),
      toLeader: (leader) => {
        this.#toLeader(leader);
        // It may be a guest that was dialled no more.
        this.peers.dial();
      },
    });
    this.core = new Core({
      self,
      options: { ...options, onFatal: (error) => this.#fatal(error) },
      send,
      flush: () => {
        transport.flush?.();
        store.flush?.();
      },
      recovered: (configuration, index) => this.admission.follow(configuration, index, []),
      started: (raft) => this.peers.started(raft),
      mayCampaign: (raft) => this.eligibility.mayCampaign(raft),
      seal: (raft) => this.writes.seal(raft),
      knownTerm: () => this.standing.leadership.term,
      apply: (raft) => this.applier.apply(raft),
      readAnswered: (id, index) => this.reads.answered(id, index),
      reconfigured: (configuration) => this.peers.reconfigured(configuration),
      roleChanged: (change) => this.standing.changed(change),
      snapshots: (effects) => this.snapshots.carryOut(effects),
    });
    const core = this.core;
    this.reads = new Reads(clock, firstNumber(identity), (id) => {
      if (core.raft === null) this.reads.answered(id, null);
      else core.raft.readIndex(id);
      schedulePump();
    });
    this.founder = new Founder({
      identity,
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
      clockWatch: this.clockWatch,
      hellos,
      send,
      founded: (grown) => {
        core.start(grown);
        this.peers.dial();
      },
      fatal: (error) => core.fatal(asError(error)),
    });
    this.admission = new Admission(
      {
        identity,
        advertise: options.advertise,
        overrides: options.peers,
        clock,
        log,
        sightings: this.sightings,
        clusterId: () => this.founder.clusterId,
        membership: () =>
          core.raft === null
            ? null
            : {
                configuration: core.raft.configuration,
                index: core.raft.configurationIndex,
                commit: core.raft.commit,
              },
        // One that was told to join, and finds out before it ever heard of a leader, cannot start as it is told to.
        retired: (sentence) => {
          this.#keepRemoved(sentence);
          if ((options.join ?? null) !== null && this.standing.counters.leaderChanges === 0)
            options.onJoinRefused?.(sentence);
        },
        configurationAt: (index) => {
          const { raft } = core;
          return raft === null || index < raft.compactedIndex ? null : raft.configurationAt(index);
        },
        add: ({ id, advertise, incarnation }) => {
          const request = { id, url: advertise, incarnation, voter: false, replaces: null };
          return this.#port.call("members.add", request, JOIN_MS);
        },
        redial: () => this.peers.dial(),
        dismiss: (peer, refusal) => transport.dismiss(peer, refusal),
      },
      options.removed?.load(this.founder.clusterId ?? "", identity.incarnation) ?? null,
    );
    this.room = new DiskRoom({
      clock,
      log,
      full: options.diskFull,
      low: options.diskLow,
      logWaits: () => store.noRoom === true,
      leader: () => leadership().leader,
      wentBack: () => this.staleness.wentBack(),
      restored: () => port.replaced(),
    });
    this.quorum = new QuorumWatch(
      {
        contacts: this.contacts,
        raft: () => core.raft,
        leader: () => leadership().leader,
        waiting,
      },
      clock.monotonic(),
    );
    this.membership = new Membership({
      self,
      clock,
      log,
      admission: this.admission,
      contactTimeoutMs: Math.max(1_000, 2 * options.electionTimeoutMs),
      raft: () => core.raft,
      clusterId: () => this.founder.clusterId,
      leadership,
      contactMs: (peer) => this.contacts.sinceMs(peer, clock.monotonic()),
      connected: (peer) => transport.isConnected(peer),
      wrongMembers: () => this.consistency.wrongMembers(),
      knowsWrongMembers: () => this.consistency.hasAsked,
      transfer: (to, timeoutMs) => this.handover.transfer(to, timeoutMs),
      notify: (to, method, body) => this.calls.notify(to, method, body),
      schedulePump,
    });
    this.writes = new Writes({
      self,
      boot: identity.boot,
      clock,
      random,
      leadership,
      applied,
      logNow: () => this.standing.logNow(),
      diskFull: () => this.room.isFull,
      send,
      guard: (run) => core.guard(run),
      schedulePump,
      observer: options.observer ?? null,
    });
    this.snapshots = new Snapshots({
      store: options.snapshots,
      clock,
      log,
      raft: () => core.raft,
      record: () => this.founder.record,
      applied,
      flush: () => this.applier.flush(),
      logBytes: () => store.stats().bytes,
      halt: () => core.halt(),
      installed: (manifest) => this.#installed(manifest),
      isStateWrong: () => this.consistency.condemned !== null,
      stateReplaced: (manifest) => this.#stateReplaced(manifest),
      fatal: (error) => core.fatal(error),
      send,
      waitingBytes: (to) => transport.waitingBytes?.(to) ?? 0,
    });
    this.consistency = new Consistency(
      {
        self,
        incarnation: identity.incarnation,
        clock,
        random: options.random,
        log,
        machine,
        auditor: options.auditor ?? null,
        leadership,
        configuration: () => this.peers.configuration,
        lastIndex: () => core.raft?.lastIndex ?? asIndex(0),
        notify: (to, method, body) => this.calls.notify(to, method, body),
        hold: () => this.applier.hold(),
        condemned: (sentence) => this.#condemned(sentence),
        damaged: (error) => core.fatal(error),
      },
      options.condemned ?? null,
    );
    this.eligibility = new Eligibility(core, this.admission, this.clockWatch, this.consistency);
    const parts = {
      self,
      identity,
      recovered,
      options,
      clock,
      log,
      store,
      machine,
      transport,
      send,
      hellos,
      core,
      standing: this.standing,
      eligibility: this.eligibility,
      quorum: this.quorum,
      room: this.room,
      founder: this.founder,
      admission: this.admission,
      membership: this.membership,
      sightings: this.sightings,
      contacts: this.contacts,
      clockWatch: this.clockWatch,
      consistency: this.consistency,
      staleness: this.staleness,
      catchingUp: this.catchingUp,
      waiters: this.waiters,
      snapshots: this.snapshots,
      writes: this.writes,
      reads: this.reads,
      calls: this.calls,
    };
    this.applier = new Applier({
      ...parts,
      memberSince: () => this.admission.memberSince,
      answered: (answers, foreign) => this.writes.answered(answers, foreign),
      applied: () => this.standing.applied(),
    });
    this.peers = new Peers({
      ...parts,
      connected: (peer) => this.#connected(peer),
      disconnected: (peer) => this.#disconnected(peer),
      followed: (before, now) => this.membership.follow(before, now),
    });
    this.handover = new Handover(parts);
    this.beats = new Beats({ ...parts, handover: this.handover, applied });
    this.inbox = new Inbox({
      ...parts,
      takesPart: (peer) => this.peers.takesPart(peer),
      isMember: (id) => this.peers.configuration.members[id] !== undefined,
    });
    this.ticks = new Ticks({ ...parts, beats: this.beats });
    this.#serve();
  }

  /** What other members ask of this one, beside what {@link Beats} answers. */
  #serve(): void {
    const { calls, consistency, core, membership, admission, founder } = this;
    calls.serve("consistency.ask", async (body, from) =>
      core.guard(() => consistency.heardQuestion(body, from)),
    );
    calls.serve("consistency.word", async (body, from) => consistency.heardWord(body, from));
    calls.serve("consistency.verdict", async (body, from) =>
      core.guard(() => consistency.heardVerdict(body, from)),
    );
    calls.serve("replica.founded", async (body) => {
      founder.heardRecord(body as BootstrapRecord);
      return null;
    });
    serveMembership(calls, membership, this.#o.electionTimeoutMs * 3, (word) => {
      const own = core.raft?.configurationIndex ?? 0;
      const isOther = word.incarnation !== null && word.incarnation !== this.identity.incarnation;
      if (word.cluster === founder.clusterId && word.index > own && !isOther)
        admission.retire(word.index);
    });
  }

  /** There is a leader to talk to: it gets everything that it was not given yet. */
  #toLeader(leader: NodeId): void {
    this.writes.toLeader(leader);
    this.calls.redirect(leader);
  }

  #connected(peer: NodeId): void {
    this.snapshots.connected(peer);
    // At once: who is elected in its first second must know by then whether its clock is the odd one out.
    this.beats.sendClock(peer);
    if (peer === this.standing.leadership.leader) this.#toLeader(peer);
    this.core.schedulePump();
  }

  #disconnected(peer: NodeId): void {
    this.room.forget(peer);
    this.clockWatch.lost(peer);
    this.calls.disconnected(peer);
    this.writes.disconnected(peer);
  }

  #installed({ index, bootstrap, configuration }: SnapshotManifest): void {
    // Here and not by the core's news: of a configuration that is what it was there is none.
    this.admission.logReplaced(configuration, index);
    this.applier.installed();
    this.founder.installed(bootstrap);
    this.staleness.applied(index);
    this.catchingUp.replaced();
    this.consistency.replaced();
    this.waiters.applied(index);
    // What of this member's own commands is in the snapshot was applied unseen; sent again, it is answered.
    this.writes.unseen();
    this.#port.replaced();
  }

  /** It may be as of an earlier index than the one before was: the log is applied from there. */
  #stateReplaced({ index }: SnapshotManifest): void {
    this.applier.installed();
    this.staleness.replaced();
    this.catchingUp.replaced();
    this.consistency.replaced();
    this.waiters.applied(index);
    this.#port.replaced();
  }

  #condemned(sentence: string): void {
    this.#o.log.error(sentence);
    this.#o.onCondemned?.(sentence);
    this.snapshots.condemned();
    // What was proposed here may be logged all the same; what it did, another member can tell.
    this.writes.failAll(() => new ConsensusError("outcome-unknown", sentence));
    this.reads.failAll(() => new ConsensusError("inconsistent", sentence));
  }

  /** It takes part in nothing any more, kept or not. */
  #keepRemoved(sentence: string): void {
    const { removed, log } = this.#o;
    const clusterId = this.founder.clusterId;
    try {
      if (clusterId !== null) removed?.keep(clusterId, this.identity.incarnation, sentence);
    } catch (error) {
      log.warn("the file REMOVED could not be written", { error: String(error) });
    }
  }

  #fatal(error: Error): void {
    this.ticks.stop();
    this.#o.onFatal(error);
  }
}
