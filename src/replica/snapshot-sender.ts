/**
 * Serves snapshots to members whose log ends before this one begins. Several receivers share one copy of the
 * state; a receiver asks for each chunk, so this side keeps no track of how far it is. While somebody needs
 * the entries behind a copy, the log is not compacted beyond it (S4), up to a limit.
 */
import type { LogIndex, NodeId } from "../raft/types.ts";
import type {
  Clock,
  Log,
  Millis,
  SnapshotCopy,
  SnapshotFrame,
  SnapshotManifest,
  SnapshotStore,
} from "./ports.ts";

/** All receivers together: far more than a disk of a member takes, far less than what would starve heartbeats. */
const BYTES_PER_MS = 64 * 1024;
/** Chunks of one receiver that are being read; its window is smaller, so more are repeats of what is under way. */
const READS_MAX = 8;
/**
 * A chunk is not read before the connection has no more than this to send: heartbeats and entries, which travel on the
 * same one, wait behind so much and one chunk at most, however slow the link is.
 */
export const BEHIND_BYTES_MAX = 256 * 1024;
const BEHIND_LOOK_MS: Millis = 5;
/** Then the receiver has asked again, or is gone. */
const BEHIND_WAIT_MS: Millis = 10_000;
/** A copy that nobody reads stays so long, for a receiver whose connection broke. */
const COPY_IDLE_MS: Millis = 60_000;
/** A receiver that neither reads nor acknowledges entries is given up for so long. */
const HOLD_IDLE_MS: Millis = 60_000;
/** Log kept for receivers. Beyond, the disk of a member that works counts for more than one that does not. */
export const RETAINED_BYTES_MAX = 2 * 1024 * 1024 * 1024;
/** A copy that could not be made, for want of disk most likely, is not tried again before. */
const FAILED_MS: Millis = 10_000;
/** Who was dropped for that is served again when the log has had the time to shrink. */
const DROPPED_MS: Millis = 60_000;
const SWEEP_MS: Millis = 1_000;
const WRONG = "the state of this member is wrong";

export interface SnapshotSenderPort {
  readonly store: SnapshotStore;
  readonly clock: Clock;
  readonly log: Log;
  /** Commits what was applied: the log is kept from that index on, and the copy must not end before it. */
  flush(): void;
  /** Adds what the tables of a copy do not say; null: the log has gone on beyond it. */
  describe(copy: SnapshotCopy): SnapshotManifest | null;
  applied(): LogIndex;
  compacted(): LogIndex;
  /** The state is known to differ from the others' (T9): whoever took it would be wrong as well. */
  isStateWrong(): boolean;
  /**
   * What this peer has, and whether all that it lacks is in memory: then nothing need be held back for it, since
   * the tail that is always kept is longer than that. Null when this member does not lead it.
   */
  progress(peer: NodeId): { readonly match: LogIndex; readonly isNear: boolean } | null;
  /** Of the log, on disk. */
  logBytes(): number;
  send(to: NodeId, frame: SnapshotFrame): boolean;
  /** Bytes that the connection to a peer was given and has not sent yet. */
  waitingBytes(to: NodeId): number;
}

interface Copy {
  readonly manifest: SnapshotManifest;
  usedAt: Millis;
}

interface Hold {
  /** Entries behind it are kept. */
  index: LogIndex;
  match: LogIndex;
  heardAt: Millis;
}

export class SnapshotSender {
  readonly #port: SnapshotSenderPort;
  #copy: Copy | null = null;
  #making = false;
  /** The copy that is being made is of a state that was found wrong meanwhile. */
  #isDisowned = false;
  #failure: { readonly detail: string; readonly until: Millis } | null = null;
  /** Who asked while a copy is being made. At most the members. */
  readonly #askers = new Set<NodeId>();
  readonly #holds = new Map<NodeId, Hold>();
  readonly #reading = new Map<NodeId, Set<number>>();
  /** The newest of the chunks on their way to each receiver. */
  readonly #sending = new Map<NodeId, Promise<void>>();
  /** Who said that it is done with the copy: it has all of it, or would not have it. At most the members. */
  readonly #doneWith = new Set<NodeId>();
  /** Not served before. At most the members. */
  readonly #droppedUntil = new Map<NodeId, Millis>();
  #dropped = 0;
  #nextChunkAt: Millis = 0;
  #nextSweepAt: Millis = 0;
  #sentBytes = 0;

  constructor(port: SnapshotSenderPort) {
    this.#port = port;
  }

  /** Bytes of chunks since the start. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  /** Receivers that were dropped since the start, because the log grew too long meanwhile: an alarm. */
  get dropped(): number {
    return this.#dropped;
  }

  /** The log must keep every entry behind this index; null: nobody needs it. */
  get floor(): LogIndex | null {
    let floor: LogIndex | null = null;
    for (const { index } of this.#holds.values()) {
      if (floor === null || index < floor) floor = index;
    }
    return floor;
  }

  /** The core offers this peer a snapshot: what is behind the state of now is needed until it has caught up. */
  offered(peer: NodeId): void {
    if (this.#isDropped(peer)) return;
    if (!this.#holds.has(peer)) this.#hold(peer, this.#copyFor(null) ?? this.#port.applied());
  }

  frame(from: NodeId, frame: SnapshotFrame): void {
    switch (frame.type) {
      case "open":
        this.#open(from, frame.held);
        return;
      case "read":
        this.#read(from, frame);
        return;
      case "done":
        this.#reading.delete(from);
        if (frame.id === this.#copy?.manifest.id) this.#doneWith.add(from);
        return;
      case "manifest":
      case "chunk":
      case "gone":
        return; // a receiver's
    }
  }

  /** The state was found wrong, and so is every copy of it, also once another state has taken its place. */
  disown(): void {
    this.#isDisowned = this.#making;
    if (this.#copy !== null) this.#dropCopy(this.#copy);
  }

  /** On every tick: lets go of copies and entries that nobody needs any more. */
  sweep(now: Millis): void {
    if (now < this.#nextSweepAt) return;
    this.#nextSweepAt = now + SWEEP_MS;
    if (this.#copy !== null && now - this.#copy.usedAt > COPY_IDLE_MS) this.#dropCopy(this.#copy);
    for (const [peer, until] of this.#droppedUntil) {
      if (now >= until) this.#droppedUntil.delete(peer);
    }
    if (this.#holds.size === 0) return;
    const logBytes = this.#port.logBytes();
    for (const [peer, hold] of this.#holds) {
      const progress = this.#port.progress(peer);
      if (progress === null) {
        this.#holds.delete(peer);
        continue;
      }
      if (this.#making && this.#askers.has(peer)) hold.heardAt = now; // it is this side that takes long
      if (progress.match > hold.match) {
        hold.match = progress.match;
        hold.heardAt = now;
      }
      const installed = progress.match >= hold.index;
      if (installed) hold.index = progress.match;
      if (installed && progress.isNear) {
        this.#holds.delete(peer);
      } else if (logBytes > RETAINED_BYTES_MAX) {
        this.#port.log.error(`${peer} is dropped: the log kept for its snapshot is too long`, {
          bytes: logBytes,
          match: hold.match,
        });
        this.#dropped += 1;
        this.#droppedUntil.set(peer, now + DROPPED_MS);
        this.#giveUp(peer);
      } else if (now - hold.heardAt > HOLD_IDLE_MS) {
        this.#port.log.warn(`${peer} does not fetch its snapshot: nothing is kept for it any more`);
        this.#giveUp(peer);
      }
    }
  }

  #isDropped(peer: NodeId): boolean {
    return this.#port.clock.monotonic() < (this.#droppedUntil.get(peer) ?? 0);
  }

  #giveUp(peer: NodeId): void {
    this.#holds.delete(peer);
    this.#askers.delete(peer);
    this.#port.send(peer, { type: "gone", id: null, detail: "it took too long" });
  }

  #hold(peer: NodeId, index: LogIndex): void {
    const { clock } = this.#port;
    const hold = this.#holds.get(peer);
    if (hold === undefined) {
      const match = this.#port.progress(peer)?.match;
      if (match === undefined) return; // not led by this member: it keeps the log of its own leader
      this.#holds.set(peer, { index, match, heardAt: clock.monotonic() });
      return;
    }
    // Asking again for the same one is no progress: who never fetches it must not hold the log for ever.
    if (hold.index === index) return;
    hold.index = index;
    hold.heardAt = clock.monotonic();
  }

  /** The index of the copy if it is good for a receiver that holds part of `held`. */
  #copyFor(held: string | null): LogIndex | null {
    if (this.#copy === null) return null;
    const { id, index } = this.#copy.manifest;
    // A receiver that holds most of it is served whatever the log: it may be followed by another snapshot.
    return held === id || index >= this.#port.compacted() ? index : null;
  }

  #open(from: NodeId, held: string | null): void {
    if (this.#isDropped(from)) {
      this.#port.send(from, {
        type: "gone",
        id: null,
        detail: "the log has grown too long for it",
      });
      return;
    }
    if (this.#port.isStateWrong()) {
      this.#port.send(from, { type: "gone", id: null, detail: WRONG });
      return;
    }
    const index = this.#copyFor(held);
    if (index !== null && this.#copy !== null && !this.#needsNewer(from, index)) {
      this.#tell(from, this.#copy);
      return;
    }
    const failure = this.#failure;
    if (failure !== null && this.#port.clock.monotonic() < failure.until) {
      this.#port.send(from, { type: "gone", id: null, detail: failure.detail });
      return;
    }
    this.#askers.add(from);
    if (!this.#holds.has(from)) this.#hold(from, this.#port.applied());
    if (!this.#making) void this.#make();
  }

  /**
   * Whose state alone is wrong cannot take the place of it with a copy that its log has gone on beyond: it says that it is
   * done with that, and asks again. Others that read the copy just now begin anew with the next one, once.
   */
  #needsNewer(peer: NodeId, index: LogIndex): boolean {
    const match = this.#port.progress(peer)?.match ?? index - 1;
    return this.#doneWith.has(peer) && match >= index && this.#port.applied() > index;
  }

  #tell(to: NodeId, copy: Copy): void {
    this.#hold(to, copy.manifest.index);
    this.#port.send(to, { type: "manifest", manifest: copy.manifest });
  }

  async #make(): Promise<void> {
    const { clock, log, store } = this.#port;
    this.#making = true;
    const startedAt = clock.monotonic();
    try {
      this.#port.flush();
      const made = await store.create();
      const manifest = this.#isDisowned ? null : this.#port.describe(made);
      if (manifest === null) {
        await store.remove(made.id);
        throw new Error(this.#isDisowned ? WRONG : "the log was compacted beyond it meanwhile");
      }
      if (this.#copy !== null) this.#dropCopy(this.#copy);
      this.#copy = { manifest, usedAt: clock.monotonic() };
      log.info("made a snapshot", {
        index: manifest.index,
        bytes: manifest.bytes,
        ms: Math.round(clock.monotonic() - startedAt),
        for: [...this.#askers],
      });
      for (const asker of this.#askers) this.#tell(asker, this.#copy);
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error);
      log.error("a snapshot cannot be made", { error: detail });
      this.#failure = { detail, until: clock.monotonic() + FAILED_MS };
      for (const asker of this.#askers) this.#port.send(asker, { type: "gone", id: null, detail });
    } finally {
      this.#askers.clear();
      this.#making = false;
      this.#isDisowned = false;
    }
  }

  #dropCopy(copy: Copy): void {
    this.#copy = null;
    this.#doneWith.clear();
    this.#port.store.remove(copy.manifest.id).catch((error: unknown) => {
      this.#port.log.warn("a snapshot cannot be removed", { error: String(error) });
    });
  }

  #read(from: NodeId, frame: Extract<SnapshotFrame, { type: "read" }>): void {
    const { clock } = this.#port;
    const { id, offset, bytes } = frame;
    const copy = this.#copy;
    if (copy?.manifest.id !== id) {
      this.#port.send(from, { type: "gone", id, detail: "there is no such snapshot any more" });
      return;
    }
    const reading = this.#reading.get(from) ?? new Set();
    // One that is on its way comes once; what is too much is asked for again when it does not come.
    if (reading.size >= READS_MAX || reading.has(offset)) return;
    this.#reading.set(from, reading.add(offset));
    const now = clock.monotonic();
    copy.usedAt = now;
    const hold = this.#holds.get(from);
    if (hold !== undefined) hold.heardAt = now;
    const at = Math.max(now, this.#nextChunkAt);
    this.#nextChunkAt = at + bytes / BYTES_PER_MS;
    if (at - now < 1) this.#inTurn(from, id, offset, bytes);
    else clock.after(at - now, () => this.#inTurn(from, id, offset, bytes));
  }

  /** One after the other: two that found room at once would be twice as much before a heartbeat. */
  #inTurn(to: NodeId, id: string, offset: number, bytes: number): void {
    const before = this.#sending.get(to);
    const send = (): Promise<void> => this.#sendChunk(to, id, offset, bytes);
    const sending = before === undefined ? send() : before.then(send);
    this.#sending.set(to, sending);
    void sending.then(() => {
      if (this.#sending.get(to) === sending) this.#sending.delete(to);
    });
  }

  async #sendChunk(to: NodeId, id: string, offset: number, bytes: number): Promise<void> {
    const reading = this.#reading.get(to);
    try {
      if (!(await this.#hasRoom(to))) return;
      const { data, crc } = await this.#port.store.read(id, offset, bytes);
      if (this.#port.send(to, { type: "chunk", id, offset, crc, data }))
        this.#sentBytes += data.length;
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error);
      this.#port.send(to, { type: "gone", id, detail });
    } finally {
      reading?.delete(offset);
      if (reading?.size === 0 && this.#reading.get(to) === reading) this.#reading.delete(to);
    }
  }

  /** Waits until few bytes are before the next chunk. False: it took too long. */
  async #hasRoom(to: NodeId): Promise<boolean> {
    const { clock } = this.#port;
    const until = clock.monotonic() + BEHIND_WAIT_MS;
    while (this.#port.waitingBytes(to) > BEHIND_BYTES_MAX) {
      if (clock.monotonic() >= until) return false;
      await new Promise<void>((resolve) => void clock.after(BEHIND_LOOK_MS, resolve));
    }
    return true;
  }
}
