/**
 * The log of one process on the disk that outlives it (`disk.ts`): writes take their time, wait for each other, hang, fail, and
 * are heard of when the process is awake.
 */
import { decodeConfigurationEntry } from "../../src/raft/configuration.ts";
import type {
  Configuration,
  Entry,
  LogIndex,
  PersistAck,
  PersistOp,
  Term,
} from "../../src/raft/types.ts";
import { asIndex } from "../../src/raft/types.ts";
import type {
  Identity,
  LogInstall,
  LogStats,
  LogStore,
  Millis,
  RecoveredLog,
} from "../../src/replica/ports.ts";
import { FatalError } from "../../src/replica/ports.ts";
import { type Disk, isMembership, overwrite } from "./disk.ts";
import type { NodeClock, World } from "./world.ts";

/** Who is a member from this index of the log on. */
export interface Membership {
  readonly index: LogIndex;
  readonly configuration: Configuration;
}

/** What a disk may do to the writes of one process; changed while it runs. */
export interface DiskFaults {
  /** How long the next write takes. */
  latency(): Millis;
  /** The next write fails: the process is told once, and nothing is acknowledged any more. */
  fails?(): boolean;
  /** Nothing can be written: the disk is mounted read-only. */
  readOnly?(): boolean;
  /** Entries that are read back come only after so long, as they were when they were asked for, or as they are by then. */
  slowRead?(): { readonly ms: Millis; readonly isOld: boolean } | null;
}

export class SimLogStore implements LogStore {
  readonly #world: World;
  readonly #disk: Disk;
  readonly #clock: NodeClock;
  readonly #faults: DiskFaults;
  /** The log as this process wrote it, durable or not: what its core believes it holds. */
  handed: Entry[] = [];
  /** The memberships in it, ascending. */
  readonly #memberships: Membership[] = [];
  readonly #queue: { op: PersistOp; done: (ack: PersistAck) => void }[] = [];
  #inFlight: PersistOp[] = [];
  #unheard = 0;
  #busy = false;
  /** Resolved when nothing waits to be written any more. */
  readonly #idle: (() => void)[] = [];
  /** Each ends a wait for the disk that is not for a write. */
  readonly #stalls = new Set<() => void>();
  #killed = false;
  #failed = false;
  #hung = false;
  #bytesWritten = 0;
  #writes = 0;
  #onFailure: ((error: Error) => void) | null = null;
  /** Finishes the write under way at once; for a disk that comes back. */
  #finish: (() => void) | null = null;

  constructor(world: World, disk: Disk, clock: NodeClock, faults: DiskFaults | (() => Millis)) {
    this.#world = world;
    this.#disk = disk;
    this.#clock = clock;
    this.#faults = typeof faults === "function" ? { latency: faults } : faults;
    this.#take(disk.entries);
  }

  /** The membership in force, and where it stands in the log; null before the founding. */
  get membership(): Membership | null {
    return this.#memberships.at(-1) ?? null;
  }

  /** Those that were in force when `index` was the last entry, and since. */
  membershipsSince(index: number): readonly Membership[] {
    const first = this.#memberships.findLastIndex((each) => each.index <= index);
    return this.#memberships.slice(Math.max(0, first));
  }

  /** The membership that stands at `index`, if one does. */
  membershipAt(index: number): Membership | undefined {
    return this.#memberships.findLast((each) => each.index === index);
  }

  /** Memberships behind `index`: not committed yet, if that is the commit index. */
  membershipsBehind(index: number): number {
    return this.#memberships.filter((each) => each.index > index).length;
  }

  #take(entries: readonly Entry[]): void {
    this.handed = [...entries];
    this.#memberships.length = 0;
    this.#note(entries);
  }

  /** These were written to the log, over what was behind the first of them. */
  #note(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) return;
    while ((this.#memberships.at(-1)?.index ?? 0) >= first.index) this.#memberships.pop();
    for (const entry of entries)
      if (isMembership(entry))
        this.#memberships.push({
          index: entry.index,
          configuration: decodeConfigurationEntry(entry),
        });
  }

  async open(): Promise<RecoveredLog> {
    if (this.#disk.voteLost)
      throw new FatalError("term and vote are damaged: remove this member and add it again");
    this.#disk.boot += 1;
    this.#disk.settleInstall();
    this.#take(this.#disk.entries);
    const { id, incarnation, clusterId, boot, hardState, compacted, foundations } = this.#disk;
    const identity: Identity = { id, incarnation, clusterId, boot };
    const { damagedFrom, promised } = this.#disk;
    const last = damagedFrom === null ? this.#disk.entries.length : damagedFrom - 1;
    const entries = this.#disk.entries.slice(compacted.index, last);
    const terms: { index: LogIndex; term: Term }[] = [];
    for (const { index, term } of entries)
      if (terms.at(-1)?.term !== term) terms.push({ index, term });
    return {
      identity,
      hardState,
      compacted,
      foundations,
      lastIndex: asIndex(last),
      terms,
      configurations: entries.filter(isMembership),
      tail: entries,
      promised: promised !== null && promised.index > last ? promised : null,
      damage:
        damagedFrom === null
          ? null
          : {
              index: damagedFrom,
              what: `entry ${damagedFrom} is damaged`,
              promised: this.#disk.promises,
            },
    };
  }

  async cut(): Promise<void> {
    const disk = this.#disk;
    if (disk.damagedFrom === null) throw new Error("nothing is damaged");
    const { damagedFrom } = disk;
    disk.loses(disk.promises);
    disk.entries.length = damagedFrom - 1;
    this.#take(disk.entries);
  }

  /** Writes handed over and not acknowledged. */
  get pending(): number {
    return this.#queue.length + this.#inFlight.length;
  }

  /** Writes that the process has not heard of yet: one that stands still hears later of what its disk has done. */
  get unheard(): number {
    return this.#unheard;
  }

  append(op: PersistOp, done: (ack: PersistAck) => void): void {
    if (this.#killed) return;
    this.#unheard += 1;
    overwrite(this.handed, op.entries);
    for (const { data } of op.entries) this.#bytesWritten += data.length;
    this.#note(op.entries);
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
    if (this.#faults.readOnly?.() === true) this.#inFlight = [];
    if (this.#faults.readOnly?.() === true || this.#faults.fails?.() === true) {
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
        this.#unheard -= 1;
        const last = op.entries.at(-1);
        done({
          hardState: op.hardState,
          last: last === undefined ? null : { index: last.index, term: last.term },
        });
      }
    });
    this.#next();
    if (this.pending === 0) this.#wakeIdle();
  }

  #wakeIdle(): void {
    for (const wake of this.#idle.splice(0)) this.#clock.enter(wake);
  }

  /** After every write that was handed over before, and as long as one more. Never at a process that dies. */
  async #settled(): Promise<void> {
    for (;;) {
      while (this.pending > 0 || this.#hung)
        await new Promise<void>((resolve) => this.#idle.push(resolve));
      await new Promise<void>((resolve) => {
        let done = false;
        const end = (): void => {
          if (!done && !this.#killed && !this.#failed) this.#clock.enter(resolve);
          done = true;
        };
        this.#stalls.add(end);
        this.#world.at(this.#world.now + this.#faults.latency(), () => {
          this.#stalls.delete(end);
          end();
        });
      });
      if (this.#killed) await new Promise<never>(() => {});
      if (!this.#hung) return;
    }
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
    for (const end of this.#stalls) this.#world.at(this.#world.now, end);
    this.#stalls.clear();
    this.#wakeIdle();
  }

  /** The process dies: a prefix of what was under way may have reached the disk. */
  kill(): void {
    if (this.#killed) return;
    this.#killed = true;
    const keep = this.#world.prng.between(0, this.#inFlight.length);
    for (const op of this.#inFlight.slice(0, keep)) this.#disk.write(op);
  }

  /** A slow one answers what was there when it was asked for, or what is there by now. */
  async read(from: LogIndex, to: LogIndex, maxBytes: number): Promise<readonly Entry[]> {
    const slow = this.#faults.slowRead?.() ?? null;
    const before = this.#readNow(from, to, maxBytes);
    if (slow === null) return before;
    await new Promise<void>((resolve) => {
      this.#world.at(this.#world.now + slow.ms, () => {
        if (!this.#killed) this.#clock.enter(resolve);
      });
    });
    return slow.isOld ? before : this.#readNow(from, to, maxBytes);
  }

  #readNow(from: LogIndex, to: LogIndex, maxBytes: number): readonly Entry[] {
    const taken: Entry[] = [];
    let bytes = 0;
    if (from <= this.#disk.compacted.index) return [];
    for (const entry of this.#disk.entries.slice(from - 1, to)) {
      bytes += entry.data.length;
      if (taken.length > 0 && bytes > maxBytes) break;
      taken.push(entry);
    }
    return taken;
  }

  async compact(index: LogIndex, term: Term): Promise<void> {
    await this.#settled();
    this.#disk.compact(index, term);
  }

  async markInstall(install: LogInstall): Promise<void> {
    await this.#settled();
    this.#disk.markInstall(install);
  }

  async finishInstall(): Promise<void> {
    await this.#settled();
    this.#disk.finishInstall();
    this.#take(this.#disk.entries);
  }

  async bindCluster(clusterId: string): Promise<void> {
    this.#disk.clusterId = clusterId;
  }

  stats(): LogStats {
    return {
      writes: this.#writes,
      transactions: this.#writes,
      entries: this.#disk.entries.length - this.#disk.compacted.index,
      bytes: 0,
      bytesWritten: this.#bytesWritten,
      recentMs: [],
    };
  }

  onFailure(report: (error: Error) => void): void {
    this.#onFailure = report;
  }

  async close(): Promise<void> {}
}
