/**
 * One leadership: everything a leader knows that ends with it. Progress of the others, reads that wait,
 * the transfer under way, uncommitted proposals. It is made anew by every election and dropped whole, so
 * nothing of it (a transfer flag, a match index) can leak into a later term.
 */
import { allMembers, leaveJoint } from "./configuration.ts";
import { entryBytes } from "./entry-cache.ts";
import { invariant, must } from "./invariant.ts";
import type { RaftLog } from "./log.ts";
import type { Outbox } from "./outbox.ts";
import { Progress } from "./progress.ts";
import { hasQuorum, isVoter, reachedByQuorum } from "./quorum.ts";
import { LeaderReads } from "./read-index.ts";
import {
  asIndex,
  type Configuration,
  type Entry,
  INDEX_0,
  type LogIndex,
  type Message,
  type NodeId,
  TERM_0,
  type Term,
} from "./types.ts";

export interface LeadershipOptions {
  readonly maxAppendBytes: number;
  readonly maxInflightMessages: number;
  readonly maxInflightBytes: number;
  readonly maxUncommittedBytes: number;
  readonly maxReadsWaiting: number;
}

/** A learner may trail by this many entries, what is in flight under load, and still be promoted. */
const PROMOTION_LAG_ENTRIES = 64;

type MessageOf<T extends Message["type"]> = Extract<Message, { type: T }>;

export class Leadership {
  readonly reads: LeaderReads;
  readonly #self: NodeId;
  readonly #term: Term;
  readonly #log: RaftLog;
  readonly #out: Outbox;
  readonly #o: LeadershipOptions;
  readonly #peers = new Map<NodeId, Progress>();
  /** Of the folders that `#peers` is about. */
  readonly #incarnations = new Map<NodeId, string>();
  /** Number of the newest round of heartbeats. */
  #round = 0;
  /** What nobody waits for is told with the next flush. */
  #newsAreDue = false;
  #transferTarget: NodeId | null = null;
  #transferTicks = 0;
  /** The target may be told to campaign with the next flush. */
  #handOverIsDue = false;
  /** Proposals that are not both committed and durable here, oldest first. */
  readonly #proposed: { readonly last: LogIndex; readonly bytes: number }[] = [];
  #proposedBytes = 0;

  constructor(self: NodeId, term: Term, log: RaftLog, out: Outbox, options: LeadershipOptions) {
    this.#self = self;
    this.#term = term;
    this.#log = log;
    this.#out = out;
    this.#o = options;
    this.reads = new LeaderReads(options.maxReadsWaiting);
    this.reconfigured();
  }

  /** Everyone but this member. */
  get peers(): ReadonlyMap<NodeId, Progress> {
    return this.#peers;
  }

  get transferTarget(): NodeId | null {
    return this.#transferTarget;
  }

  /** The configuration in force has changed: whom to send to follows it. */
  reconfigured(): void {
    invariant(this.#transferTarget === null, "nothing is appended while leadership is handed over");
    const { configuration } = this.#log;
    const members = new Set(allMembers(configuration));
    for (const id of this.#peers.keys()) {
      if (members.has(id)) continue;
      this.#peers.delete(id);
      this.#incarnations.delete(id);
    }
    for (const id of members) {
      if (id === this.#self) continue;
      const incarnation = configuration.members[id]?.incarnation ?? "";
      // What another folder of the same id holds says nothing of this one.
      const isKnown = this.#peers.has(id) && this.#incarnations.get(id) === incarnation;
      this.#incarnations.set(id, incarnation);
      if (isKnown) continue;
      const { maxInflightMessages, maxInflightBytes } = this.#o;
      const next = asIndex(this.#log.last + 1);
      this.#peers.set(id, new Progress(next, maxInflightMessages, maxInflightBytes));
    }
  }

  // ------------------------------------------------------------------ commit

  /**
   * The index that a quorum holds durably. This member's own copy counts only as far as its own disk has
   * answered, and only if it is a voter; the log is replicated while that disk still writes.
   */
  quorumIndex(): LogIndex {
    return asIndex(reachedByQuorum(this.#log.configuration, (id) => this.#matchOf(id)));
  }

  /** The index that a quorum holds durably without this member. */
  quorumIndexOfOthers(): LogIndex {
    return asIndex(
      reachedByQuorum(this.#log.configuration, (id) =>
        id === this.#self ? INDEX_0 : this.#matchOf(id),
      ),
    );
  }

  #peerOf(id: NodeId): Progress {
    return must(this.#peers.get(id), "every other member is a peer");
  }

  #matchOf(id: NodeId): LogIndex {
    return id === this.#self ? this.#log.durable : this.#peerOf(id).match;
  }

  // ------------------------------------------------------------------ proposals

  /** False when `bytes` more would go beyond the limit. With nothing outstanding one always passes. */
  hasRoomFor(bytes: number): boolean {
    return this.#proposedBytes === 0 || this.#proposedBytes + bytes <= this.#o.maxUncommittedBytes;
  }

  proposed(last: LogIndex, bytes: number): void {
    this.#proposed.push({ last, bytes });
    this.#proposedBytes += bytes;
  }

  /** Commit or durability moved: frees what is now both. */
  settled(): void {
    let freed = 0;
    for (const { last, bytes } of this.#proposed) {
      if (last > this.#log.applicable) break;
      this.#proposedBytes -= bytes;
      freed += 1;
    }
    if (freed > 0) this.#proposed.splice(0, freed);
  }

  // ------------------------------------------------------------------ sending

  /** Sends each peer what it may be sent now. Called when effects are taken, so one turn makes one append. */
  flush(): void {
    for (const [id, peer] of this.#peers) this.#flushPeer(id, peer);
    this.#newsAreDue = false;
    this.#tellTarget();
  }

  /** A flush would send something. */
  get hasWork(): boolean {
    if (this.#handOverIsDue) return true;
    for (const peer of this.#peers.values()) {
      if (peer.state === "snapshot") continue;
      const isReady = peer.fetching === null;
      if (peer.state === "probe" && isReady && !peer.probeSent) return true;
      if (peer.state !== "replicate") continue;
      if (isReady && !peer.inflights.full && peer.next <= this.#log.last) return true;
      if (peer.poke || this.#hasNews(peer)) return true;
    }
    return false;
  }

  /** With the next flush everybody hears of the newest commit. */
  tellCommit(): void {
    this.#newsAreDue = true;
  }

  /** Somebody at this peer (null: at each) waits until `index` is applied there. */
  awaitsCommit(id: NodeId | null, index: LogIndex): void {
    for (const [each, peer] of this.#peers)
      if ((id === null || each === id) && peer.awaitedCommit < index) peer.awaitedCommit = index;
  }

  #flushPeer(id: NodeId, peer: Progress): void {
    switch (peer.state) {
      case "snapshot":
        return;
      case "probe":
        if (!peer.probeSent && peer.fetching === null) this.#sendNext(id, peer);
        return;
      case "replicate": {
        while (!peer.inflights.full && peer.next <= this.#log.last && peer.fetching === null) {
          if (!this.#sendNext(id, peer)) break;
        }
        if (peer.state !== "replicate") return;
        if (peer.poke) this.#sendEntries(id, peer, []);
        else if (this.#hasNews(peer)) this.#tell(id, peer);
      }
    }
  }

  /**
   * The commit index travels with the next append, and by itself only where somebody waits for it (a follower answers
   * its own clients by applying), or when no append came along within a tick.
   */
  #hasNews(peer: Progress): boolean {
    if (Math.min(this.#log.commit, peer.next - 1) <= peer.sentCommit) return false;
    return this.#newsAreDue || peer.awaitedCommit > peer.sentCommit;
  }

  #tell(id: NodeId, peer: Progress): void {
    const prevIndex = asIndex(peer.next - 1);
    const prevTerm = this.#log.termAt(prevIndex);
    if (prevTerm === null) return;
    const commit = asIndex(Math.min(this.#log.commit, prevIndex));
    this.#out.send(id, this.#term, { type: "commit", prevIndex, prevTerm, commit });
    peer.sentCommit = commit;
  }

  /** One append from peer.next on. False when there is none to send: entries asked for, or a snapshot. */
  #sendNext(id: NodeId, peer: Progress): boolean {
    if (this.#log.termAt(asIndex(peer.next - 1)) === null) {
      this.#offerSnapshot(id, peer);
      return false;
    }
    const entries = this.#log.sized(peer.next, this.#o.maxAppendBytes);
    if (entries === null) {
      peer.fetching = peer.next;
      this.#out.fetch({
        peer: id,
        from: peer.next,
        to: asIndex(this.#log.cachedFrom - 1),
        maxBytes: this.#o.maxAppendBytes,
      });
      return false;
    }
    return this.#sendEntries(id, peer, entries);
  }

  #sendEntries(id: NodeId, peer: Progress, entries: readonly Entry[]): boolean {
    const prevIndex = asIndex(peer.next - 1);
    const prevTerm = this.#log.termAt(prevIndex);
    if (prevTerm === null) {
      this.#offerSnapshot(id, peer);
      return false;
    }
    const last = asIndex(prevIndex + entries.length);
    const commit = this.#log.commit;
    this.#out.send(id, this.#term, { type: "append", prevIndex, prevTerm, entries, commit });
    peer.sentCommit = asIndex(Math.max(peer.sentCommit, Math.min(commit, last)));
    peer.poke = false;
    if (peer.state === "probe") peer.probeSent = true;
    else if (entries.length > 0) peer.sentTo(last, bytesOf(entries));
    return true;
  }

  /** Answer to a fetch. Terms are checked: the store may have read what was truncated meanwhile. */
  fetched(id: NodeId, entries: readonly Entry[]): void {
    const peer = this.#peers.get(id);
    if (peer === undefined || peer.fetching === null) return;
    const wanted = peer.fetching;
    peer.fetching = null;
    if (peer.state === "snapshot" || peer.next !== wanted) return;
    const right = entries.every(
      (entry, i) => entry.index === wanted + i && this.#log.termAt(entry.index) === entry.term,
    );
    if (entries.length === 0 || !right) {
      // Compacted meanwhile, most likely: waits for the next heartbeat, then a snapshot may be due.
      peer.becomeProbe();
      peer.probeSent = true;
      return;
    }
    // Nothing was sent since it was asked for: the window is as open as it was then.
    if (peer.state === "replicate" || !peer.probeSent) this.#sendEntries(id, peer, entries);
  }

  /** A new round; its number. Tells each peer a commit index that it is known to hold, no more. */
  heartbeat(): number {
    this.#round += 1;
    for (const [id, peer] of this.#peers) {
      const commit = asIndex(Math.min(peer.match, this.#log.commit));
      this.#out.send(id, this.#term, { type: "heartbeat", commit, round: this.#round });
      if (peer.sentCommit < commit) peer.sentCommit = commit;
    }
    return this.#round;
  }

  /** The newest round that a quorum has answered: this member led when it was begun. */
  confirmedRound(): number {
    return reachedByQuorum(this.#log.configuration, (id) =>
      id === this.#self ? this.#round : this.#peerOf(id).round,
    );
  }

  // ------------------------------------------------------------------ answers

  /** Answers whether `match` moved. */
  appendReply({ from, prevIndex, match, hint, lost }: MessageOf<"append-reply">): boolean {
    const peer = this.#peers.get(from);
    if (peer === undefined) return false;
    peer.recentActive = true;
    if (lost === true && hint !== null && peer.match > hint.index) {
      peer.lost(asIndex(this.#log.lastAtMost(hint.index, hint.term).index + 1));
      return false;
    }
    if (match !== null) return this.#accepted(peer, match);
    if (hint !== null) this.#refused(peer, prevIndex, hint);
    return false;
  }

  #accepted(peer: Progress, match: LogIndex): boolean {
    invariant(match <= this.#log.last, "a follower acknowledged more than its leader has");
    const moved = match > peer.match;
    // Also a repeated success ends probing, if it is about the position that is probed.
    const answersProbe = moved || peer.next === match + 1;
    peer.matched(match);
    const reachable = peer.match >= this.#log.compacted.index;
    if (peer.state !== "replicate" && answersProbe && reachable) peer.becomeReplicate();
    return moved;
  }

  #refused(
    peer: Progress,
    prevIndex: LogIndex,
    hint: { readonly index: LogIndex; readonly term: Term },
  ): void {
    if (prevIndex <= peer.match) return; // late: it has been accepted since
    if (peer.state === "replicate") {
      peer.becomeProbe(); // something in flight was lost; up to match all is known
      return;
    }
    if (peer.state !== "probe" || peer.next - 1 !== prevIndex) return; // answers an older probe
    const guess = hint.term === TERM_0 ? hint : this.#log.lastAtMost(hint.index, hint.term);
    peer.becomeProbe(asIndex(Math.min(prevIndex, guess.index + 1)));
  }

  heartbeatReply({ from, round }: MessageOf<"heartbeat-reply">): void {
    const peer = this.#peers.get(from);
    if (peer === undefined) return;
    peer.recentActive = true;
    peer.round = Math.max(peer.round, Math.min(round, this.#round));
    peer.probeSent = false;
    if (peer.state === "replicate" && peer.match < this.#log.last) peer.poke = true;
  }

  /**
   * The connection to it is over. What is on its way may be lost, and the process that answers next may be another one,
   * whose log was damaged meanwhile: its acknowledgements count on, but where its log ends is asked anew.
   */
  disconnected(id: NodeId): void {
    const peer = this.#peers.get(id);
    if (peer?.state === "replicate") peer.becomeProbe();
  }

  // ------------------------------------------------------------------ snapshots

  #offerSnapshot(id: NodeId, peer: Progress): void {
    if (!peer.recentActive) {
      peer.probeSent = true; // nobody is there: asks again after the next heartbeat is answered
      return;
    }
    const index = this.#log.applied;
    const term = this.#log.termAt(index);
    invariant(term !== null, "what was applied last is not behind the compacted index");
    const configuration = this.#log.configurationAt(index);
    peer.becomeSnapshot(index);
    this.#out.send(id, this.#term, { type: "snapshot", snapshot: { index, term, configuration } });
    this.#out.snapshot(id);
  }

  /** The receiver says that it installed one (ok), or cannot. */
  snapshotReply({ from, index, ok }: MessageOf<"snapshot-reply">): boolean {
    const peer = this.#peers.get(from);
    if (peer === undefined) return false;
    peer.recentActive = true;
    if (ok) return this.#accepted(peer, index);
    this.snapshotFailed(from);
    return false;
  }

  /** Offered again after the next answered heartbeat. */
  snapshotFailed(id: NodeId): void {
    const peer = this.#peers.get(id);
    if (peer?.state !== "snapshot") return;
    peer.becomeProbe();
    peer.probeSent = true;
  }

  // ------------------------------------------------------------------ transfer

  #mayLead(id: NodeId): boolean {
    return this.#log.configuration.voters.includes(id);
  }

  transfer(to: NodeId): boolean {
    if (this.#transferTarget !== null || to === this.#self || !this.#mayLead(to)) return false;
    this.#transferTarget = to;
    this.#transferTicks = 0;
    this.handOver();
    return true;
  }

  /** Who could take over at once: of the voters that acknowledged beyond this disk the one that holds most, or null. */
  successor(): NodeId | null {
    let best: { id: NodeId; peer: Progress } | null = null;
    for (const [id, peer] of this.#peers) {
      if (peer.match <= this.#log.durable || peer.state !== "replicate" || !this.#mayLead(id))
        continue;
      const better =
        best === null ||
        (peer.recentActive === best.peer.recentActive
          ? peer.match > best.peer.match
          : peer.recentActive);
      if (better) best = { id, peer };
    }
    return best?.id ?? null;
  }

  /** Tells the target to campaign once its log is complete; nothing is appended meanwhile. */
  handOver(): void {
    this.#handOverIsDue = this.#transferTarget !== null;
  }

  /** With the flush, not before: the same turn may still give the transfer up, and append what the target lacks. */
  #tellTarget(): void {
    const target = this.#transferTarget;
    if (!this.#handOverIsDue || target === null) return;
    this.#handOverIsDue = false;
    if (this.#peerOf(target).match !== this.#log.last) return;
    this.#out.send(target, this.#term, { type: "timeout-now" });
  }

  abortTransfer(): void {
    this.#transferTarget = null;
    this.#handOverIsDue = false;
  }

  // ------------------------------------------------------------------ time, membership

  /** Once per tick. Lost messages of transfers and snapshots are made good after an election timeout. */
  tick(electionTicks: number): void {
    this.tellCommit();
    if (this.#transferTarget !== null) {
      this.#transferTicks += 1;
      if (this.#transferTicks >= electionTicks) this.abortTransfer();
    }
    for (const [id, peer] of this.#peers) {
      if (peer.state !== "snapshot") continue;
      peer.snapshotTicks += 1;
      if (peer.snapshotTicks >= electionTicks && peer.recentActive) this.#offerSnapshot(id, peer);
    }
  }

  /** Whether a quorum was heard of since the last call (dissertation 6.2); starts a new period. */
  checkQuorum(): boolean {
    const active = hasQuorum(
      this.#log.configuration,
      (id) => id === this.#self || this.#peerOf(id).recentActive,
    );
    for (const peer of this.#peers.values()) peer.recentActive = false;
    return active;
  }

  /** A sentence when promoting this learner would put a quorum at risk, else null. */
  promotionRefusal(id: NodeId): string | null {
    const peer = this.#peers.get(id);
    const behind = this.#log.last - (peer?.match ?? 0);
    // With the change that added it: by an older log an earlier folder of this id may be the member, and this one
    // must not vote. As a voter that cannot, it would be missing to the very election that could tell it.
    const knowsItself = (peer?.match ?? 0) >= this.#log.configurationIndex;
    // Replicate: by what it said since it was connected. An earlier process of it may have held more.
    if (peer?.state === "replicate" && knowsItself && behind <= PROMOTION_LAG_ENTRIES) return null;
    return behind === 0
      ? `${id} is not caught up: it has not said yet where its log ends`
      : `${id} is not caught up: ${behind} entries behind`;
  }

  /** The configuration to append to leave a joint one, when that is due. */
  nextConfiguration(): Configuration | null {
    const { configuration, configurationIndex, commit } = this.#log;
    if (configuration.outgoing.length === 0 || configurationIndex > commit) return null;
    return this.#transferTarget === null ? leaveJoint(configuration) : null;
  }

  /** The configuration without this member is committed: its leadership is over (4.2.2). */
  get isOver(): boolean {
    const { configuration, configurationIndex, commit } = this.#log;
    return configurationIndex <= commit && !isVoter(configuration, this.#self);
  }
}

function bytesOf(entries: readonly Entry[]): number {
  return entries.reduce((sum, entry) => sum + entryBytes(entry), 0);
}
