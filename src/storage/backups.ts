/**
 * Backups of this member's state, one at a time: a copy is made beside the writer, as for a snapshot, and read in
 * pieces as fast as whoever asked takes them, so that a slow client costs disk and no memory.
 */
import type { SnapshotCopy, SnapshotStore } from "../replica/ports.ts";
import { type BackupManifest, encodeHeader } from "./backup-file.ts";

const PIECE_BYTES = 512 * 1024;

export interface BackupsOptions {
  readonly snapshots: SnapshotStore;
  /** Commits what was applied, so that the copy holds it. */
  readonly flush: () => void;
  readonly nodeId: string;
  readonly clusterId: () => string | null;
  /** Epoch milliseconds. */
  readonly wall: () => number;
}

export interface Backup {
  readonly manifest: BackupManifest;
  /** The whole file. It has to be read to its end or cancelled: until then no other backup is made here. */
  readonly stream: ReadableStream<Uint8Array>;
}

export class Backups {
  readonly #o: BackupsOptions;
  #running = false;

  constructor(options: BackupsOptions) {
    this.#o = options;
  }

  /**
   * A copy as of now; null while another one is being made or read. `signal`: whoever asked has gone.
   * @throws Error disk full, no cluster yet
   */
  async open(signal: AbortSignal): Promise<Backup | null> {
    if (this.#running) return null;
    this.#running = true;
    const { flush, snapshots } = this.#o;
    let copy: SnapshotCopy | null = null;
    let isOver = false;
    const over = (): void => {
      if (isOver) return;
      isOver = true;
      this.#running = false;
      // What cannot be removed now is swept away at the next start.
      if (copy !== null) snapshots.remove(copy.id).catch(() => undefined);
    };
    try {
      flush();
      copy = await snapshots.create();
      const manifest = this.#describe(copy);
      if (signal.aborted) throw new Error("the client has gone");
      signal.addEventListener("abort", over, { once: true });
      return { manifest, stream: this.#stream(copy, manifest, over) };
    } catch (error) {
      over();
      throw error;
    }
  }

  #describe(copy: SnapshotCopy): BackupManifest {
    const { clusterId, nodeId, wall } = this.#o;
    const cluster = clusterId();
    if (cluster === null) throw new Error("there is no cluster yet");
    return {
      cluster_id: cluster,
      node_id: nodeId,
      created_at: new Date(wall()).toISOString(),
      index: copy.index,
      term: copy.term,
      machine_version: copy.machineVersion,
      bytes: copy.bytes,
      sha256: copy.checksum,
    };
  }

  #stream(
    copy: SnapshotCopy,
    manifest: BackupManifest,
    over: () => void,
  ): ReadableStream<Uint8Array> {
    let offset = -1;
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
      if (offset < 0) {
        offset = 0;
        controller.enqueue(encodeHeader(manifest));
        return;
      }
      try {
        const { data } = await this.#o.snapshots.read(copy.id, offset, PIECE_BYTES);
        offset += data.length;
        if (data.length > 0) controller.enqueue(data);
        if (data.length > 0 && offset < copy.bytes) return;
        controller.close();
      } catch (error) {
        controller.error(error);
      }
      over();
    };
    // Nothing is read ahead of whoever takes it.
    return new ReadableStream({ pull, cancel: over }, { highWaterMark: 0 });
  }
}
