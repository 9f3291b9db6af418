/**
 * The leader's side of a write: gathers commands of all members, and seals them into entries. What waits
 * in one turn of the event loop becomes one entry; while several entries are on their way, what comes
 * waits for the next one, so that batches grow with the load and nothing is held back without it.
 */
import type { NodeId } from "../raft/types.ts";
import type { SealedRequest } from "./consensus.ts";
import { type Ack, ENVELOPE_BYTES_PER_REQUEST, type SealableRequest } from "./envelope.ts";

/** Rows one entry may touch (T3); a larger single command is the proposer's fault and goes alone. */
const ENTRY_WEIGHT_MAX = 2_000;
/** An entry is applied, and answered, without a tick: twice as many commands took a quarter of a second on a busy machine. */
const ENTRY_COMMANDS_MAX = 1_000;
/** Bytes of commands in one entry, but for a single command that is larger: 8 MiB less the envelope. */
const ENTRY_BYTES_MAX = 8 * 1024 * 1024 - 256 * 1024;
/** Entries sealed by this leader and not applied yet: enough to hide a disk's round, few enough to batch. */
export const ENTRIES_IN_FLIGHT_MAX = 4;
/** While as many commands wait as one may hold: it would not grow by waiting. */
export const FULL_ENTRIES_IN_FLIGHT_MAX = 8;
/** Commands of all members that wait to be sealed: all that three members, or not quite half of seven, may have unanswered. */
const QUEUED_MAX = 49_152;

export interface QueuedRequest extends SealableRequest, SealedRequest {
  readonly weight: number;
  /** See SubmitOptions. */
  readonly awaitedElsewhere: boolean;
}

export class Batcher {
  #queue: QueuedRequest[] = [];
  #queuedBytes = 0;
  /** Sequences that are queued here or in an entry not applied yet: a repeat of one is dropped. */
  readonly #known = new Map<NodeId, { boot: number; seqs: Set<number> }>();
  readonly #acked = new Map<NodeId, { boot: number; below: number; logged: boolean }>();

  get length(): number {
    return this.#queue.length;
  }

  /** Whether one more entry may be sealed while so many are on their way. */
  maySeal(inFlight: number): boolean {
    if (inFlight < ENTRIES_IN_FLIGHT_MAX) return true;
    return inFlight < FULL_ENTRIES_IN_FLIGHT_MAX && this.#queue.length >= ENTRY_COMMANDS_MAX;
  }

  /** False: no room. A repeat of what is on its way is accepted and dropped. */
  add(request: QueuedRequest): boolean {
    let known = this.#known.get(request.member);
    if (known === undefined || known.boot < request.boot) {
      known = { boot: request.boot, seqs: new Set() };
      this.#known.set(request.member, known);
    }
    if (known.boot > request.boot || known.seqs.has(request.seq)) return true;
    if (this.#queue.length >= QUEUED_MAX || this.#queuedBytes > 4 * ENTRY_BYTES_MAX) return false;
    known.seqs.add(request.seq);
    this.#queue.push(request);
    this.#queuedBytes += request.command.length;
    return true;
  }

  /** A member says that every answer below `below` has reached it. */
  acked(member: NodeId, boot: number, below: number): void {
    const known = this.#acked.get(member);
    if (known !== undefined && (known.boot > boot || (known.boot === boot && known.below >= below)))
      return;
    this.#acked.set(member, { boot, below, logged: false });
  }

  applied(member: NodeId, boot: number, seq: number): void {
    const known = this.#known.get(member);
    if (known?.boot === boot) known.seqs.delete(seq);
  }

  /** The next entry's requests, within its budget; empty when nothing waits. */
  take(): QueuedRequest[] {
    let weight = 0;
    let bytes = 0;
    let count = 0;
    for (const request of this.#queue) {
      weight += request.weight;
      bytes += request.command.length + ENVELOPE_BYTES_PER_REQUEST;
      if (count > 0 && (weight > ENTRY_WEIGHT_MAX || bytes > ENTRY_BYTES_MAX)) break;
      if (count === ENTRY_COMMANDS_MAX) break;
      count += 1;
    }
    const taken = this.#queue.splice(0, count);
    for (const request of taken) this.#queuedBytes -= request.command.length;
    return taken;
  }

  /** Watermarks that changed since they were logged last. */
  takeAcks(): Ack[] {
    const acks: Ack[] = [];
    for (const [member, ack] of this.#acked) {
      if (ack.logged) continue;
      ack.logged = true;
      acks.push({ member, boot: ack.boot, below: ack.below });
    }
    return acks;
  }

  /** What others asked for and is not in the log yet must not be logged after they went. */
  keepOnly(isMember: (id: NodeId) => boolean): void {
    this.#queue = this.#queue.filter(({ member, command }) => {
      if (isMember(member)) return true;
      this.#queuedBytes -= command.length;
      return false;
    });
    for (const member of this.#known.keys()) if (!isMember(member)) this.#known.delete(member);
    for (const member of this.#acked.keys()) if (!isMember(member)) this.#acked.delete(member);
  }

  /** Leadership is over: what waits is given back, to be refused; what is in the log may still commit. */
  clear(): QueuedRequest[] {
    const left = this.#queue;
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#known.clear();
    this.#acked.clear();
    return left;
  }
}
