/**
 * The driver: carries out what the Raft core decides, through the ports, and serves the layers above.
 *
 * One member's replica persists, sends, applies, and answers who waits. It decides nothing about
 * consensus (that is `raft/`) and nothing about tasks (that is the state machine). Everything runs on one
 * thread; inputs of one turn of the event loop are gathered, then the core's effects are carried out (core.ts).
 * This file is what the layers above see of it; its parts are put together in parts.ts.
 */
import { DEFAULT_LIMITS } from "../raft/options.ts";
import type { Raft } from "../raft/raft.ts";
import { asIndex, type LogIndex, type NodeId, type Term } from "../raft/types.ts";
import type { Handler } from "./calls.ts";
import {
  type Consensus,
  ConsensusError,
  type ConsensusStatus,
  type Leadership,
  type SubmitOptions,
} from "./consensus.ts";
import type { Consistency } from "./consistency.ts";
import { asError, notLeader, stopping } from "./errors.ts";
import { Parts } from "./parts.ts";
import type { Identity, Millis, RecoveredLog } from "./ports.ts";
import { repaired } from "./repair.ts";
import type { ElectionReason, ReplicaCounters, ReplicaOptions } from "./replica-options.ts";
import { diskFaultOf, statusOf } from "./status.ts";
import type { SealHook } from "./writes.ts";

/** What a member's core says of itself. */
export type CoreView = Pick<
  Raft,
  | "term"
  | "vote"
  | "role"
  | "leader"
  | "votes"
  | "commit"
  | "durable"
  | "lastIndex"
  | "lastTerm"
  | "cachedBytes"
  | "configuration"
  | "electionElapsedTicks"
  | "transferTarget"
  | "progress"
  | "termAt"
>;

export class Replica implements Consensus {
  readonly #o: ReplicaOptions;
  readonly #parts: Parts;
  readonly #installListeners: (() => void)[] = [];
  #framesUnsent = 0;

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
    this.#parts = new Parts(options, recovered, {
      call: (method, body, timeoutMs) => this.call(method, body, timeoutMs),
      replaced: () => {
        for (const listener of this.#installListeners) listener();
      },
      unsent: () => {
        this.#framesUnsent += 1;
      },
    });
    const known = recovered.lastIndex > 0 || (recovered.foundations ?? []).length > 0;
    if (known) this.#parts.core.start(recovered);
  }

  get identity(): Identity {
    return this.#parts.identity;
  }

  get id(): NodeId {
    return this.identity.id;
  }

  get boot(): number {
    return this.identity.boot;
  }

  // ------------------------------------------------------------------ start and stop

  /** Starts the connections and the ticks. */
  start(): void {
    const { core, peers, inbox, ticks, founder, admission } = this.#parts;
    admission.remember();
    this.#o.transport.start(() => peers.hello(), {
      connected: (peer, hello) => core.guard(() => peers.connected(peer, hello)),
      disconnected: (peer, reason) => core.guard(() => peers.disconnected(peer, reason)),
      frame: (from, frame, incarnation) => core.guard(() => inbox.frame(from, frame, incarnation)),
      admit: (hello) => peers.admit(hello),
      refused: (peer, refusal, judged) => core.guard(() => peers.refused(peer, refusal, judged)),
    });
    peers.dial();
    ticks.start();
    founder.step();
    core.schedulePump();
  }

  /** Refuses what waits, closes the connections and the log. Hand leadership over before. */
  async stop(): Promise<void> {
    const { core, ticks, peers, founder, admission, sightings, applier, snapshots } = this.#parts;
    if (core.isStopped) return;
    core.stop();
    ticks.stop();
    peers.stop();
    founder.stop();
    admission.stop();
    sightings.keep(this.#o.clock.monotonic(), true);
    this.#parts.writes.failAll(stopping);
    this.#parts.reads.failAll(stopping);
    this.#parts.calls.failAll(stopping);
    this.#parts.waiters.failAll(stopping);
    applier.stop();
    await this.#o.transport.close();
    await snapshots.stop();
    await this.#o.store.close();
  }

  /**
   * An empty folder's way into a running cluster: asks `seed`, the member at the address of `--join`, to be let
   * in. Does nothing on a folder that belongs to a cluster already.
   */
  joinThrough(seed: NodeId): void {
    this.#parts.peers.joinThrough(seed);
  }

  // ------------------------------------------------------------------ Consensus

  submit(command: Uint8Array, options: SubmitOptions): Promise<unknown> {
    const refusal = this.#refusal();
    if (refusal !== null) return Promise.reject(refusal);
    try {
      return this.#parts.writes.submit(command, options);
    } catch (error) {
      return Promise.reject(asError(error));
    }
  }

  linearize(timeoutMs: Millis): Promise<LogIndex> {
    const refusal = this.#refusal();
    if (refusal !== null) return Promise.reject(refusal);
    const { reads, waiters, applier } = this.#parts;
    const { promise, resolve, reject } = Promise.withResolvers<LogIndex>();
    const deadline = this.#o.clock.monotonic() + timeoutMs;
    reads.add({
      deadline,
      reject,
      safe: (index) => {
        if (applier.index >= index) resolve(index);
        else waiters.add({ index, deadline, resolve, reject });
      },
    });
    return promise;
  }

  confirmLeadership(timeoutMs: Millis): Promise<Term> {
    const { standing, reads } = this.#parts;
    const { role, term } = standing.leadership;
    if (role !== "leader") return Promise.reject(notLeader());
    const { promise, resolve, reject } = Promise.withResolvers<Term>();
    reads.add({
      deadline: this.#o.clock.monotonic() + timeoutMs,
      reject,
      safe: () => {
        const now = standing.leadership;
        if (now.role === "leader" && now.term === term) resolve(term);
        else reject(notLeader());
      },
    });
    return promise;
  }

  call(method: string, body: unknown, timeoutMs: Millis, signal?: AbortSignal): Promise<unknown> {
    const { core, admission, writes, calls, standing } = this.#parts;
    if (core.isStopped) return Promise.reject(stopping());
    const { retired } = admission;
    if (retired !== null) return Promise.reject(new ConsensusError("removed", retired));
    // In the order of the calls: a claim must not reach the leader before the end that freed its slot.
    core.guard(() => writes.flush());
    const deadline = this.#o.clock.monotonic() + timeoutMs;
    return calls.ask(method, body, deadline, standing.leadership.leader, signal);
  }

  serve(method: string, handler: Handler): void {
    this.#parts.calls.serve(method, handler);
  }

  notify(to: NodeId, method: string, body: unknown): void {
    this.#parts.calls.notify(to, method, body);
  }

  onSeal(hook: SealHook): void {
    this.#parts.writes.onSeal(hook);
  }

  onLeadership(listener: (leadership: Leadership) => void): void {
    this.#parts.standing.onLeadership(listener);
  }

  logNow(): Millis {
    return this.#parts.standing.logNow();
  }

  transfer(to: NodeId | null, timeoutMs: Millis): Promise<boolean> {
    return this.#parts.handover.transfer(to, timeoutMs);
  }

  /** A sentence once this member's state is known to differ from a majority's (T9): it does not answer any more. */
  condemned(): string | null {
    return this.#parts.consistency.condemned;
  }

  removed(): string | null {
    return this.#parts.admission.retired;
  }

  #refusal(): ConsensusError | null {
    const { core, admission, consistency, quorum } = this.#parts;
    if (core.isStopped) return stopping();
    const { retired } = admission;
    if (retired !== null) return new ConsensusError("removed", retired);
    const { condemned } = consistency;
    if (condemned !== null) return new ConsensusError("inconsistent", condemned);
    return quorum.isLost ? quorum.noQuorum() : null;
  }

  // ------------------------------------------------------------------ state and log on the disk

  /** Applies wait, for the last step of a checkpoint say (S3), until what is returned is called. */
  holdApplies(): () => void {
    return this.#parts.applier.hold();
  }

  /** The log keeps every entry behind this index, for members that fetch a snapshot; null: for nobody. */
  get compactionFloor(): LogIndex | null {
    return this.#parts.snapshots.floor;
  }

  /**
   * Forgets the log up to `index`, in steps, as far as it is applied and no member on its way needs it; the
   * state must hold that much durably (S3). Resolves with the index before the first entry that is kept.
   * @throws Error the disk refuses
   */
  async compact(index: LogIndex): Promise<LogIndex> {
    const { core, applier } = this.#parts;
    const raft = core.raft;
    if (raft === null || core.isHalted || core.isStopped) return raft?.compactedIndex ?? asIndex(0);
    const floor = this.compactionFloor ?? index;
    const to = asIndex(Math.min(index, floor, applier.index));
    const term = raft.termAt(to);
    if (to <= raft.compactedIndex || term === null) return raft.compactedIndex;
    const installs = applier.installs;
    this.#parts.snapshots.compacting(to);
    try {
      await this.#o.store.compact(to, term);
    } catch (error) {
      // A snapshot has replaced that log meanwhile: there is nothing of it to forget.
      if (!core.isHalted && installs === applier.installs) throw error;
    }
    if (installs === applier.installs && !core.isHalted) core.guard(() => raft.compacted(to));
    return raft.compactedIndex;
  }

  /** Gives back what is in memory only to be quick. Costs nothing but later reads, so it is for quiet times. */
  releaseMemory(): void {
    this.#parts.core.raft?.dropCache();
  }

  /** Called after a snapshot has replaced the state, when the machine stands on the new one. */
  onInstall(listener: () => void): void {
    this.#installListeners.push(listener);
  }

  /** This member's disk, or its leader's, has less room than its reserve: what only adds is not to be taken. */
  diskLow(): boolean {
    return this.#parts.room.isLow;
  }

  /** A sentence while this member's log cannot be written. */
  diskFault(): string | null {
    return diskFaultOf(this.#parts);
  }

  // ------------------------------------------------------------------ what operators see

  status(): ConsensusStatus {
    return statusOf(this.#parts, this.#o);
  }

  /** This folder's cluster began with this member alone. */
  get foundedAlone(): boolean {
    const members = this.#parts.founder.record?.members ?? [];
    return members.length === 1 && members[0]?.id === this.id;
  }

  /**
   * By its log this member is the only one of its cluster. Not while that log, found damaged, is repaired: what let the
   * others in may be what it lost, and a member that nobody else repairs does not start.
   */
  get isAlone(): boolean {
    const { raft } = this.#parts.core;
    if (raft === null || raft.repairingTo !== null) return false;
    const members = Object.keys(raft.configuration.members);
    return members.length === 1 && members[0] === this.id;
  }

  /** The core, to look at; null before the founding, and while a snapshot takes the place of state and log. */
  get core(): CoreView | null {
    const { core } = this.#parts;
    return core.isHalted ? null : core.raft;
  }

  /** Elections that this member stood for, by why they began. */
  get elections(): Readonly<Record<ElectionReason, number>> {
    return this.#parts.standing.elections;
  }

  /** Commands that wait here, and entries that are committed and not applied yet. */
  get waiting(): { readonly own: number; readonly proposals: number; readonly applies: number } {
    const { core, applier, writes } = this.#parts;
    const applies = Math.max(0, (core.raft?.commit ?? 0) - applier.index);
    return { ...writes.waiting, applies };
  }

  get counters(): ReplicaCounters {
    const { standing, applier, inbox, writes, snapshots } = this.#parts;
    return {
      ...standing.counters,
      ...applier.counters,
      framesDropped: this.#framesUnsent + inbox.dropped,
      ...writes.counters,
      ...snapshots.counters,
    };
  }

  /** What the consistency check has covered so far. */
  consistencyChecked(): Consistency["checked"] {
    return this.#parts.consistency.checked;
  }

  /** A sentence when this member's wall clock is the odd one out, else null (T1). */
  clockAlarm(): string | null {
    return this.#parts.clockWatch.skewed();
  }
}
