/**
 * A core with the least that a driver does around it: a model disk whose writes wait until they are let
 * through, messages that wait for the disk, applies, fetches, snapshots. Shared by the traces and the
 * randomised cluster; time, network and order are decided by who plays it.
 */
import { decodeConfigurationEntry } from "../../src/raft/configuration.ts";
import { Raft, type RaftOptions, type RecoveredState } from "../../src/raft/raft.ts";
import {
  asIndex,
  asTerm,
  type Configuration,
  type Effects,
  type Entry,
  type FetchRequest,
  type HardState,
  type LogIndex,
  type Message,
  type NodeId,
  type PersistOp,
  type ReadState,
  type SnapshotMeta,
  type Term,
} from "../../src/raft/types.ts";

/** What survives a crash. */
export class Disk {
  hardState: HardState = { term: asTerm(0), vote: null };
  compacted: { index: LogIndex; term: Term } = { index: asIndex(0), term: asTerm(0) };
  snapshotConfiguration: Configuration | null = null;
  entries: Entry[] = [];
  /** Set while the log is repaired after damage. */
  promised: { index: LogIndex; term: Term } | null = null;
  /** What damage took: not its owner's any more, but it had been acknowledged. */
  readonly lost: Entry[] = [];

  get last(): LogIndex {
    return asIndex(this.compacted.index + this.entries.length);
  }

  get(index: number): Entry | undefined {
    return this.entries[index - this.compacted.index - 1];
  }

  termAt(index: number): Term | null {
    if (index === this.compacted.index) return this.compacted.term;
    return this.get(index)?.term ?? null;
  }

  write({ hardState, entries }: PersistOp): void {
    if (hardState !== null) this.hardState = hardState;
    const first = entries[0];
    if (first === undefined) return;
    if (first.index <= this.compacted.index) throw new Error("a compacted entry is written again");
    if (first.index > this.last + 1) throw new Error(`gap in the log before ${first.index}`);
    this.entries.length = first.index - this.compacted.index - 1;
    this.entries.push(...entries);
  }

  compact(index: LogIndex): void {
    const term = this.termAt(index);
    if (term === null) throw new Error(`index ${index} is not in the log`);
    this.snapshotConfiguration = this.configurationAt(index);
    this.entries = this.entries.slice(index - this.compacted.index);
    this.compacted = { index, term };
  }

  configurationAt(index: number): Configuration | null {
    const entry = this.entries.findLast(
      ({ kind, index: at }) => at <= index && (kind === "config" || kind === "bootstrap"),
    );
    return entry === undefined ? this.snapshotConfiguration : decodeConfigurationEntry(entry);
  }

  install({ index, term, configuration }: SnapshotMeta): void {
    this.compacted = { index, term };
    this.snapshotConfiguration = configuration;
    this.entries = [];
  }

  recovered(applied: LogIndex, tailLength: number): RecoveredState {
    const terms: { index: LogIndex; term: Term }[] = [];
    for (const { index, term } of this.entries)
      if (terms.at(-1)?.term !== term) terms.push({ index, term });
    return {
      hardState: this.hardState,
      compacted: this.compacted,
      terms,
      lastIndex: this.last,
      tail: tailLength === 0 ? [] : this.entries.slice(-tailLength),
      configurations: this.entries.filter(({ kind }) => kind === "config" || kind === "bootstrap"),
      snapshotConfiguration: this.snapshotConfiguration,
      applied,
      promised: this.promised,
    };
  }

  /** Entries from `index` on are damaged: they are forgotten, but not that they were promised. */
  damage(index: LogIndex): void {
    const owed = Math.max(this.last, this.promised?.index ?? 0);
    this.promised = { index: asIndex(owed), term: this.hardState.term };
    this.lost.push(...this.entries.slice(index - this.compacted.index - 1));
    this.entries.length = index - this.compacted.index - 1;
  }
}

export interface PendingWrite {
  readonly op: PersistOp;
  /** Leave when this write, and all before it, are done. */
  readonly after: Message[];
}

export class Member {
  raft: Raft;
  readonly disk: Disk;
  applied: LogIndex;
  writes: PendingWrite[] = [];
  /** Messages that may leave. */
  sent: Message[] = [];
  reads: ReadState[] = [];
  fetches: FetchRequest[] = [];
  installs: NonNullable<Effects["install"]>[] = [];

  constructor(
    readonly id: NodeId,
    readonly options: RaftOptions,
    disk: Disk,
    applied: LogIndex,
    tailLength = Infinity,
  ) {
    this.disk = disk;
    this.applied = applied;
    this.raft = new Raft(
      options,
      disk.recovered(applied, Math.min(tailLength, disk.entries.length)),
    );
  }

  /** Takes the core's effects; writes wait. Answers what was taken. */
  pump(): Effects[] {
    const taken: Effects[] = [];
    for (;;) {
      const { hasWork } = this.raft;
      const effects = this.raft.takeEffects();
      // The driver looks for effects only then.
      if (effects !== null && !hasWork) throw new Error(`${this.raft.id} has work and hides it`);
      if (effects === null) break;
      taken.push(effects);
      if (effects.persist !== null) this.writes.push({ op: effects.persist, after: [] });
      this.sent.push(...effects.messages);
      const last = this.writes.at(-1);
      if (last === undefined) this.sent.push(...effects.afterPersist);
      else last.after.push(...effects.afterPersist);
      this.reads.push(...effects.reads);
      this.fetches.push(...effects.fetches);
      if (effects.install !== null) this.installs.push(effects.install);
    }
    return taken;
  }

  /** The disk finishes its oldest write. False when there is none. */
  persist(): boolean {
    const write = this.writes.shift();
    if (write === undefined) return false;
    this.disk.write(write.op);
    const last = write.op.entries.at(-1);
    this.raft.persisted({
      hardState: write.op.hardState,
      last: last === undefined ? null : { index: last.index, term: last.term },
    });
    this.sent.push(...write.after);
    return true;
  }

  /** Applies what may be applied. */
  apply(): readonly Entry[] {
    const from = asIndex(this.applied + 1);
    const to = this.raft.applicable;
    if (to < from) return [];
    const entries =
      this.raft.entriesFromCache(from, to) ??
      Array.from({ length: to - this.applied }, (_, i) => {
        const entry = this.disk.get(from + i);
        if (entry === undefined) throw new Error(`entry ${from + i} is neither cached nor stored`);
        return entry;
      });
    this.applied = to;
    this.raft.applied(to);
    return entries;
  }

  /** Answers the oldest fetch from the disk. */
  fetch(): boolean {
    const request = this.fetches.shift();
    if (request === undefined) return false;
    const { peer, from, to, maxBytes } = request;
    const entries: Entry[] = [];
    let bytes = 0;
    for (let index = from as number; index <= to; index++) {
      const entry = this.disk.get(index);
      if (entry === undefined) break;
      bytes += entry.data.length + 64;
      if (entries.length > 0 && bytes > maxBytes) break;
      entries.push(entry);
    }
    this.raft.fetched(peer, entries);
    return true;
  }

  compact(index: LogIndex): void {
    this.disk.compact(index);
    this.raft.compacted(index);
  }

  /** Replaces state and log by `snapshot` if it is ahead; writes under way are finished first. */
  install(snapshot: SnapshotMeta): boolean {
    this.pump();
    while (this.persist()) this.pump();
    if (this.raft.role === "leader" || snapshot.index <= this.raft.commit) return false;
    this.disk.install(snapshot);
    this.applied = snapshot.index;
    this.raft.snapshotInstalled(snapshot);
    return true;
  }

  /** What this member would send as a snapshot now. */
  snapshot(): SnapshotMeta | null {
    const term = this.raft.termAt(this.applied);
    const configuration = this.disk.configurationAt(this.applied);
    if (term === null || configuration === null) return null;
    return { index: this.applied, term, configuration };
  }
}
