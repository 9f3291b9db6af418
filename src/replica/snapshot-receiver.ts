/**
 * Fetches the snapshot that a leader offers and hands it on to be installed. It asks for chunks, a few at a
 * time; what it holds is remembered by the snapshot's identity, so a broken connection costs what was under
 * way and no more. One snapshot at a time: while one comes in, newer offers are not needed.
 *
 *     idle → opening (asked for a manifest) → receiving (chunks) → finishing (verify, install) → idle
 */
import type { LogIndex, NodeId, Term } from "../raft/types.ts";
import {
  type Clock,
  FatalError,
  type Log,
  type Millis,
  type SnapshotFrame,
  type SnapshotManifest,
  type SnapshotStore,
} from "./ports.ts";

/**
 * Chunks grow while they come back quickly and shrink while they do not: on the same connection travel the
 * heartbeats, which wait behind what is under way. Never below 128 KiB under way, an eighth of a second at
 * 1 MiB/s: what comes back late may also be late because of a busy processor, and less would not help then.
 */
const CHUNK_BYTES_MIN = 64 * 1024;
const CHUNK_BYTES_MAX = 256 * 1024;
const WINDOW_MIN = 2;
const WINDOW_MAX = 4;
const QUICK_MS: Millis = 40;
const SLOW_MS: Millis = 150;
/** A chunk that has not come by then is asked for again; doubled with each try up to the second value. */
const CHUNK_TIMEOUT_MS: Millis = 1_000;
const CHUNK_TIMEOUT_MAX_MS: Millis = 8_000;
/** Making a copy of a large state takes a while; until then the question is repeated now and then. */
const ASK_AGAIN_MS: Millis = 2_000;
const OPEN_MAX_MS: Millis = 120_000;
/** Without a new byte for so long: the next offer, of whoever leads then, begins anew (what is held stays). */
const STALLED_MS: Millis = 5_000;
const GIVE_UP_MS: Millis = 30_000;
/** After something went wrong, offers are not taken up for so long. */
const BACKOFF_MS: Millis = 500;

export interface SnapshotReceiverPort {
  readonly store: SnapshotStore;
  readonly clock: Clock;
  readonly log: Log;
  /** False: the own log holds that entry by now, or is committed beyond it. */
  wanted(at: { readonly index: LogIndex; readonly term: Term }): boolean;
  /** It was offered and is not wanted: the leader does not know how far this log is. */
  notWanted(manifest: SnapshotManifest): void;
  /** Puts it in place of state and log. @throws FatalError when this process must end */
  install(manifest: SnapshotManifest): Promise<void>;
  fatal(error: FatalError): void;
  send(to: NodeId, frame: SnapshotFrame): boolean;
}

interface Asked {
  readonly bytes: number;
  at: Millis;
  tries: number;
  /** It has come and is being written. */
  writing: boolean;
}

export class SnapshotReceiver {
  readonly #port: SnapshotReceiverPort;
  #phase: "idle" | "opening" | "receiving" | "finishing" = "idle";
  #source: NodeId | null = null;
  /** What is held in part; stays when the transfer stalls. */
  #manifest: SnapshotManifest | null = null;
  /** Everything before it was asked for. */
  #next = 0;
  /** Asked for and not written yet, by offset. At most the window. */
  readonly #asked = new Map<number, Asked>();
  #writtenBytes = 0;
  #chunkBytes = CHUNK_BYTES_MIN;
  #window = WINDOW_MIN;
  #openedAt: Millis = 0;
  #askedAt: Millis = 0;
  #progressAt: Millis = 0;
  #startedAt: Millis = 0;
  #notBefore: Millis = 0;
  #installed = 0;

  constructor(port: SnapshotReceiverPort) {
    this.#port = port;
  }

  /** How many were installed since the start. */
  get installed(): number {
    return this.#installed;
  }

  /** For people: what is coming in, or null. */
  get receiving(): { readonly from: NodeId; readonly bytes: number; readonly of: number } | null {
    if (this.#phase === "idle" || this.#source === null || this.#manifest === null) return null;
    return { from: this.#source, bytes: this.#writtenBytes, of: this.#manifest.bytes };
  }

  /** A leader offers one that is ahead of this log. Repeated by it until one is installed. */
  offered(from: NodeId): void {
    const now = this.#port.clock.monotonic();
    if (now < this.#notBefore) return;
    switch (this.#phase) {
      case "idle":
        this.#open(from, now);
        return;
      case "opening":
        if (from !== this.#source) this.#open(from, now);
        return;
      case "receiving":
        // The one it comes from may have been deposed and serve on; it may also be gone.
        if (from !== this.#source && now - this.#progressAt > STALLED_MS) this.#open(from, now);
        return;
      case "finishing":
        return;
    }
  }

  frame(from: NodeId, frame: SnapshotFrame): void {
    if (from !== this.#source) return;
    switch (frame.type) {
      case "manifest":
        if (this.#phase === "opening") this.#begin(from, frame.manifest);
        return;
      case "chunk":
        if (this.#phase === "receiving") this.#take(frame);
        return;
      case "gone":
        this.#gone(frame);
        return;
      case "open":
      case "read":
      case "done":
        return; // a sender's
    }
  }

  /** The connection to `peer` is back: what was under way on the old one is lost. */
  connected(peer: NodeId): void {
    if (peer !== this.#source) return;
    const now = this.#port.clock.monotonic();
    if (this.#phase === "opening") this.#ask(now);
    if (this.#phase !== "receiving") return;
    for (const [offset, asked] of this.#asked) {
      if (!asked.writing) this.#request(offset, asked, now);
    }
  }

  /** On every tick. */
  sweep(now: Millis): void {
    switch (this.#phase) {
      case "idle":
      case "finishing":
        return;
      case "opening":
        if (now - this.#openedAt > OPEN_MAX_MS) this.#rest(now);
        else if (now - this.#askedAt > ASK_AGAIN_MS) this.#ask(now);
        return;
      case "receiving":
        if (now - this.#progressAt > GIVE_UP_MS) {
          this.#port.log.warn(`no more of the snapshot comes from ${this.#source}`);
          this.#rest(now);
          return;
        }
        for (const [offset, asked] of this.#asked) {
          const patience = Math.min(CHUNK_TIMEOUT_MAX_MS, CHUNK_TIMEOUT_MS * 2 ** asked.tries);
          if (asked.writing || now - asked.at < patience) continue;
          this.#slowDown();
          asked.tries += 1;
          this.#request(offset, asked, now);
        }
        return;
    }
  }

  #open(from: NodeId, now: Millis): void {
    this.#phase = "opening";
    this.#source = from;
    this.#openedAt = now;
    this.#ask(now);
  }

  #ask(now: Millis): void {
    this.#askedAt = now;
    if (this.#source === null) return;
    this.#port.send(this.#source, { type: "open", held: this.#manifest?.id ?? null });
  }

  /** Waits for the next offer. What is held stays, for a source that still has the same one. */
  #rest(now: Millis): void {
    this.#phase = "idle";
    this.#source = null;
    this.#notBefore = now + BACKOFF_MS;
  }

  #forget(now: Millis): void {
    const id = this.#manifest?.id;
    this.#manifest = null;
    this.#asked.clear();
    this.#rest(now);
    if (id === undefined) return;
    this.#port.store.discard(id).catch((error: unknown) => {
      this.#port.log.warn("part of a snapshot cannot be removed", { error: String(error) });
    });
  }

  #gone({ id, detail }: Extract<SnapshotFrame, { type: "gone" }>): void {
    const now = this.#port.clock.monotonic();
    if (this.#phase === "opening" && id === null) {
      this.#port.log.warn(`${this.#source} has no snapshot for this member: ${detail}`);
      this.#rest(now);
    } else if (this.#phase === "receiving" && (id === null || id === this.#manifest?.id)) {
      this.#port.log.warn(`${this.#source} gave the snapshot up: ${detail}`);
      this.#forget(now);
    }
  }

  #begin(from: NodeId, manifest: SnapshotManifest): void {
    const { clock, log, store } = this.#port;
    const now = clock.monotonic();
    if (!this.#port.wanted(manifest)) {
      this.#port.send(from, { type: "done", id: manifest.id });
      this.#port.notWanted(manifest);
      this.#forget(now);
      return;
    }
    this.#phase = "receiving";
    this.#progressAt = now;
    if (this.#manifest?.id === manifest.id) {
      log.info(`going on with the snapshot from ${from}`, {
        bytes: this.#writtenBytes,
        of: manifest.bytes,
      });
      for (const [offset, asked] of this.#asked) {
        if (!asked.writing) this.#request(offset, asked, now);
      }
      this.#pull();
      return;
    }
    log.info(`receiving a snapshot from ${from}`, {
      index: manifest.index,
      bytes: manifest.bytes,
    });
    this.#manifest = manifest;
    this.#asked.clear();
    this.#next = 0;
    this.#writtenBytes = 0;
    this.#chunkBytes = CHUNK_BYTES_MIN;
    this.#window = WINDOW_MIN;
    this.#startedAt = now;
    store.receive(manifest).then(
      () => {
        if (this.#manifest === manifest) this.#pull();
      },
      (error: unknown) => this.#failed(manifest, error),
    );
  }

  /** Asks for as many chunks as the window allows. */
  #pull(): void {
    const manifest = this.#manifest;
    if (manifest === null || this.#phase !== "receiving") return;
    const now = this.#port.clock.monotonic();
    while (this.#asked.size < this.#window && this.#next < manifest.bytes) {
      const bytes = Math.min(this.#chunkBytes, manifest.bytes - this.#next);
      const asked = { bytes, at: now, tries: 0, writing: false };
      this.#asked.set(this.#next, asked);
      this.#request(this.#next, asked, now);
      this.#next += bytes;
    }
    if (this.#asked.size === 0 && this.#writtenBytes === manifest.bytes)
      void this.#finish(manifest);
  }

  #request(offset: number, asked: Asked, now: Millis): void {
    if (this.#source === null || this.#manifest === null) return;
    asked.at = now;
    const { bytes } = asked;
    this.#port.send(this.#source, { type: "read", id: this.#manifest.id, offset, bytes });
  }

  #take({ id, offset, crc, data }: Extract<SnapshotFrame, { type: "chunk" }>): void {
    const manifest = this.#manifest;
    const asked = this.#asked.get(offset);
    // Late, repeated, or of another snapshot: what it would say is known.
    if (manifest?.id !== id || asked === undefined || asked.writing) return;
    if (data.length !== asked.bytes) return; // asked for again
    const tookMs = this.#port.clock.monotonic() - asked.at;
    if (tookMs > SLOW_MS) this.#slowDown();
    else if (tookMs <= QUICK_MS && asked.tries === 0) this.#speedUp();
    asked.writing = true;
    this.#port.store.write(id, offset, { data, crc }).then(
      (right) => {
        if (this.#manifest !== manifest || this.#asked.get(offset) !== asked) return;
        const now = this.#port.clock.monotonic();
        if (right) {
          this.#asked.delete(offset);
          this.#writtenBytes += asked.bytes;
          this.#progressAt = now;
          this.#pull();
          return;
        }
        this.#port.log.warn("a chunk of the snapshot was damaged on its way", { offset });
        asked.writing = false;
        this.#request(offset, asked, now);
      },
      (error: unknown) => this.#failed(manifest, error),
    );
  }

  #speedUp(): void {
    if (this.#chunkBytes < CHUNK_BYTES_MAX) this.#chunkBytes *= 2;
    else this.#window = Math.min(WINDOW_MAX, this.#window + 1);
  }

  #slowDown(): void {
    this.#window = WINDOW_MIN;
    this.#chunkBytes = Math.max(CHUNK_BYTES_MIN, this.#chunkBytes / 2);
  }

  async #finish(manifest: SnapshotManifest): Promise<void> {
    const { clock, log, store } = this.#port;
    this.#phase = "finishing";
    const source = this.#source;
    const receivedAt = clock.monotonic();
    try {
      await store.verify(manifest.id);
      const verifiedAt = clock.monotonic();
      if (source !== null) this.#port.send(source, { type: "done", id: manifest.id });
      if (!this.#port.wanted(manifest)) {
        this.#forget(clock.monotonic());
        return;
      }
      await this.#port.install(manifest);
      this.#installed += 1;
      log.info("installed a snapshot", {
        index: manifest.index,
        bytes: manifest.bytes,
        received_ms: Math.round(receivedAt - this.#startedAt),
        verified_ms: Math.round(verifiedAt - receivedAt),
        installed_ms: Math.round(clock.monotonic() - verifiedAt),
      });
      this.#manifest = null;
      this.#rest(clock.monotonic());
    } catch (error) {
      this.#failed(manifest, error);
    }
  }

  #failed(manifest: SnapshotManifest, error: unknown): void {
    if (error instanceof FatalError) {
      this.#port.fatal(error);
      return;
    }
    if (this.#manifest !== manifest) return;
    const reason = error instanceof Error ? error.message : String(error);
    this.#port.log.error("the snapshot cannot be taken over", { error: reason });
    this.#forget(this.#port.clock.monotonic());
  }
}
