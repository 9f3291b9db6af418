/**
 * A model of the log's disk. What was acknowledged survives everything; of what was handed over and not
 * acknowledged, a crash keeps a prefix drawn from the seed.
 *
 * What it does not model: torn pages and flipped bits (test/storage does that on real files), compaction.
 */
import type {
  Entry,
  HardState,
  LogIndex,
  NodeId,
  PersistAck,
  PersistOp,
  Term,
} from "../../src/raft/types.ts";
import { asIndex, asTerm } from "../../src/raft/types.ts";
import type {
  Identity,
  LogStats,
  LogStore,
  Millis,
  RecoveredLog,
} from "../../src/replica/ports.ts";
import type { NodeClock, World } from "./world.ts";

/** What outlives the process. */
export class Disk {
  entries: Entry[] = [];
  hardState: HardState = { term: asTerm(0), vote: null };
  clusterId: string | null = null;
  boot = 0;
  /** Told before each write. */
  onWrite: ((op: PersistOp) => void) | null = null;

  constructor(
    readonly id: NodeId,
    public incarnation: string,
  ) {}

  write(op: PersistOp): void {
    this.onWrite?.(op);
    if (op.hardState !== null) this.hardState = op.hardState;
    overwrite(this.entries, op.entries);
  }

  termAt(index: LogIndex): Term | null {
    if (index === 0) return asTerm(0);
    return this.entries[index - 1]?.term ?? null;
  }
}

function overwrite(log: Entry[], entries: readonly Entry[]): void {
  const first = entries[0];
  if (first === undefined) return;
  if (first.index > log.length + 1) throw new Error(`gap in the log at ${first.index}`);
  log.length = first.index - 1;
  for (const entry of entries) log.push(entry);
}

/** What a disk may do to the writes of one process; changed while it runs. */
export interface DiskFaults {
  /** How long the next write takes. */
  latency(): Millis;
  /** The next write fails: the process is told once, and nothing is acknowledged any more. */
  fails?(): boolean;
}

export class SimLogStore implements LogStore {
  readonly #world: World;
  readonly #disk: Disk;
  readonly #clock: NodeClock;
  readonly #faults: DiskFaults;
  /** The log as this process wrote it, durable or not: what its core believes it holds. */
  readonly handed: Entry[];
  readonly #queue: { op: PersistOp; done: (ack: PersistAck) => void }[] = [];
  #inFlight: PersistOp[] = [];
  #busy = false;
  #killed = false;
  #failed = false;
  #hung = false;
  #writes = 0;
  #onFailure: ((error: Error) => void) | null = null;
  /** Finishes the write under way at once; for a disk that comes back. */
  #finish: (() => void) | null = null;

  constructor(world: World, disk: Disk, clock: NodeClock, faults: DiskFaults | (() => Millis)) {
    this.#world = world;
    this.#disk = disk;
    this.#clock = clock;
    this.#faults = typeof faults === "function" ? { latency: faults } : faults;
    this.handed = [...disk.entries];
  }

  async open(): Promise<RecoveredLog> {
    this.#disk.boot += 1;
    const { id, incarnation, clusterId, boot, hardState, entries } = this.#disk;
    const identity: Identity = { id, incarnation, clusterId, boot };
    const terms: { index: LogIndex; term: Term }[] = [];
    for (const { index, term } of entries)
      if (terms.at(-1)?.term !== term) terms.push({ index, term });
    return {
      identity,
      hardState,
      compacted: { index: asIndex(0), term: asTerm(0) },
      lastIndex: asIndex(entries.length),
      terms,
      configurations: entries.filter(({ kind }) => kind === "config" || kind === "bootstrap"),
      tail: [...entries],
    };
  }

  /** Writes handed over and not acknowledged. */
  get pending(): number {
    return this.#queue.length + this.#inFlight.length;
  }

  append(op: PersistOp, done: (ack: PersistAck) => void): void {
    if (this.#killed) return;
    overwrite(this.handed, op.entries);
    this.#queue.push({ op, done });
    this.#next();
  }

  #next(): void {
    if (this.#busy || this.#failed || this.#hung || this.#queue.length === 0) return;
    this.#busy = true;
    const batch = this.#queue.splice(0);
    this.#inFlight = batch.map(({ op }) => op);
    let over = false;
    const finish = (): void => {
      if (over || this.#killed || this.#hung) return;
      over = true;
      this.#finish = null;
      this.#written(batch);
    };
    this.#finish = finish;
    this.#world.at(this.#world.now + this.#faults.latency(), finish);
  }

  /** The disk is done, whether or not the process is awake to hear of it. */
  #written(batch: readonly { op: PersistOp; done: (ack: PersistAck) => void }[]): void {
    this.#busy = false;
    if (this.#faults.fails?.() === true) {
      this.#failed = true;
      this.#clock.enter(() => this.#onFailure?.(new Error("the disk failed (injected)")));
      return;
    }
    for (const { op } of batch) this.#disk.write(op);
    this.#inFlight = [];
    this.#writes += 1;
    this.#clock.enter(() => {
      for (const { op, done } of batch) {
        if (this.#killed) return;
        const last = op.entries.at(-1);
        done({
          hardState: op.hardState,
          last: last === undefined ? null : { index: last.index, term: last.term },
        });
      }
    });
    this.#next();
  }

  /** The disk stops answering, for ever or until `recover`. */
  hang(): void {
    this.#hung = true;
  }

  get hung(): boolean {
    return this.#hung;
  }

  /** The disk is quick again: what hangs or stalls is done now. */
  recover(): void {
    this.#hung = false;
    const finish = this.#finish;
    if (finish === null) this.#next();
    else this.#world.at(this.#world.now, finish);
  }

  /** The process dies: a prefix of what was under way may have reached the disk. */
  kill(): void {
    if (this.#killed) return;
    this.#killed = true;
    const keep = this.#world.prng.between(0, this.#inFlight.length);
    for (const op of this.#inFlight.slice(0, keep)) this.#disk.write(op);
  }

  async read(from: LogIndex, to: LogIndex, maxBytes: number): Promise<readonly Entry[]> {
    const taken: Entry[] = [];
    let bytes = 0;
    for (const entry of this.#disk.entries.slice(from - 1, to)) {
      bytes += entry.data.length;
      if (taken.length > 0 && bytes > maxBytes) break;
      taken.push(entry);
    }
    return taken;
  }

  async compact(): Promise<void> {
    throw new Error("the model does not compact");
  }

  async markInstall(): Promise<void> {
    throw new Error("the model installs no snapshots");
  }

  async finishInstall(): Promise<void> {
    throw new Error("the model installs no snapshots");
  }

  async bindCluster(clusterId: string): Promise<void> {
    this.#disk.clusterId = clusterId;
  }

  stats(): LogStats {
    return {
      writes: this.#writes,
      transactions: this.#writes,
      entries: this.#disk.entries.length,
      bytes: 0,
      recentMs: [],
    };
  }

  onFailure(report: (error: Error) => void): void {
    this.#onFailure = report;
  }

  async close(): Promise<void> {}
}
