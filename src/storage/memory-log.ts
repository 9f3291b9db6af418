/**
 * The log in memory: the same answers as the durable one, and as durable as the process. For tests, and for
 * models that bring their own idea of a disk; what is acknowledged survives a close and a new open.
 */
import { ackOf } from "../raft/pending-writes.ts";
import {
  asIndex,
  type Entry,
  type HardState,
  INDEX_0,
  type LogIndex,
  type NodeId,
  type PersistAck,
  type PersistOp,
  type Term,
  TERM_0,
} from "../raft/types.ts";
import {
  type Clock,
  FatalError,
  type LogInstall,
  type LogStats,
  type LogStore,
  type Millis,
  type RecoveredLog,
} from "../replica/ports.ts";

/** As of SqliteLog: longer reads come in pieces. */
const READ_ENTRIES_MAX = 10_000;
const RECENT_MAX = 512;

/** What a {@link MemoryLog} leaves behind when it is closed, and the next one opens. */
export class MemoryFolder {
  entries: Entry[] = [];
  hardState: HardState = { term: TERM_0, vote: null };
  compacted: RecoveredLog["compacted"] = { index: INDEX_0, term: TERM_0 };
  foundations: readonly Entry[] = [];
  clusterId: string | null = null;
  boot = 0;
  /** Name of the state that belongs to this log: what stands in CURRENT elsewhere. */
  currentState: string | null = null;
  installing: LogInstall | null = null;

  constructor(
    readonly id: NodeId,
    readonly incarnation: string,
  ) {}

  get lastIndex(): LogIndex {
    return asIndex(this.compacted.index + this.entries.length);
  }

  /** @throws Error when nothing is marked */
  finishInstall(): void {
    if (this.installing === null) throw new Error("no install is marked");
    const { index, term, foundations } = this.installing;
    this.entries = [];
    this.foundations = foundations;
    this.compacted = { index, term };
    if (this.hardState.term < term) this.hardState = { term, vote: null };
    this.installing = null;
  }
}

export interface MemoryLogOptions {
  readonly clock: Clock;
  readonly folder: MemoryFolder;
  /** Who opens it; another id than the folder's is refused. */
  readonly member: NodeId;
  /** How long each transaction takes; 0: until the event loop comes round. */
  readonly latencyMs?: () => Millis;
}

interface Handed {
  readonly op: PersistOp;
  readonly done: (ack: PersistAck) => void;
}

export class MemoryLog implements LogStore {
  readonly #clock: Clock;
  readonly #folder: MemoryFolder;
  readonly #member: NodeId;
  readonly #latencyMs: () => Millis;
  #open = false;
  #failure: Error | null = null;
  #report: ((error: Error) => void) | null = null;
  /** Handed over, oldest first; the layers above limit what is in flight. */
  #waiting: Handed[] = [];
  #busy = false;
  /** Run when nothing waits any more. */
  readonly #idle: (() => void)[] = [];
  #bytesWritten = 0;
  #writes = 0;
  #transactions = 0;
  readonly #recentMs: number[] = [];

  constructor({ clock, folder, member, latencyMs = () => 0 }: MemoryLogOptions) {
    this.#clock = clock;
    this.#folder = folder;
    this.#member = member;
    this.#latencyMs = latencyMs;
  }

  async open(tailBytes: number): Promise<RecoveredLog> {
    const folder = this.#folder;
    if (folder.id !== this.#member) {
      throw new FatalError(`the folder belongs to member ${folder.id}, not to ${this.#member}`);
    }
    folder.boot += 1;
    this.#open = true;
    if (folder.installing?.state === folder.currentState) folder.finishInstall();
    folder.installing = null;
    const { id, incarnation, clusterId, boot, hardState, compacted, foundations } = folder;
    const terms: { index: LogIndex; term: Term }[] = [];
    for (const { index, term } of folder.entries) {
      if (terms.at(-1)?.term !== term) terms.push({ index, term });
    }
    let bytes = 0;
    const before = folder.entries.findLastIndex(({ data }) => (bytes += data.length) > tailBytes);
    return {
      identity: { id, incarnation, clusterId, boot },
      hardState,
      compacted,
      foundations,
      lastIndex: folder.lastIndex,
      terms,
      configurations: folder.entries.filter(isMembership),
      tail: folder.entries.slice(before + 1),
    };
  }

  append(op: PersistOp, done: (ack: PersistAck) => void): void {
    if (this.#failure !== null) return;
    if (!this.#open) throw new Error("the log is not open");
    for (const { data } of op.entries) this.#bytesWritten += data.length;
    this.#waiting.push({ op, done });
    this.#next();
  }

  async read(from: LogIndex, to: LogIndex, maxBytes: number): Promise<readonly Entry[]> {
    await this.#settled();
    const { entries, compacted } = this.#folder;
    if (from <= compacted.index) return [];
    const taken: Entry[] = [];
    let bytes = 0;
    const first = from - compacted.index - 1;
    const count = Math.min(to - from + 1, READ_ENTRIES_MAX);
    for (const entry of entries.slice(first, first + count)) {
      bytes += entry.data.length;
      if (taken.length > 0 && bytes > maxBytes) break;
      taken.push(entry);
    }
    return taken;
  }

  async compact(index: LogIndex, term: Term): Promise<void> {
    await this.#settled();
    const folder = this.#folder;
    if (index <= folder.compacted.index) return;
    const count = index - folder.compacted.index;
    const held = folder.entries[count - 1];
    if (held === undefined) {
      throw new Error(`cannot compact up to ${index}: the log ends at ${folder.lastIndex}`);
    }
    if (held.term !== term) {
      throw new Error(
        `cannot compact up to ${index} of term ${term}: its term here is ${held.term}`,
      );
    }
    const below = [...folder.foundations, ...folder.entries.slice(0, count)];
    folder.foundations = below.filter(
      (entry) => isMembership(entry) && entry === below.findLast(({ kind }) => kind === entry.kind),
    );
    folder.entries = folder.entries.slice(count);
    folder.compacted = { index, term };
  }

  async bindCluster(clusterId: string): Promise<void> {
    await this.#settled();
    const bound = this.#folder.clusterId;
    if (bound !== null && bound !== clusterId) {
      throw new FatalError(`the folder belongs to cluster ${bound}, not to ${clusterId}`);
    }
    this.#folder.clusterId = clusterId;
  }

  async cut(): Promise<void> {
    throw new Error("memory is not damaged");
  }

  async markInstall(install: LogInstall): Promise<void> {
    await this.#settled();
    const { entries, compacted, lastIndex } = this.#folder;
    const { index, term } = install;
    const held = entries[index - compacted.index - 1]?.term;
    if (index <= compacted.index || held === term) {
      throw new Error(
        `a snapshot of index ${index} would put back a log that holds ${compacted.index + 1} to ${lastIndex}`,
      );
    }
    this.#folder.installing = install;
  }

  async finishInstall(): Promise<void> {
    await this.#settled();
    this.#folder.finishInstall();
  }

  stats(): LogStats {
    let bytes = 0;
    for (const { data } of this.#folder.entries) bytes += data.length;
    return {
      writes: this.#writes,
      transactions: this.#transactions,
      entries: this.#folder.entries.length,
      bytes,
      bytesWritten: this.#bytesWritten,
      recentMs: [...this.#recentMs],
    };
  }

  onFailure(report: (error: Error) => void): void {
    this.#report = report;
    if (this.#failure !== null) report(this.#failure);
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    if (this.#failure === null) await this.#settled();
    this.#open = false;
  }

  async #settled(): Promise<void> {
    this.#check();
    if (!this.#busy) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#idle.push(resolve);
    await promise;
    this.#check();
  }

  #check(): void {
    if (this.#failure !== null) throw this.#failure;
    if (!this.#open) throw new Error("the log is not open");
  }

  #next(): void {
    if (this.#busy || this.#waiting.length === 0 || this.#failure !== null) return;
    this.#busy = true;
    const startedAt = this.#clock.monotonic();
    const latency = this.#latencyMs();
    if (latency > 0) this.#clock.after(latency, () => this.#commit(startedAt));
    else this.#clock.soon(() => this.#commit(startedAt));
  }

  /** All that waits by now, as one transaction: all of it or nothing. */
  #commit(startedAt: Millis): void {
    const batch = this.#waiting;
    this.#waiting = [];
    const before = { entries: [...this.#folder.entries], hardState: this.#folder.hardState };
    try {
      for (const { op } of batch) this.#write(op);
    } catch (error) {
      this.#folder.entries = before.entries;
      this.#folder.hardState = before.hardState;
      this.#fail(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    this.#writes += batch.length;
    this.#transactions += 1;
    this.#recentMs.push(this.#clock.monotonic() - startedAt);
    if (this.#recentMs.length > RECENT_MAX) this.#recentMs.shift();
    this.#busy = false;
    for (const { op, done } of batch) done(ackOf(op));
    this.#next();
    if (!this.#busy) this.#wakeIdle();
  }

  #write({ hardState, entries }: PersistOp): void {
    const folder = this.#folder;
    const first = entries[0];
    if (first !== undefined) {
      if (first.index <= folder.compacted.index || first.index > folder.lastIndex + 1) {
        throw new Error(
          `entry ${first.index} does not fit a log that holds ${folder.compacted.index + 1} to ${folder.lastIndex}`,
        );
      }
      folder.entries.length = first.index - folder.compacted.index - 1;
      for (const entry of entries) {
        if (entry.index !== folder.lastIndex + 1) {
          throw new Error(`entry ${entry.index} follows entry ${folder.lastIndex} in one write`);
        }
        folder.entries.push(entry);
      }
    }
    if (hardState !== null) folder.hardState = hardState;
  }

  #fail(error: Error): void {
    this.#failure = new FatalError(`the log cannot be written: ${error.message}`);
    this.#waiting = [];
    this.#wakeIdle();
    this.#report?.(this.#failure);
  }

  #wakeIdle(): void {
    for (const wake of this.#idle.splice(0)) wake();
  }
}

function isMembership({ kind }: Entry): boolean {
  return kind === "config" || kind === "bootstrap";
}
