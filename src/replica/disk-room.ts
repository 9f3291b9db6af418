/** Room on the disk: this member's own, for its log and its state, and what it heard of the leader's. */
import type { NodeId } from "../raft/types.ts";
import { ConsensusError } from "./consensus.ts";
import { isNoRoom, type Clock, type Log, type Millis } from "./ports.ts";

/** Between two tries to write the state to a full disk. */
const ROOM_RETRY_MS: Millis = 1_000;

/** Room that is found at the second try is worth waiting for; beyond that, a read is told. */
const READ_WAITS_MS: Millis = 1_500;

/** What it needs of the replica around it. */
export interface DiskRoomPort {
  readonly clock: Clock;
  readonly log: Log;
  /** The disk is almost full; absent: it never is. */
  readonly full: (() => boolean) | undefined;
  /** It has less than its reserve; absent: it never has. */
  readonly low: (() => boolean) | undefined;
  /** A write of the log waits for room. */
  logWaits(): boolean;
  leader(): NodeId | null;
  /** The state is as of its newest commit again. */
  wentBack(): void;
  /** It came again: who waits for it looks again, as after an install. */
  restored(): void;
}

export class DiskRoom {
  readonly #port: DiskRoomPort;
  /** Who said a moment ago that its disk is full. */
  readonly #full = new Set<NodeId>();
  /** Who said that it has less room than its reserve. */
  readonly #low = new Set<NodeId>();
  /** When the state found no room on the disk last; null while it has some. */
  #fullSince: Millis | null = null;
  /** When that began. */
  #fullFrom: Millis | null = null;
  #appliedSinceFull = false;

  constructor(port: DiskRoomPort) {
    this.#port = port;
  }

  // ------------------------------------------------------------------ this member's

  /** Nothing can be written here. */
  get isFull(): boolean {
    return this.isStuck || (this.#port.full?.() ?? false);
  }

  /** A write found no room, of the log or of the state, and waits for it. */
  get isStuck(): boolean {
    return this.#fullSince !== null || this.#port.logWaits();
  }

  /** This member's disk, or its leader's, has less room than its reserve: what only adds is not to be taken. */
  get isLow(): boolean {
    if (this.isFull || this.#port.low?.() === true) return true;
    const leader = this.#port.leader();
    return leader !== null && this.#low.has(leader);
  }

  /** For the others' {@link heard}; null: there is enough. */
  get word(): "full" | "low" | null {
    return this.isFull ? "full" : this.#port.low?.() === true ? "low" : null;
  }

  // ------------------------------------------------------------------ the state's

  /** While the disk is full nothing is applied: it is tried again once there may be room. */
  get mayApply(): boolean {
    if (this.#fullSince === null) return true;
    const waited = this.#port.clock.monotonic() - this.#fullSince;
    return waited >= ROOM_RETRY_MS && !(this.#port.full?.() ?? false);
  }

  /** What a read is told that waited in vain for this member to apply what it must show; null: there is room. */
  refusedRead(): ConsensusError | null {
    if (this.#fullSince === null) return null;
    return new ConsensusError(
      "low-disk",
      "the disk of this member is full: it shows nothing newer until there is room; ask another member",
    );
  }

  /** No read waits here any more for what must be applied first: nobody knows how long that takes. */
  mayNotWait(now: Millis): boolean {
    return this.#fullFrom !== null && now - this.#fullFrom >= READ_WAITS_MS;
  }

  applied(): void {
    this.#appliedSinceFull = true;
  }

  /** A write of the state failed. @throws the error, if it is another one */
  failed(error: unknown): void {
    if (!isNoRoom(error)) throw error;
    if (this.#fullSince === null)
      this.#port.log.error("the disk is full: nothing is applied until there is room");
    this.#fullSince = this.#port.clock.monotonic();
    this.#fullFrom ??= this.#fullSince;
    this.#appliedSinceFull = false;
    this.#port.wentBack();
  }

  /** What was applied since then is committed: not before is it known that there is room. */
  committed(): void {
    if (this.#fullSince === null || !this.#appliedSinceFull) return;
    this.#fullSince = null;
    this.#fullFrom = null;
    this.#port.log.info("there is room on the disk again");
    this.#port.restored();
  }

  // ------------------------------------------------------------------ the others'

  /** Nobody to hand leadership to. */
  get fullMembers(): ReadonlySet<NodeId> {
    return this.#full;
  }

  /** A member's {@link word}. */
  heard(from: NodeId, word: unknown): void {
    if (word === "full") this.#full.add(from);
    else this.#full.delete(from);
    if (word === "full" || word === "low") this.#low.add(from);
    else this.#low.delete(from);
  }

  forget(peer: NodeId): void {
    this.#full.delete(peer);
    this.#low.delete(peer);
  }
}
