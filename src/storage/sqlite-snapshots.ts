/**
 * Snapshots of the state database: files beside it, made and received on a thread of their own, and the steps
 * by which one takes the place of state and log (S5). After a crash at any step the folder opens, as it was
 * before or as it is afterwards: CURRENT decides, and the log goes by it.
 */
import { join } from "node:path";
import { asIndex, asTerm, type Entry, INDEX_0, TERM_0 } from "../raft/types.ts";
import {
  FatalError,
  type LogPromise,
  type LogStore,
  type SnapshotChunk,
  type SnapshotCopy,
  type SnapshotManifest,
  type SnapshotStore,
} from "../replica/ports.ts";
import { freshStateName } from "./current-file.ts";
import { createState } from "./state-database.ts";
import { copyName, freshSnapshotId, incomingName, isSnapshotId } from "./snapshot-files.ts";
import type {
  SnapshotReply,
  SnapshotRequest,
  SnapshotResult,
  SnapshotWork,
} from "./snapshot-messages.ts";
import { Thread } from "./thread.ts";

/** Pieces of work that may wait for the thread: some windows of chunks. */
const WORK_MAX = 256;

/** Before each of these a crash must leave a folder that opens. */
export type InstallStep = "rename" | "mark" | "switch" | "reopen" | "remove" | "finish";

export interface SqliteSnapshotsOptions {
  readonly folder: string;
  readonly log: LogStore;
  /** Name of the state database in use, within the folder. */
  readonly currentState: () => string;
  /** SQL: one row (index, term, machineVersion) of a state database. */
  readonly positionQuery: string;
  /** Opens every connection anew on the state database of this name; the one before is closed when it resolves. */
  readonly reopen: (name: string) => void | Promise<void>;
  /** Told before each step of an install: tests end the process there. */
  readonly onStep?: (step: InstallStep) => void;
}

interface Asked {
  readonly resolve: (result: SnapshotResult) => void;
  readonly reject: (error: Error) => void;
}

export class SqliteSnapshots implements SnapshotStore {
  readonly #o: SqliteSnapshotsOptions;
  readonly #asked = new Map<number, Asked>();
  #thread: Thread<SnapshotRequest, SnapshotReply> | null = null;
  #ended: Promise<void> = Promise.resolve();
  #nextId = 1;
  #closed = false;
  #receiving: SnapshotManifest | null = null;
  #verified = false;

  constructor(options: SqliteSnapshotsOptions) {
    this.#o = options;
  }

  async create(): Promise<SnapshotCopy> {
    const { folder, currentState, positionQuery } = this.#o;
    // Named before its index is known: the number is only for people.
    const id = freshSnapshotId(Number(/\d+/.exec(currentState())?.[0] ?? 0));
    const target = join(folder, copyName(id));
    try {
      const result = await this.#work({
        kind: "copy",
        source: join(folder, currentState()),
        target,
        query: positionQuery,
      });
      if (result.kind !== "copied") throw new Error(`unexpected ${result.kind}`);
      const { position, bytes, checksum } = result;
      const { index, term, machineVersion } = position;
      return { id, index: asIndex(index), term: asTerm(term), machineVersion, bytes, checksum };
    } catch (error) {
      await this.remove(id).catch(() => undefined);
      throw error;
    }
  }

  async read(id: string, offset: number, bytes: number): Promise<SnapshotChunk> {
    if (!isSnapshotId(id)) throw new Error(`${id} names no snapshot`);
    const path = join(this.#o.folder, copyName(id));
    const result = await this.#work({ kind: "read", path, offset, bytes });
    if (result.kind !== "bytes") throw new Error(`unexpected ${result.kind}`);
    return { data: result.data, crc: result.crc };
  }

  async remove(id: string): Promise<void> {
    if (!isSnapshotId(id)) return;
    await this.#work({ kind: "remove", folder: this.#o.folder, names: [copyName(id)] });
  }

  async receive(manifest: SnapshotManifest): Promise<void> {
    if (!isSnapshotId(manifest.id)) throw new Error(`${manifest.id} names no snapshot`);
    const before = this.#receiving;
    if (before?.id === manifest.id) return;
    this.#receiving = manifest;
    this.#verified = false;
    if (before !== null) await this.#removeIncoming(before.id);
  }

  async write(id: string, offset: number, { data, crc }: SnapshotChunk): Promise<boolean> {
    const { bytes } = this.#expect(id);
    if (offset < 0 || offset + data.length > bytes) {
      throw new Error(`${offset} to ${offset + data.length} lies beyond a snapshot of ${bytes}`);
    }
    const path = join(this.#o.folder, incomingName(id));
    // A copy: the thread takes the bytes over, and they may be part of a frame.
    const work: SnapshotWork = { kind: "write", path, offset, data: new Uint8Array(data), crc };
    return (await this.#work(work)).kind === "done";
  }

  async verify(id: string): Promise<void> {
    const { bytes, checksum, index, term, machineVersion } = this.#expect(id);
    const path = join(this.#o.folder, incomingName(id));
    const position = { index, term, machineVersion };
    const query = this.#o.positionQuery;
    try {
      await this.#work({ kind: "verify", path, bytes, checksum, position, query });
      this.#verified = true;
    } catch (error) {
      await this.discard(id);
      throw error;
    }
  }

  async discard(id: string): Promise<void> {
    if (this.#receiving?.id !== id) return;
    this.#receiving = null;
    this.#verified = false;
    await this.#removeIncoming(id);
  }

  async install(manifest: SnapshotManifest, foundations: readonly Entry[]): Promise<void> {
    const { folder, log } = this.#o;
    const { old, state, index, term } = await this.#adopt(manifest);
    this.#step("mark");
    try {
      await log.markInstall({ index, term, foundations, state });
    } catch (error) {
      await this.#work({ kind: "remove", folder, names: [state] });
      throw error;
    }
    // From here on the install has happened, or happens at the next start.
    await this.#replace(old, state, { log: true });
  }

  async replaceState(manifest: SnapshotManifest): Promise<void> {
    const { old, state } = await this.#adopt(manifest);
    await this.#replace(old, state, { log: false, aside: true });
  }

  async reset(
    replaced: { readonly promised: LogPromise; readonly foundations: readonly Entry[] } | null,
  ): Promise<void> {
    const { folder, log, currentState } = this.#o;
    const old = currentState();
    const state = freshStateName(0);
    createState(folder, state);
    if (replaced !== null) {
      this.#step("mark");
      await log.markInstall({ ...replaced, index: INDEX_0, term: TERM_0, state });
    }
    await this.#replace(old, state, { log: replaced !== null });
  }

  /** What was received and verified becomes a state file of its own name; it is in force once the caller says so. */
  async #adopt(
    manifest: SnapshotManifest,
  ): Promise<SnapshotManifest & { readonly old: string; readonly state: string }> {
    const { folder, currentState } = this.#o;
    const expected = this.#expect(manifest.id);
    const { id, index } = expected;
    if (!this.#verified) throw new Error(`the snapshot ${id} was not verified`);
    const old = currentState();
    const state = freshStateName(index);
    this.#step("rename");
    await this.#work({ kind: "rename", folder, from: incomingName(id), to: state });
    this.#receiving = null;
    this.#verified = false;
    return { ...expected, old, state };
  }

  /** CURRENT decides whether it has happened; what opens the folder afterwards does the rest of it. */
  async #replace(
    old: string,
    state: string,
    { log: finishes, aside = false }: { readonly log: boolean; readonly aside?: boolean },
  ): Promise<void> {
    const { folder, log, reopen } = this.#o;
    try {
      this.#step("switch");
      await this.#work({ kind: "switch", folder, name: state });
      this.#step("reopen");
      await reopen(state);
      this.#step("remove");
      await this.#work(
        aside ? { kind: "aside", folder, name: old } : { kind: "remove", folder, names: [old] },
      );
      if (!finishes) return;
      this.#step("finish");
      await log.finishInstall();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new FatalError(
        `another state could not be put in place (${reason}): start this member again`,
      );
    }
  }

  /** Ends the thread, after what it was given. Files on their way are swept away at the next open. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#thread?.post({ kind: "close" });
    await this.#ended;
  }

  #step(step: InstallStep): void {
    this.#o.onStep?.(step);
  }

  #expect(id: string): SnapshotManifest {
    const receiving = this.#receiving;
    if (receiving?.id !== id) throw new Error(`the snapshot ${id} is not being received`);
    return receiving;
  }

  async #removeIncoming(id: string): Promise<void> {
    await this.#work({ kind: "remove", folder: this.#o.folder, names: [incomingName(id)] });
  }

  async #work(work: SnapshotWork): Promise<SnapshotResult> {
    if (this.#closed) throw new Error("the snapshot store is closed");
    if (this.#asked.size >= WORK_MAX) {
      throw new Error(`${this.#asked.size} pieces of work wait for the snapshot thread already`);
    }
    const thread = this.#thread ?? this.#start();
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<SnapshotResult>();
    this.#asked.set(id, { resolve, reject });
    const transfer = work.kind === "write" ? [work.data.buffer] : [];
    thread.post({ kind: "work", id, work }, transfer);
    return promise;
  }

  /** On the first piece of work: most members of most days never need it. */
  #start(): Thread<SnapshotRequest, SnapshotReply> {
    const died = (message: string): void => this.#died(thread, new Error(message));
    const thread = new Thread<SnapshotRequest, SnapshotReply>(
      new URL("./snapshot-thread.ts", import.meta.url),
      {
        answered: (reply) => this.#answered(reply),
        failed: (message) => died(`the snapshot thread failed: ${message}`),
        ended: () => died("the snapshot thread ended"),
      },
    );
    this.#ended = thread.ended;
    this.#thread = thread;
    return thread;
  }

  #answered(reply: SnapshotReply): void {
    const asked = this.#asked.get(reply.id);
    this.#asked.delete(reply.id);
    if (reply.kind === "result") asked?.resolve(reply.result);
    else asked?.reject(new Error(reply.message));
  }

  /** The next piece of work starts another one. */
  #died(thread: Thread<SnapshotRequest, SnapshotReply>, error: Error): void {
    if (this.#thread !== thread) return;
    this.#thread = null;
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    for (const { reject } of asked) reject(error);
  }
}
