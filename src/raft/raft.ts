/**
 * The Raft core of one member: elections, the log, membership, reads. Pure and synchronous. Inputs change
 * the state; what is to be done about it is gathered and handed out by `takeEffects`.
 *
 * Holds the rules of terms, votes and roles. What a leader knows of the others is in leadership.ts, what a
 * follower does with appends in following.ts, the log in log.ts. No clock: time is `tick`.
 *
 * Sections named in comments are of the Raft paper (extended version), or of the dissertation where said.
 */
import { applyChanges, encodeConfiguration } from "./configuration.ts";
import { DiskPace } from "./disk-pace.ts";
import { dataBytes } from "./entry-cache.ts";
import { Following } from "./following.ts";
import { invariant, must } from "./invariant.ts";
import { Leadership } from "./leadership.ts";
import { RaftLog, type RecoveredState } from "./log.ts";
import { type MessageBody, Outbox } from "./outbox.ts";
import type { PeerProgress, ProposalItem, ProposeResult, RaftOptions } from "./options.ts";
import { allVoters, isVoter, voteResult } from "./quorum.ts";
import { ForwardedReads, type ReadRequest } from "./read-index.ts";
import type { LogPosition } from "./term-runs.ts";
import {
  asIndex,
  asTerm,
  type Configuration,
  type ConfigurationChange,
  type Effects,
  type Entry,
  type HardState,
  type LogIndex,
  type Message,
  type NodeId,
  type PersistAck,
  type Role,
  type SnapshotMeta,
  type Term,
} from "./types.ts";

export type { RecoveredState } from "./log.ts";
export type { PeerProgress, ProposalItem, ProposeResult, RaftOptions } from "./options.ts";

type MessageOf<T extends Message["type"]> = Extract<Message, { type: T }>;
type RoleChange = NonNullable<Effects["roleChange"]>;

export class Raft {
  readonly #o: RaftOptions;
  readonly #log: RaftLog;
  readonly #out: Outbox;
  readonly #following: Following;
  readonly #disk: DiskPace;
  /**
   * Not null while this log, found damaged, is repaired from the others: it may have acknowledged everything up to
   * here, so its end lay no further, by term and then by index. Until it holds all of that again it does not campaign,
   * and votes only for a candidate whose log reaches as far: with its vote another one could win that lacks what this
   * member was counted for.
   */
  #promised: LogPosition | null;

  /** Never falls. A new term clears the vote; nothing else does. */
  #term: Term;
  #vote: NodeId | null;
  #hardStateTaken: HardState;
  #hardStateDurable: HardState;

  #role: Role = "follower";
  #leader: NodeId | null = null;
  /** Set exactly while #role is 'leader'. */
  #leading: Leadership | null = null;
  /** Answers to the (pre-)election under way; the own one is in it once it is durable. */
  #votes = new Map<NodeId, boolean>();

  /** Follower: since the leader was heard of, or a vote was granted. Leader: since the quorum was checked. */
  #electionElapsed = 0;
  #electionTimeout: number;
  #heartbeatElapsed = 0;
  /** The connection from the leader was closed by the other side, and nothing was heard since. */
  #leaderLost = false;
  readonly #forwarded: ForwardedReads;

  #told: RoleChange | null = null;
  #toldConfiguration: Configuration;
  #toldApplicable: LogIndex;

  /** @throws InvariantViolation when what was recovered contradicts itself. */
  constructor(options: RaftOptions, recovered: RecoveredState) {
    invariant(options.heartbeatTicks >= 1, "a heartbeat takes a tick at least");
    invariant(
      options.electionTicks > options.heartbeatTicks,
      "the election timeout is longer than the heartbeat",
    );
    this.#o = options;
    this.#log = new RaftLog(recovered, options.cacheBytes);
    this.#out = new Outbox(options.id);
    this.#forwarded = new ForwardedReads(options.maxReadsWaiting);
    this.#disk = new DiskPace(this.#log, options.electionTicks, options.stallTicks);
    this.#promised = recovered.promised ?? null;
    this.#following = new Following(this.#log, this.#out, options, () => this.#promised !== null);
    const { term, vote } = recovered.hardState;
    invariant(term >= this.#log.lastTerm, "the log is of a later term than the hard state");
    this.#term = term;
    this.#vote = vote;
    this.#hardStateTaken = recovered.hardState;
    this.#hardStateDurable = recovered.hardState;
    this.#electionTimeout = this.#drawTimeout();
    this.#toldConfiguration = this.#log.configuration;
    this.#toldApplicable = this.#log.applied;
    this.#endRepair();
  }

  // ------------------------------------------------------------------ inspection

  get id(): NodeId {
    return this.#o.id;
  }

  get term(): Term {
    return this.#term;
  }

  get vote(): NodeId | null {
    return this.#vote;
  }

  get role(): Role {
    return this.#role;
  }

  get leader(): NodeId | null {
    return this.#leader;
  }

  get commit(): LogIndex {
    return this.#log.commit;
  }

  get lastIndex(): LogIndex {
    return this.#log.last;
  }

  get lastTerm(): Term {
    return this.#log.lastTerm;
  }

  /** Last index of the own log that is known to be on the own disk. */
  get durable(): LogIndex {
    return this.#log.durable;
  }

  /** Term that is known to be on the own disk, with its vote. */
  get durableTerm(): Term {
    return this.#hardStateDurable.term;
  }

  /** Last index that is committed and durable here: what the driver may apply. */
  get applicable(): LogIndex {
    return this.#log.applicable;
  }

  get appliedIndex(): LogIndex {
    return this.#log.applied;
  }

  get compactedIndex(): LogIndex {
    return this.#log.compacted.index;
  }

  /** In force: the newest one in the log. */
  get configuration(): Configuration {
    return this.#log.configuration;
  }

  /** The configuration as of an index that is not compacted; that of the compacted index is known too. */
  configurationAt(index: LogIndex): Configuration {
    return this.#log.configurationAt(index);
  }

  /** Whether the folder with this incarnation is or was a member by this log, as far back as this process knows it. */
  hasHeld(incarnation: string): boolean {
    return this.#log.hasHeld(incarnation);
  }

  /** Of the entry that holds it; 0 when none does. */
  get configurationIndex(): LogIndex {
    return this.#log.configurationIndex;
  }

  /** Leader: a sentence while this learner's log is too far behind to make it a voter, else null. */
  behind(learner: NodeId): string | null {
    return this.#leading === null
      ? "this member does not lead"
      : this.#leading.promotionRefusal(learner);
  }

  /** Set while this log is repaired from the others: the highest index that it may have acknowledged. */
  get repairingTo(): LogIndex | null {
    return this.#promised?.index ?? null;
  }

  /** Bytes of the log that are in memory. */
  get cachedBytes(): number {
    return this.#log.cachedBytes;
  }

  /** Gives back the memory of entries that are applied here. Who needs one of them later is served from storage. */
  dropCache(): void {
    this.#log.dropCache();
  }

  /** How long the oldest write to the own disk has been on its way, in ticks; 0: none is. */
  get diskWaitTicks(): number {
    return this.#disk.waitingTicks;
  }

  /** Leadership was given up because the own disk stalled, and no write has been quick since. */
  get diskDistrusted(): boolean {
    return this.#disk.distrusted;
  }

  get transferTarget(): NodeId | null {
    return this.#leading?.transferTarget ?? null;
  }

  get electionElapsedTicks(): number {
    return this.#electionElapsed;
  }

  get electionTimeoutTicks(): number {
    return this.#electionTimeout;
  }

  /** Who has answered in the (pre-)election under way, and how; empty while there is none. */
  get votes(): ReadonlyMap<NodeId, boolean> {
    return this.#votes;
  }

  /** Null outside the log; known also for the compacted index itself. */
  termAt(index: LogIndex): Term | null {
    return this.#log.termAt(index);
  }

  /** The leader's view of the others; empty elsewhere. */
  progress(): ReadonlyMap<NodeId, PeerProgress> {
    const view = new Map<NodeId, PeerProgress>();
    for (const [id, peer] of this.#leading?.peers ?? []) {
      view.set(id, {
        match: peer.match,
        next: peer.next,
        state: peer.state,
        inflight: peer.inflights.count,
        inflightBytes: peer.inflights.bytes,
        recentActive: peer.recentActive,
        mayLead: this.configuration.voters.includes(id),
      });
    }
    return view;
  }

  /** Entries [from, to] for the apply path; null when some have left the cache and must be read from storage. */
  entriesFromCache(from: LogIndex, to: LogIndex): readonly Entry[] | null {
    return this.#log.slice(from, to);
  }

  // ------------------------------------------------------------------ effects

  /** What is to be done since the last call; null when there is nothing. See {@link Effects} for the order. */
  takeEffects(): Effects | null {
    this.#leading?.flush();
    this.#endRepair();
    const { term, vote } = this.#hardStateTaken;
    const changed = term !== this.#term || vote !== this.#vote;
    if (changed) this.#hardStateTaken = { term: this.#term, vote: this.#vote };
    const written = changed || this.#disk.takeProbe() ? this.#hardStateTaken : null;
    const persist = this.#log.takeWrite(written, this.#disk.now);
    const gathered = this.#out.take();
    const applicable = this.#log.applicable > this.#toldApplicable ? this.#log.applicable : null;
    this.#toldApplicable = asIndex(Math.max(this.#toldApplicable, this.#log.applicable));
    const roleChange = this.#takeRoleChange();
    const configuration =
      this.configuration === this.#toldConfiguration ? null : this.configuration;
    this.#toldConfiguration = this.configuration;
    if (
      persist === null &&
      gathered === null &&
      applicable === null &&
      roleChange === null &&
      configuration === null
    )
      return null;
    return { ...(gathered ?? NOTHING), persist, applicable, roleChange, configuration };
  }

  /** False: `takeEffects` would answer null, and nothing new may be applied. Looked at for every message. */
  get hasWork(): boolean {
    const { term, vote } = this.#hardStateTaken;
    return (
      vote !== this.#vote ||
      term !== this.#term ||
      !this.#out.isEmpty ||
      this.#log.hasUnwritten ||
      this.#disk.isProbeDue ||
      this.#log.applicable > this.#toldApplicable ||
      this.configuration !== this.#toldConfiguration ||
      !this.#isRoleTold ||
      (this.#leading?.hasWork ?? false)
    );
  }

  get #isRoleTold(): boolean {
    const told = this.#told;
    return told?.role === this.#role && told.term === this.#term && told.leader === this.#leader;
  }

  #takeRoleChange(): RoleChange | null {
    if (this.#isRoleTold) return null;
    this.#told = { role: this.#role, term: this.#term, leader: this.#leader };
    return this.#told;
  }

  #send(to: NodeId, body: MessageBody): void {
    this.#out.send(to, this.#term, body);
  }

  #sendAfterPersist(to: NodeId, body: MessageBody): void {
    this.#out.sendAfterPersist(to, this.#term, body);
  }

  // ------------------------------------------------------------------ time

  /**
   * One logical tick. `mayCampaign`: false at a member that should not lead just now. Its time passes all the same, or it
   * would stick to a leader that it hears of no more. `missed`: ticks before it that did not come, since this member did
   * not run. The others' timers did: a leader's heartbeats are as late as that. For all else they count for nothing, for
   * what came meanwhile was not heard yet.
   */
  tick(mayCampaign = true, missed = 0): void {
    this.#disk.now += 1;
    this.#electionElapsed += 1;
    if (this.#leading !== null) this.#tickLeader(this.#leading, missed);
    else if (this.#electionElapsed >= this.#electionTimeout) {
      if (mayCampaign) this.campaign();
      // Who may not stand, a learner for one, knows all the same that nobody leads it.
      if (this.#role === "follower") this.#setLeader(null);
    }
  }

  #tickLeader(leading: Leadership, missed: number): void {
    leading.tick(this.#o.electionTicks);
    if (this.#electionElapsed >= this.#o.electionTicks) {
      this.#electionElapsed = 0;
      if (!leading.checkQuorum()) {
        this.#becomeFollower(this.#term, null);
        return;
      }
    }
    if (this.#disk.stalls && this.#abdicate(leading)) return;
    this.#leaveJoint(leading);
    this.#heartbeatElapsed += 1 + missed;
    if (this.#heartbeatElapsed < this.#o.heartbeatTicks) return;
    this.#heartbeatElapsed = 0;
    leading.heartbeat();
  }

  /**
   * The own disk stalls while a quorum goes on without it: somebody else should lead. Leadership is handed over, and
   * given up where that does not succeed in time. With nobody faster this member stays. True: it leads no more.
   */
  #abdicate(leading: Leadership): boolean {
    if (leading.transferTarget !== null) return false;
    if (leading.quorumIndexOfOthers() <= this.#log.durable) return false;
    const first = !this.#disk.distrusted;
    this.#disk.distrust();
    const successor = first ? leading.successor() : null;
    if (successor === null) {
      this.#becomeFollower(this.#term, null);
      return true;
    }
    const begun = leading.transfer(successor);
    invariant(begun, "a successor is a voter");
    return false;
  }

  #drawTimeout(): number {
    const ticks = this.#o.drawElectionTicks();
    invariant(
      ticks >= this.#o.electionTicks && ticks < 2 * this.#o.electionTicks,
      "the drawn election timeout lies in [electionTicks, 2 * electionTicks)",
    );
    return ticks;
  }

  // ------------------------------------------------------------------ roles

  /** `leader` null: none is known. A vote of the same term stays given (5.2): it is cleared by a new term only. */
  #becomeFollower(term: Term, leader: NodeId | null): void {
    invariant(term >= this.#term, "terms never fall");
    const led = this.#leading;
    if (term > this.#term) {
      this.#term = term;
      this.#vote = null;
    }
    this.#role = "follower";
    this.#leading = null;
    this.#votes.clear();
    if (led !== null) {
      // A deposed leader waits a whole timeout; all others keep the time that has run (only a leader, or a
      // granted vote, sets it back).
      this.#electionElapsed = 0;
      this.#electionTimeout = this.#drawTimeout();
      for (const read of led.reads.takeAll()) this.#answerRead(read, null);
    }
    this.#setLeader(leader);
  }

  #setLeader(leader: NodeId | null): void {
    if (leader !== this.#leader) {
      for (const id of this.#forwarded.takeAll()) this.#out.read({ id, index: null });
    }
    this.#leader = leader;
  }

  /** A message that only a leader sends: resets the election timer. */
  #heardFromLeader(leader: NodeId): void {
    invariant(this.#leading === null, `term ${this.#term} has two leaders: ${this.id}, ${leader}`);
    if (this.#role !== "follower" || this.#leader !== leader)
      this.#becomeFollower(this.#term, leader);
    this.#electionElapsed = 0;
    this.#leaderLost = false;
  }

  #becomeLeader(): void {
    invariant(this.#role === "candidate", "only a candidate is elected");
    this.#role = "leader";
    this.#votes.clear();
    this.#leaderLost = false;
    this.#electionElapsed = 0;
    this.#heartbeatElapsed = 0;
    this.#setLeader(this.id);
    this.#leading = new Leadership(this.id, this.#term, this.#log, this.#out, this.#o);
    // Entries of earlier terms commit only below one of this term (5.4.2), and reads wait for that too.
    this.#append([{ kind: "noop", data: NO_DATA }]);
  }

  // ------------------------------------------------------------------ elections

  /**
   * Gives up a candidacy, or leadership: for who finds out that it should have neither. A vote that was given in this
   * term, to itself too, stays given (5.2). Nothing at a follower.
   */
  standDown(): void {
    if (this.#role !== "follower") this.#becomeFollower(this.#term, null);
  }

  /**
   * Asks for votes now, by a pre-election first. Does nothing at a leader, at one that is no voter, while the log is
   * repaired, and while the own disk is too slow to lead with.
   *
   * `disregardLeader`: without a pre-election, and voters do not stick to the leader that they hear of, as when
   * leadership is handed over (dissertation 3.10). No driver needs it; who plays a scenario by hand gets the election
   * that the paper describes, now, whatever ticks have passed.
   */
  campaign({ disregardLeader = false }: { readonly disregardLeader?: boolean } = {}): void {
    if (this.#leading !== null || !this.#mayBeNeeded()) return;
    if (this.#promised !== null || !this.#disk.mayLead()) return;
    // A disk that has not written the last term cannot win this one: asking would only raise terms.
    if (!sameHardState(this.#hardStateDurable, { term: this.#term, vote: this.#vote })) return;
    if (disregardLeader) {
      this.#becomeCandidate(true);
      return;
    }
    this.#role = "pre-candidate";
    this.#setLeader(null);
    this.#startTimeout();
    this.#votes = new Map([[this.id, true]]);
    this.#askForVotes(true, false);
    this.#tally();
  }

  /**
   * A voter; or one that is none by a configuration that is not known to be committed: the others' logs may end
   * before it, then their old half counts this member, whose log is longer, and without it nobody leads. Its own
   * vote does not count in the new one (dissertation 4.2.2).
   */
  #mayBeNeeded(): boolean {
    if (isVoter(this.configuration, this.id)) return true;
    const { configurationIndex: index, commit } = this.#log;
    return index > commit && isVoter(this.#log.configurationAt(asIndex(index - 1)), this.id);
  }

  /** The connection from the leader was closed, or refused, by the other side: early pre-votes may be granted. */
  leaderLost(): void {
    if (this.#leading === null && this.#leader !== null) this.#leaderLost = true;
  }

  /** Leader: the connection to this member is over; another process of it may answer next. */
  disconnected(peer: NodeId): void {
    this.#leading?.disconnected(peer);
  }

  #becomeCandidate(transfer: boolean): void {
    this.#role = "candidate";
    this.#term = asTerm(this.#term + 1);
    this.#vote = this.id;
    this.#setLeader(null);
    this.#startTimeout();
    // The own vote is counted when it is durable (see persisted), like anyone else's.
    this.#votes = new Map();
    this.#askForVotes(false, transfer);
  }

  #startTimeout(): void {
    this.#electionElapsed = 0;
    this.#electionTimeout = this.#drawTimeout();
  }

  #askForVotes(pre: boolean, transfer: boolean): void {
    const term = pre ? asTerm(this.#term + 1) : this.#term;
    const { last: lastIndex, lastTerm } = this.#log;
    const leaderLost = this.#leaderLost;
    for (const id of allVoters(this.configuration)) {
      if (id === this.id) continue;
      this.#out.send(id, term, { type: "vote", pre, lastIndex, lastTerm, transfer, leaderLost });
    }
  }

  #tally(): void {
    switch (voteResult(this.configuration, this.#votes)) {
      case "pending":
        return;
      case "lost":
        this.#becomeFollower(this.#term, null);
        return;
      case "won":
        if (this.#role === "pre-candidate") this.#becomeCandidate(false);
        // Others may outvote a slow own disk, but a leadership that its own member could forget, and campaign
        // for again in the same term, must not begin.
        else if (this.#votes.get(this.id) === true) this.#becomeLeader();
    }
  }

  /** Heard of a leader within an election timeout, or is one: votes are refused (dissertation 4.2.3). */
  #sticksToLeader({ transfer, leaderLost }: MessageOf<"vote">): boolean {
    if (transfer || (leaderLost && this.#leaderLost)) return false;
    return this.#leader !== null && this.#electionElapsed < this.#o.electionTicks;
  }

  #onVote(message: MessageOf<"vote">): void {
    const { from, pre, term, lastIndex, lastTerm } = message;
    const free = this.#vote === null && this.#leader === null;
    const may = this.#vote === from || free || (pre && term > this.#term);
    const end = { index: lastIndex, term: lastTerm };
    const granted = may && this.#log.isCoveredBy(end) && this.#coversPromises(end);
    if (pre) {
      // A granted pre-vote bears the term that was asked for; it promises nothing.
      const answerTerm = granted ? term : this.#term;
      this.#out.send(from, answerTerm, { type: "vote-reply", pre, granted });
      return;
    }
    if (granted) {
      if (this.#log.writesUnderWay >= this.#o.maxWritesUnderWay) return;
      this.#vote = from;
      this.#startTimeout();
    }
    this.#sendAfterPersist(from, { type: "vote-reply", pre, granted });
  }

  /**
   * Whether a log with this end is at least as up to date as this one was, whatever of it is lost (5.4.1). The promise
   * bounds that from above: no entry was of a later term than the member, nor stood behind the index.
   */
  #coversPromises(end: LogPosition): boolean {
    if (this.#promised === null) return true;
    const { index, term } = this.#promised;
    return end.term > term || (end.term === term && end.index >= index);
  }

  #onVoteReply({ from, pre, granted, term }: MessageOf<"vote-reply">): void {
    const asked: Role = pre ? "pre-candidate" : "candidate";
    if (this.#role !== asked) return;
    // A refusal of a pre-vote bears the voter's term, which is at most ours here; a grant what was asked.
    if (pre && granted && term !== this.#term + 1) return;
    if (!isVoter(this.configuration, from) || this.#votes.has(from)) return;
    this.#votes.set(from, granted);
    this.#tally();
  }

  // ------------------------------------------------------------------ messages

  /** One message from another member. Never throws for what a correct member can send, however late. */
  step(message: Message): void {
    if (message.to !== this.id || message.from === this.id) return;
    if (message.term > this.#term && !this.#enterTerm(message)) return;
    if (message.term < this.#term) {
      this.#answerStale(message);
      return;
    }
    switch (message.type) {
      case "vote":
        this.#onVote(message);
        return;
      case "vote-reply":
        this.#onVoteReply(message);
        return;
      case "append":
        this.#heardFromLeader(message.from);
        this.#following.append(message);
        return;
      case "commit":
        this.#heardFromLeader(message.from);
        this.#following.commit(message);
        return;
      case "append-reply":
        if (this.#leading?.appendReply(message) === true) this.#matchMoved(this.#leading);
        return;
      case "heartbeat":
        this.#heardFromLeader(message.from);
        this.#following.heartbeat(message);
        return;
      case "heartbeat-reply":
        this.#leading?.heartbeatReply(message);
        this.#releaseReads();
        return;
      case "read-index":
        this.#read({ id: message.id, from: message.from });
        return;
      case "read-index-reply":
        if (this.#forwarded.answered(message.id))
          this.#out.read({ id: message.id, index: message.index });
        return;
      case "timeout-now":
        this.#onTimeoutNow(message);
        return;
      case "snapshot":
        this.#heardFromLeader(message.from);
        this.#following.snapshot(message);
        return;
      case "snapshot-reply":
        if (this.#leading?.snapshotReply(message) === true) this.#matchMoved(this.#leading);
        return;
    }
  }

  /** A later term. False: the message is not to be handled. */
  #enterTerm(message: Message): boolean {
    if (this.#log.writesUnderWay >= this.#o.maxWritesUnderWay) return false;
    switch (message.type) {
      case "vote":
        if (this.#sticksToLeader(message)) {
          if (message.pre)
            this.#send(message.from, { type: "vote-reply", pre: true, granted: false });
          return false;
        }
        // Asking for a pre-vote changes nothing here (dissertation 9.6). The pre-vote is handled as it is.
        if (message.pre) {
          this.#onVote(message);
          return false;
        }
        this.#becomeFollower(message.term, null);
        return true;
      case "vote-reply":
        if (message.pre && message.granted) {
          this.#onVoteReply(message);
          return false;
        }
        this.#becomeFollower(message.term, null);
        return true;
      case "append":
      case "commit":
      case "heartbeat":
      case "snapshot":
        this.#becomeFollower(message.term, message.from);
        return true;
      case "append-reply":
      case "heartbeat-reply":
      case "read-index":
      case "read-index-reply":
      case "timeout-now":
      case "snapshot-reply":
        this.#becomeFollower(message.term, null);
        return true;
    }
  }

  /**
   * An earlier term. Who sends as a leader or candidate of it learns the present one by the answer; with
   * pre-vote and sticky leaders nothing else would free a member that is stuck behind, or ahead of, the rest.
   * Timers and state stay untouched.
   */
  #answerStale(message: Message): void {
    const { from } = message;
    switch (message.type) {
      case "vote":
        this.#send(from, { type: "vote-reply", pre: message.pre, granted: false });
        return;
      case "append":
        this.#refuseStaleAppend(from, message.prevIndex);
        return;
      case "snapshot":
        this.#refuseStaleAppend(from, message.snapshot.index);
        return;
      case "heartbeat":
        this.#send(from, { type: "heartbeat-reply", round: message.round });
        return;
      case "read-index":
        this.#send(from, { type: "read-index-reply", id: message.id, index: null });
        return;
      // A heartbeat of the same sender is answered.
      case "commit":
      case "vote-reply":
      case "append-reply":
      case "heartbeat-reply":
      case "read-index-reply":
      case "timeout-now":
      case "snapshot-reply":
        return;
    }
  }

  #refuseStaleAppend(to: NodeId, prevIndex: LogIndex): void {
    this.#send(to, { type: "append-reply", prevIndex, match: null, hint: null });
  }

  // ------------------------------------------------------------------ follower

  #onTimeoutNow({ from }: MessageOf<"timeout-now">): void {
    if (this.#role !== "follower" || from !== this.#leader) return;
    if (!isVoter(this.configuration, this.id)) return;
    if (this.#promised !== null || !this.#disk.mayLead()) return;
    if (this.#log.writesUnderWay >= this.#o.maxWritesUnderWay) return;
    // The leader wants it: no pre-vote, and the others' stickiness does not count (dissertation 3.10).
    this.#becomeCandidate(true);
  }

  /**
   * The driver has replaced state and log by this snapshot, durably. Everything else in the log is gone.
   * @throws InvariantViolation when it is not ahead of the commit index: check `commit` before installing.
   */
  snapshotInstalled(snapshot: SnapshotMeta): void {
    invariant(this.#leading === null, "a leader installs no snapshot");
    this.#log.restart(snapshot);
    this.#out.truncated(asIndex(1));
    this.#toldApplicable = snapshot.index; // applied already
    // A candidate asked for votes with another log, maybe in another configuration: it asks anew.
    this.#endRepair();
    if (this.#role !== "follower" || snapshot.term > this.#term)
      this.#becomeFollower(asTerm(Math.max(this.#term, snapshot.term)), null);
    if (this.#leader === null) return;
    this.#sendAfterPersist(this.#leader, {
      type: "snapshot-reply",
      index: snapshot.index,
      ok: true,
    });
  }

  /**
   * What the leader offers, this log has: the word that it was installed must have been lost. Said again, or the
   * leader would offer for ever what it still has, and send nothing else. A snapshot holds what is committed, so that much is
   * known to be so here as well: a leader that has forgotten its log up to there could not go on from any less.
   */
  snapshotNotNeeded(offered: Pick<SnapshotMeta, "index" | "term">): void {
    if (this.#leading !== null || this.#leader === null) return;
    if (offered.index > this.commit && this.#log.termAt(offered.index) === offered.term)
      this.#log.commitTo(offered.index);
    const index = this.commit;
    this.#sendAfterPersist(this.#leader, { type: "snapshot-reply", index, ok: true });
  }

  // ------------------------------------------------------------------ leader

  /** Appends `items` as consecutive entries, all or none. They are replicated before this disk has them. */
  propose(items: readonly ProposalItem[]): ProposeResult {
    const leading = this.#leading;
    if (leading === null) return refuse("not-leader", "this member does not lead");
    if (leading.transferTarget !== null)
      return refuse("transferring", `leadership is being handed to ${leading.transferTarget}`);
    if (items.length === 0) return refuse("invalid", "there is nothing to propose");
    if (items.some(({ kind }) => kind === "config" || kind === "bootstrap"))
      return refuse("invalid", "a configuration is changed by proposeChange only");
    const bytes = items.reduce((sum, { data }) => sum + dataBytes(data), 0);
    if (!leading.hasRoomFor(bytes))
      return refuse("overloaded", "too many bytes wait to be committed");
    const result = this.#append(items);
    leading.proposed(result.last, bytes);
    return result;
  }

  /** Whether an entry with this much data would be taken now; false at a member that does not lead. */
  hasRoomFor(bytes: number): boolean {
    return this.#leading?.hasRoomFor(bytes) ?? false;
  }

  /**
   * Changes the membership: one change at a time, and only after an entry of this term is committed
   * (dissertation 4.1, and its correction of 2015). A joint configuration is left without being asked.
   */
  proposeChange(changes: readonly ConfigurationChange[]): ProposeResult {
    const leading = this.#leading;
    if (leading === null) return refuse("not-leader", "this member does not lead");
    if (leading.transferTarget !== null)
      return refuse("transferring", `leadership is being handed to ${leading.transferTarget}`);
    if (!this.#hasCommittedInTerm())
      return refuse("pending-change", "this leader has not committed an entry of its term yet");
    if (this.#log.configurationIndex > this.commit)
      return refuse("pending-change", "another change of the membership is under way");
    for (const { op, id } of changes) {
      const why = op === "promote" && this.configuration.learners.includes(id);
      const behind = why ? leading.promotionRefusal(id) : null;
      if (behind !== null) return refuse("invalid", behind);
    }
    const changed = applyChanges(this.configuration, changes);
    if (!changed.ok) return refuse("invalid", changed.detail);
    return this.#append([{ kind: "config", data: encodeConfiguration(changed.configuration) }]);
  }

  /** Hands leadership to a voter. False: not leader, not a voter, this member itself, or under way already. */
  transfer(to: NodeId): boolean {
    return this.#leading?.transfer(to) ?? false;
  }

  #append(items: readonly ProposalItem[]): Extract<ProposeResult, { ok: true }> {
    const leading = this.#leading;
    invariant(leading !== null, "only a leader appends of itself");
    const first = asIndex(this.lastIndex + 1);
    const before = this.configuration;
    for (const { kind, data } of items) {
      this.#log.append({ term: this.#term, index: asIndex(this.lastIndex + 1), kind, data });
    }
    if (this.configuration !== before) {
      leading.reconfigured();
      // Of fewer voters, those that have answered may be a quorum, and nobody else may answer any more.
      this.#releaseReads();
    }
    return { ok: true, first, last: this.lastIndex, term: this.#term };
  }

  #hasCommittedInTerm(): boolean {
    return this.#log.termAt(this.commit) === this.#term;
  }

  #matchMoved(leading: Leadership): void {
    // First: if this commit ends the leadership, its last flush tells the target, too.
    leading.handOver();
    this.#advanceCommit(leading);
  }

  /** 5.3, 5.4.2: a quorum has it, and it is of this term; what is before it commits with it. */
  #advanceCommit(leading: Leadership): void {
    const index = leading.quorumIndex();
    if (index > this.commit && this.#log.termAt(index) === this.#term) {
      const first = !this.#hasCommittedInTerm();
      this.#log.commitTo(index);
      if (first) this.#confirmReads(leading, leading.reads.takeEarly());
      this.#leaveJoint(leading);
    }
    leading.settled();
    if (!leading.isOver) return;
    leading.tellCommit();
    leading.flush(); // the others learn of the commit from this member for the last time
    this.#becomeFollower(this.#term, null);
  }

  #leaveJoint(leading: Leadership): void {
    const next = leading.nextConfiguration();
    if (next === null || !this.#hasCommittedInTerm()) return;
    this.#append([{ kind: "config", data: encodeConfiguration(next) }]);
  }

  // ------------------------------------------------------------------ reads

  /**
   * Asks for an index at which a read is linearizable; answered in the effects, under `id`. No process of this member may
   * use one twice: a leader may answer the one before late, with the index of that time.
   */
  readIndex(id: number): void {
    if (this.#leading !== null) {
      this.#read({ id, from: null });
      return;
    }
    if (this.#leader === null) {
      this.#out.read({ id, index: null });
      return;
    }
    const forgotten = this.#forwarded.add(id);
    if (forgotten !== null) this.#out.read({ id: forgotten, index: null });
    this.#send(this.#leader, { type: "read-index", id });
  }

  #read(request: ReadRequest): void {
    const leading = this.#leading;
    if (leading === null || leading.reads.full) this.#answerRead(request, null);
    else if (!this.#hasCommittedInTerm()) leading.reads.holdEarly(request);
    else this.#confirmReads(leading, [request]);
  }

  /** The round begins after the reads arrived, whatever was under way. */
  #confirmReads(leading: Leadership, requests: readonly ReadRequest[]): void {
    if (requests.length === 0) return;
    const round = leading.heartbeat();
    for (const request of requests) leading.reads.confirm(request, this.commit, round);
    this.#releaseReads();
  }

  #releaseReads(): void {
    const leading = this.#leading;
    if (leading === null || leading.reads.count === 0) return;
    for (const { request, index } of leading.reads.confirmed(leading.confirmedRound()))
      this.#answerRead(request, index);
  }

  #answerRead({ id, from }: ReadRequest, index: LogIndex | null): void {
    if (from === null) {
      this.#out.read({ id, index });
      return;
    }
    this.#send(from, { type: "read-index-reply", id, index });
    if (index !== null) this.awaitsCommit(from, index);
  }

  /** Leader: the others hear of the newest commit now. Each tick does that too; they must not wait for more entries. */
  tellCommit(): void {
    this.#leading?.tellCommit();
  }

  /** Leader: somebody at `peer` (null: at each) waits until `index` is applied there: news of its commit leave at once. */
  awaitsCommit(peer: NodeId | null, index: LogIndex): void {
    this.#leading?.awaitsCommit(peer, index);
  }

  // ------------------------------------------------------------------ the driver reports

  /** A write is durable, and all before it. Matched with the write itself, so a late one is harmless (ABA). */
  persisted(ack: PersistAck): void {
    const write = this.#log.persisted(ack);
    if (write === null) return;
    this.#disk.answered(write.at);
    if (write.hardState !== null) this.#hardStateDurable = write.hardState;
    this.#endRepair();
    if (this.#role === "candidate") this.#countOwnVote();
    if (this.#leading !== null) this.#advanceCommit(this.#leading);
  }

  /**
   * The log holds again what this member promised, as far as it was committed: it reaches as far, every entry checked
   * against a leader; or a leader of a later term has committed here. A leader's log holds all that was committed before
   * it, since this member, like any other, has voted for none whose log may lack what it had acknowledged.
   */
  #endRepair(): void {
    if (this.#promised === null) return;
    const { index, term } = this.#promised;
    const known = must(this.#log.termAt(this.#log.applicable), "what may be applied is in the log");
    const later = known > term;
    if (later || this.#log.durable >= index) this.#promised = null;
  }

  #countOwnVote(): void {
    const { term, vote } = this.#hardStateDurable;
    if (term !== this.#term) return;
    invariant(vote === this.id, "a candidate votes for itself");
    this.#votes.set(this.id, true);
    this.#tally();
  }

  /** The driver has applied everything up to `index`. */
  applied(index: LogIndex): void {
    this.#log.appliedTo(index);
  }

  /** Answer to a fetch; empty: could not be read, compacted meanwhile. */
  fetched(peer: NodeId, entries: readonly Entry[]): void {
    this.#leading?.fetched(peer, entries);
  }

  /** The store has dropped everything up to `index`, which is applied. */
  compacted(index: LogIndex): void {
    this.#log.compactTo(index);
  }

  /** The bytes of a snapshot went out (the peer's own answer counts), or failed to. */
  snapshotSent(peer: NodeId, _index: LogIndex, ok: boolean): void {
    if (!ok) this.#leading?.snapshotFailed(peer);
  }
}

const NO_DATA = new Uint8Array(0);

const NOTHING = {
  messages: [],
  afterPersist: [],
  reads: [],
  fetches: [],
  snapshots: [],
  install: null,
} as const;

function sameHardState(a: HardState, b: HardState): boolean {
  return a.term === b.term && a.vote === b.vote;
}

function refuse(
  reason: Extract<ProposeResult, { ok: false }>["reason"],
  detail: string,
): ProposeResult {
  return { ok: false, reason, detail };
}
