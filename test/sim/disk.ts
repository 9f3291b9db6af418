/**
 * A model of the log's disk. What was acknowledged survives everything; of what was handed over and not
 * acknowledged, a crash keeps a prefix drawn from the seed.
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

  constructor(
    readonly id: NodeId,
    readonly incarnation: string,
  ) {}

  write(op: PersistOp): void {
    if (op.hardState !== null) this.hardState = op.hardState;
    const first = op.entries[0];
    if (first === undefined) return;
    if (first.index > this.entries.length + 1) throw new Error(`gap in the log at ${first.index}`);
    this.entries.length = first.index - 1;
    this.entries.push(...op.entries);
  }
}

export class SimLogStore implements LogStore {
  readonly #world: World;
  readonly #disk: Disk;
  readonly #clock: NodeClock;
  readonly #latency: () => Millis;
  #queue: { op: PersistOp; done: (ack: PersistAck) => void }[] = [];
  #busy = false;
  #killed = false;
  #writes = 0;

  constructor(world: World, disk: Disk, clock: NodeClock, latency: () => Millis) {
    this.#world = world;
    this.#disk = disk;
    this.#clock = clock;
    this.#latency = latency;
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

  append(op: PersistOp, done: (ack: PersistAck) => void): void {
    this.#queue.push({ op, done });
    this.#next();
  }

  #next(): void {
    if (this.#busy || this.#queue.length === 0) return;
    this.#busy = true;
    const batch = this.#queue.splice(0);
    this.#clock.after(this.#latency(), () => {
      for (const { op } of batch) this.#disk.write(op);
      this.#writes += 1;
      this.#busy = false;
      this.#inFlight = [];
      for (const { op, done } of batch) {
        const last = op.entries.at(-1);
        done({
          hardState: op.hardState,
          last: last === undefined ? null : { index: last.index, term: last.term },
        });
      }
      this.#next();
    });
    this.#inFlight = batch.map(({ op }) => op);
  }
  #inFlight: PersistOp[] = [];

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

  onFailure(): void {}

  async close(): Promise<void> {}
}
