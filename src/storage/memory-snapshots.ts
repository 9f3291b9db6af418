/**
 * Snapshots in memory: the same answers and the same steps as of those in files, as durable as whoever holds
 * the images. For tests, and for models that bring their own idea of a disk.
 */
import { asIndex, asTerm, type Entry, INDEX_0, TERM_0 } from "../raft/types.ts";
import {
  type Clock,
  FatalError,
  type LogPromise,
  type LogStore,
  type Millis,
  type SnapshotChunk,
  type SnapshotCopy,
  type SnapshotManifest,
  type SnapshotStore,
} from "../replica/ports.ts";
import type { Position } from "./snapshot-messages.ts";
import type { InstallStep } from "./sqlite-snapshots.ts";

export interface MemorySnapshotsOptions {
  readonly clock: Clock;
  readonly log: LogStore;
  /** A nonce in hex, 16 digits. */
  readonly nonce: () => string;
  /** The state as bytes, now. */
  readonly image: () => Uint8Array;
  /** @throws Error the bytes are no state */
  readonly position: (image: Uint8Array) => Position;
  /** Makes it current, durably; the log's place goes by this name too. */
  readonly switchTo: (state: string, image: Uint8Array) => void;
  /** Opens the state machine on what is current. */
  /** What an empty state looks like, for `reset`. */
  readonly empty?: () => Uint8Array;
  readonly reopen: () => void;
  /** How long each step takes; 0: until the event loop comes round. */
  readonly latencyMs?: () => Millis;
  readonly onStep?: (step: InstallStep) => void;
}

interface Incoming {
  readonly manifest: SnapshotManifest;
  readonly bytes: Uint8Array;
  /** By offset; what nobody wrote is zero, as in a file with holes. */
  verified: boolean;
}

export class MemorySnapshots implements SnapshotStore {
  readonly #o: MemorySnapshotsOptions;
  readonly #copies = new Map<string, Uint8Array>();
  #incoming: Incoming | null = null;

  constructor(options: MemorySnapshotsOptions) {
    this.#o = options;
  }

  async create(): Promise<SnapshotCopy> {
    await this.#pause();
    const image = new Uint8Array(this.#o.image());
    const { index, term, machineVersion } = this.#o.position(image);
    const id = `${index}-${this.#o.nonce()}`;
    this.#copies.set(id, image);
    return {
      id,
      index: asIndex(index),
      term: asTerm(term),
      machineVersion,
      bytes: image.length,
      checksum: sha256(image),
    };
  }

  async read(id: string, offset: number, bytes: number): Promise<SnapshotChunk> {
    await this.#pause();
    const copy = this.#copies.get(id);
    if (copy === undefined) throw new Error(`there is no snapshot ${id}`);
    const data = copy.slice(offset, offset + bytes);
    return { data, crc: Bun.hash.crc32(data) };
  }

  async remove(id: string): Promise<void> {
    this.#copies.delete(id);
  }

  async receive(manifest: SnapshotManifest): Promise<void> {
    if (this.#incoming?.manifest.id === manifest.id) return;
    this.#incoming = { manifest, bytes: new Uint8Array(manifest.bytes), verified: false };
  }

  async write(id: string, offset: number, { data, crc }: SnapshotChunk): Promise<boolean> {
    await this.#pause();
    const { bytes } = this.#expect(id);
    if (offset < 0 || offset + data.length > bytes.length) {
      throw new Error(
        `${offset} to ${offset + data.length} lies beyond a snapshot of ${bytes.length}`,
      );
    }
    if (Bun.hash.crc32(data) !== crc) return false;
    bytes.set(data, offset);
    return true;
  }

  async verify(id: string): Promise<void> {
    await this.#pause();
    const incoming = this.#expect(id);
    const { manifest, bytes } = incoming;
    try {
      const checksum = sha256(bytes);
      if (checksum !== manifest.checksum) {
        throw new Error(`what was received has checksum ${checksum}, not ${manifest.checksum}`);
      }
      const { index, term, machineVersion } = this.#o.position(bytes);
      if (
        index !== manifest.index ||
        term !== manifest.term ||
        machineVersion !== manifest.machineVersion
      ) {
        throw new Error(
          `the snapshot stands at index ${index} of term ${term}, and was announced as ${manifest.index} of ${manifest.term}`,
        );
      }
    } catch (error) {
      this.#incoming = null;
      throw error;
    }
    incoming.verified = true;
  }

  async discard(id: string): Promise<void> {
    if (this.#incoming?.manifest.id === id) this.#incoming = null;
  }

  async install(manifest: SnapshotManifest, foundations: readonly Entry[]): Promise<void> {
    const { log, nonce, reopen, switchTo } = this.#o;
    const { bytes, verified } = this.#expect(manifest.id);
    if (!verified) throw new Error(`the snapshot ${manifest.id} was not verified`);
    const { index, term } = manifest;
    const state = `state-${index}-${nonce()}.db`;
    await this.#step("rename");
    this.#incoming = null;
    await this.#step("mark");
    await log.markInstall({ index, term, foundations, state });
    try {
      await this.#step("switch");
      switchTo(state, bytes);
      await this.#step("reopen");
      reopen();
      await this.#step("remove");
      await this.#step("finish");
      await log.finishInstall();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new FatalError(
        `a snapshot could not be put in place (${reason}): start this member again`,
      );
    }
  }

  async replaceState(manifest: SnapshotManifest): Promise<void> {
    const { nonce, reopen, switchTo } = this.#o;
    const { bytes, verified } = this.#expect(manifest.id);
    if (!verified) throw new Error(`the snapshot ${manifest.id} was not verified`);
    await this.#step("rename");
    this.#incoming = null;
    await this.#step("switch");
    switchTo(`state-${manifest.index}-${nonce()}.db`, bytes);
    await this.#step("reopen");
    reopen();
    await this.#step("remove");
  }

  async reset(
    replaced: { readonly promised: LogPromise; readonly foundations: readonly Entry[] } | null,
  ): Promise<void> {
    const { log, nonce, reopen, switchTo, empty } = this.#o;
    if (empty === undefined) throw new Error("this model knows no empty state");
    const state = `state-0-${nonce()}.db`;
    if (replaced !== null) {
      await this.#step("mark");
      await log.markInstall({ ...replaced, index: INDEX_0, term: TERM_0, state });
    }
    await this.#step("switch");
    switchTo(state, empty());
    await this.#step("reopen");
    reopen();
    if (replaced === null) return;
    await this.#step("finish");
    await log.finishInstall();
  }

  async close(): Promise<void> {
    this.#copies.clear();
    this.#incoming = null;
  }

  #expect(id: string): Incoming {
    const incoming = this.#incoming;
    if (incoming?.manifest.id !== id) throw new Error(`the snapshot ${id} is not being received`);
    return incoming;
  }

  async #step(step: InstallStep): Promise<void> {
    this.#o.onStep?.(step);
    await this.#pause();
  }

  #pause(): Promise<void> {
    const { clock, latencyMs } = this.#o;
    const latency = latencyMs?.() ?? 0;
    return new Promise((resolve) => {
      if (latency > 0) clock.after(latency, resolve);
      else clock.soon(resolve);
    });
  }
}

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}
