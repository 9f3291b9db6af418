/**
 * Writes, at both ends: this member's own commands on their way to the leader, and, while it leads, everybody's
 * commands on their way into entries. A command is answered when the entry that holds it is applied.
 */
import type { Raft } from "../raft/raft.ts";
import { asIndex, type Configuration, type LogIndex, type NodeId } from "../raft/types.ts";
import { Batcher, type QueuedRequest } from "./batcher.ts";
import {
  ConsensusError,
  type Leadership,
  type SealedRequest,
  type SubmitOptions,
} from "./consensus.ts";
import { encodeEnvelope } from "./envelope.ts";
import { notLeader } from "./errors.ts";
import { type PendingCommand, PendingCommands } from "./pending.ts";
import type {
  Clock,
  ForwardedProposal,
  Millis,
  PeerFrame,
  ProposalRefusal,
  Random,
  RequestAnswer,
} from "./ports.ts";

/** A forwarded command without an answer is sent again after this long; the leader drops repeats. */
const RESEND_MS: Millis = 1_000;
/** Bytes of commands in one `propose` frame, but for a single one that is larger. */
const FORWARD_BYTES_MAX = 8 * 1024 * 1024;
/** Bytes of one command: twice the API's largest body, and the defaults of a thousand tasks. */
export const COMMAND_BYTES_MAX = 18 * 1024 * 1024;
/** A batch is made into an entry only where one of this size would be taken: what is refused was encoded in vain. */
const ENTRY_BYTES = 8 * 1024 * 1024;
/** Bytes that the layer above may add to one entry behind its batch; beyond it, it submits. */
const ADDED_BYTES_MAX = 1024 * 1024;
/** What the leader itself adds to a batch waits this long for its answer; nobody else waits for it. */
const ADDED_TIMEOUT_MS: Millis = 2_000;

/** Adds commands to the entry that is about to be made; see `Consensus.onSeal`. */
export type SealHook = (
  batch: readonly SealedRequest[],
  index: LogIndex,
  add: (command: Uint8Array) => Promise<unknown>,
) => void;

/** What writes need of the replica around them. */
export interface WritesPort {
  readonly self: NodeId;
  readonly boot: number;
  readonly clock: Clock;
  readonly random: Random;
  leadership(): Leadership;
  applied(): LogIndex;
  logNow(): Millis;
  diskFull(): boolean;
  send(to: NodeId, frame: PeerFrame): boolean;
  /** Runs what may break an invariant; a violation stops the member. */
  guard(run: () => void): void;
  schedulePump(): void;
  readonly observer: ReplicaObserver | null;
}

/** Told of what happens at this member as a leader, for metrics. */
export interface ReplicaObserver {
  entrySealed(commands: number): void;
  /** From being made to being applied here. */
  entryApplied(ms: Millis): void;
}

export class Writes {
  readonly #port: WritesPort;
  readonly #pending = new PendingCommands();
  readonly #batcher = new Batcher();
  readonly counters = { entriesSealed: 0, commandsSealed: 0, commandsForwarded: 0 };
  #sealHook: SealHook | null = null;
  /** Indexes sealed by this leadership and not applied yet. */
  #inFlight: { readonly index: LogIndex; readonly at: Millis }[] = [];
  #outbox: PendingCommand[] = [];
  #flushScheduled = false;
  /** Of its members' commands the newest entry was made. */
  #sealedUnder: Configuration | null = null;

  constructor(port: WritesPort) {
    this.#port = port;
  }

  onSeal(hook: SealHook): void {
    this.#sealHook = hook;
  }

  // ------------------------------------------------------------------ own commands

  /** @throws ConsensusError overloaded, low-disk; rejects with not-leader too, where only this leadership would do */
  submit(bytes: Uint8Array, options: SubmitOptions): Promise<unknown> {
    if (this.#port.diskFull()) throw lowDisk();
    // Logged, it would fit no frame, and nothing behind it could ever be replicated.
    if (bytes.length > COMMAND_BYTES_MAX)
      throw new Error(`a command of ${bytes.length} bytes is larger than an entry may be`);
    const { timeoutMs, hint = null, weight = 1 } = options;
    const { awaitedElsewhere = false, thisLeadership = false } = options;
    const deadline = this.#port.clock.monotonic() + timeoutMs;
    const { command, answer } = this.#pending.add(bytes, hint, weight, deadline, {
      awaitedElsewhere,
      onlyIn: thisLeadership ? this.#port.leadership().term : null,
    });
    this.#outbox.push(command);
    // The leader's own commands meet those of the others in this turn's entry; nothing is sent for them.
    if (this.#port.leadership().leader === this.#port.self) this.flush();
    else this.#scheduleFlush();
    return answer;
  }

  /** There is a leader to talk to: everything that it was not given yet. */
  toLeader(leader: NodeId): void {
    this.#outbox = [...this.#pending.values()].filter((command) => command.sentTo !== leader);
    this.#scheduleFlush();
  }

  /** A connection broke: what was handed over on it may be lost. */
  disconnected(peer: NodeId): void {
    for (const command of this.#pending.values()) {
      if (command.sentTo === peer) command.sentTo = null;
    }
  }

  /** A snapshot was installed: what it holds of this member's commands has no answer yet, and is asked again. */
  unseen(): void {
    for (const command of this.#pending.values()) command.sentTo = null;
  }

  /**
   * What was applied is answered, whoever asked. `foreign`: so many of them, the first ones, answer nobody in this
   * process (Admission.memberSince).
   */
  answered(answers: readonly RequestAnswer[], foreign: number): void {
    const { self, boot: ownBoot } = this.#port;
    this.#forgetApplied();
    for (const [i, { member, boot, seq, answer }] of answers.entries()) {
      this.#batcher.applied(member, boot, seq);
      if (member === self && boot === ownBoot && i >= foreign) this.#pending.answered(seq, answer);
    }
  }

  refused(from: NodeId, refusal: ProposalRefusal): void {
    if (refusal.boot !== this.#port.boot) return;
    for (const seq of refusal.seqs) {
      const command = this.#pending.get(seq);
      if (command === undefined || command.sentTo !== from) continue;
      command.exposures = Math.max(0, command.exposures - 1);
      command.sentTo = null;
      if (refusal.code === "overloaded") this.#pending.fail(command, overloaded());
      if (refusal.code === "low-disk") this.#pending.fail(command, lowDisk());
    }
  }

  /** Called regularly: gives up what is too late (everything, when `lost`), and hands over again what got lost. */
  sweep(now: Millis, lost: (() => ConsensusError) | null, late: () => ConsensusError): void {
    const { leader } = this.#port.leadership();
    for (const command of this.#pending.values()) {
      if (lost !== null) this.#pending.fail(command, lost());
      else if (command.deadline <= now) this.#pending.fail(command, late());
      else if (leader !== null && this.#isLost(command, leader, now)) this.#resend(command);
    }
  }

  failAll(error: () => ConsensusError): void {
    for (const command of this.#pending.values()) this.#pending.fail(command, error());
  }

  #isLost({ sentTo, sentAt }: PendingCommand, leader: NodeId, now: Millis): boolean {
    return sentTo === null || (leader !== this.#port.self && now - sentAt >= RESEND_MS);
  }

  #resend(command: PendingCommand): void {
    command.sentTo = null;
    this.#outbox.push(command);
    this.#scheduleFlush();
  }

  #scheduleFlush(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    this.#port.clock.soon(() => {
      this.#flushScheduled = false;
      this.#port.guard(() => this.flush());
    });
  }

  /** Hands what waits to the leader, which may be this member. What finds no leader waits for the next one. */
  flush(): void {
    if (this.#outbox.length === 0) return;
    const { leader } = this.#port.leadership();
    const outbox = this.#outbox.filter((command) => this.#mayGo(command));
    this.#outbox = [];
    if (leader === null) return;
    if (leader === this.#port.self) this.#queueOwn(outbox);
    else this.#forward(leader, outbox);
  }

  /** False: only one leadership might log it, and that is over, or has done so. */
  #mayGo(command: PendingCommand): boolean {
    const { role, term } = this.#port.leadership();
    if (command.onlyIn === null) return true;
    if (role === "leader" && term === command.onlyIn && command.exposures === 0) return true;
    this.#pending.fail(command, notLeader());
    return false;
  }

  #queueOwn(commands: readonly PendingCommand[]): void {
    const now = this.#port.clock.monotonic();
    this.#batcher.acked(this.#port.self, this.#port.boot, this.#pending.ackedBelow());
    for (const command of commands) {
      if (this.#pending.get(command.seq) === undefined) continue;
      const { seq, bytes, hint, weight, awaitedElsewhere } = command;
      if (
        !this.#batcher.add({
          member: this.#port.self,
          boot: this.#port.boot,
          seq,
          command: bytes,
          hint,
          weight,
          awaitedElsewhere,
        })
      ) {
        this.#pending.fail(command, overloaded());
        continue;
      }
      command.sentTo = this.#port.self;
      command.sentAt = now;
      command.exposures += 1;
    }
    this.#port.schedulePump();
  }

  #forward(leader: NodeId, commands: readonly PendingCommand[]): void {
    const now = this.#port.clock.monotonic();
    let chunk: PendingCommand[] = [];
    let size = 0;
    const send = (): void => {
      if (chunk.length === 0) return;
      const requests = chunk.map(({ seq, bytes: command, hint, weight }) => ({
        seq,
        command,
        hint: { weight, hint },
      }));
      const proposal: ForwardedProposal = {
        boot: this.#port.boot,
        acked: this.#pending.ackedBelow(),
        requests,
      };
      const sent = this.#port.send(leader, { kind: "propose", proposal });
      for (const command of chunk) {
        command.sentTo = sent ? leader : null;
        command.sentAt = now;
        if (sent) command.exposures += 1;
      }
      this.counters.commandsForwarded += sent ? chunk.length : 0;
      chunk = [];
      size = 0;
    };
    for (const command of commands) {
      if (this.#pending.get(command.seq) === undefined) continue;
      if (size + command.bytes.length > FORWARD_BYTES_MAX) send();
      chunk.push(command);
      size += command.bytes.length;
    }
    send();
  }

  // ------------------------------------------------------------------ the leader

  /** A member forwards its commands. A forwarded command is never forwarded again: `not-leader` says so. */
  proposed(from: NodeId, proposal: ForwardedProposal): void {
    const { boot } = proposal;
    if (this.#port.leadership().role !== "leader") {
      this.#refuse(from, boot, seqsOf(proposal), "not-leader");
      return;
    }
    if (this.#port.diskFull()) {
      this.#refuse(from, boot, seqsOf(proposal), "low-disk");
      return;
    }
    this.#batcher.acked(from, boot, proposal.acked);
    const full: number[] = [];
    for (const { seq, command, hint } of proposal.requests) {
      const { weight, hint: inner } = hint as { weight: number; hint: unknown };
      const request = { member: from, boot, seq, command, weight, hint: inner };
      if (!this.#batcher.add({ ...request, awaitedElsewhere: false })) full.push(seq);
    }
    if (full.length > 0) {
      this.#refuse(from, boot, full, "overloaded");
    }
    this.#port.schedulePump();
  }

  /** Makes entries of what waits. Only once this leader has applied its term's first entry: log time is known then. */
  seal(raft: Raft): void {
    if (!this.#port.leadership().active || raft.role !== "leader" || raft.transferTarget !== null)
      return;
    if (!this.#keepMembers(raft.configuration)) return;
    this.#forgetApplied();
    while (this.#batcher.maySeal(this.#inFlight.length) && raft.hasRoomFor(ENTRY_BYTES)) {
      const batch = this.#batcher.take();
      if (batch.length === 0) return;
      const requests = this.#withAdditions(batch, asIndex(raft.lastIndex + 1));
      const data = encodeEnvelope(
        this.#port.logNow(),
        this.#port.random.uint32(),
        this.#batcher.takeAcks(),
        requests,
      );
      const result = raft.propose([{ kind: "command", data }]);
      if (!result.ok) {
        this.#giveBack(requests);
        return;
      }
      this.#inFlight.push({ index: result.last, at: this.#port.clock.monotonic() });
      this.#awaits(raft, requests, result.last);
      this.#port.observer?.entrySealed(requests.length);
      this.counters.entriesSealed += 1;
      this.counters.commandsSealed += requests.length;
    }
  }

  /**
   * Behind the removal of a member nothing of it is logged: its id may come back with another folder, which counts its
   * commands from one again. False: this member was removed itself, the next leader makes these entries.
   */
  #keepMembers(configuration: Configuration): boolean {
    if (configuration !== this.#sealedUnder) {
      this.#sealedUnder = configuration;
      this.#batcher.keepOnly((member) => configuration.members[member] !== undefined);
    }
    return configuration.members[this.#port.self] !== undefined;
  }

  /** Who asked answers its clients when it has applied them. */
  #awaits(raft: Raft, requests: readonly QueuedRequest[], index: LogIndex): void {
    for (const { member, awaitedElsewhere } of requests) {
      if (awaitedElsewhere) {
        raft.awaitsCommit(null, index);
        return;
      }
      if (member !== this.#port.self) raft.awaitsCommit(member, index);
    }
  }

  #forgetApplied(): void {
    const applied = this.#port.applied();
    for (;;) {
      const oldest = this.#inFlight[0];
      if (oldest === undefined || oldest.index > applied) return;
      this.#inFlight.shift();
      this.#port.observer?.entryApplied(this.#port.clock.monotonic() - oldest.at);
    }
  }

  /** Commands that wait: own ones for their answers, and at a leader everybody's for an entry. */
  get waiting(): { readonly own: number; readonly proposals: number } {
    return { own: this.#pending.size, proposals: this.#batcher.length };
  }

  /** Leadership is over. What is in the log may still commit; what is not goes back to who asked. */
  steppedDown(): void {
    this.#inFlight = [];
    this.#giveBack(this.#batcher.clear());
    this.disconnected(this.#port.self);
  }

  /** Lets the layer above add to the entry, behind the batch (T5). */
  #withAdditions(batch: readonly QueuedRequest[], index: LogIndex): readonly QueuedRequest[] {
    if (this.#sealHook === null) return batch;
    const added: QueuedRequest[] = [];
    const deadline = this.#port.clock.monotonic() + ADDED_TIMEOUT_MS;
    let room = ADDED_BYTES_MAX;
    this.#sealHook(batch, index, (bytes) => {
      if (bytes.length > room) return Promise.reject(overloaded());
      let pending: ReturnType<PendingCommands["add"]>;
      try {
        pending = this.#pending.add(bytes, null, 1, deadline, { added: true });
      } catch (error) {
        // The hook runs in the middle of sealing: being full is the caller's news, not this member's end.
        return Promise.reject(error instanceof Error ? error : new Error(String(error)));
      }
      room -= bytes.length;
      const { command, answer } = pending;
      command.sentTo = this.#port.self;
      command.sentAt = this.#port.clock.monotonic();
      command.exposures = 1;
      added.push({
        member: this.#port.self,
        boot: this.#port.boot,
        seq: command.seq,
        command: bytes,
        weight: 1,
        hint: null,
        awaitedElsewhere: true,
      });
      return answer;
    });
    return added.length === 0 ? batch : [...batch, ...added];
  }

  /** Leadership ended before these were logged: their members may hand them to the next leader. */
  #giveBack(requests: readonly QueuedRequest[]): void {
    const unlogged = new Map<NodeId, { boot: number; seqs: number[] }>();
    for (const { member, boot, seq } of requests) {
      if (member === this.#port.self) {
        const command = this.#pending.get(seq);
        if (command === undefined) continue;
        command.exposures = Math.max(0, command.exposures - 1);
        command.sentTo = null;
        continue;
      }
      const known = unlogged.get(member) ?? { boot, seqs: [] };
      known.seqs.push(seq);
      unlogged.set(member, known);
    }
    for (const [member, { boot, seqs }] of unlogged) {
      this.#refuse(member, boot, seqs, "not-leader");
    }
  }

  #refuse(to: NodeId, boot: number, seqs: readonly number[], code: ProposalRefusal["code"]): void {
    const { leader } = this.#port.leadership();
    this.#port.send(to, { kind: "refuse", refusal: { boot, seqs, code, leader } });
  }
}

function seqsOf({ requests }: ForwardedProposal): number[] {
  return requests.map(({ seq }) => seq);
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
