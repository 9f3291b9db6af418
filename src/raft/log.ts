/**
 * The replicated log as one member sees it: positions, terms, the entry cache, what is durable, what is
 * committed, and the configurations in it. Entries that have left the cache are in storage only.
 *
 *     compacted ≤ applied ≤ min(commit, durable);   durable ≤ handed ≤ last;   commit ≤ last
 */
import { ConfigurationHistory } from "./configuration-history.ts";
import { EntryCache, entryBytes } from "./entry-cache.ts";
import { invariant } from "./invariant.ts";
import { PendingWrites } from "./pending-writes.ts";
import { type LogPosition, TermRuns } from "./term-runs.ts";
import {
  asIndex,
  type Configuration,
  type Entry,
  type HardState,
  type LogIndex,
  type PersistAck,
  type PersistOp,
  type SnapshotMeta,
  type Term,
} from "./types.ts";

/** What storage found when it was opened, synced and verified; everything in it is durable. */
export interface RecoveredState {
  readonly hardState: HardState;
  /** Entry before the first one kept; (0, 0) when nothing was compacted. */
  readonly compacted: LogPosition;
  /** Terms by the first index that bears them, ascending, from compacted.index + 1 on. */
  readonly terms: readonly LogPosition[];
  readonly lastIndex: LogIndex;
  /** The newest entries, contiguous up to lastIndex; may be fewer than there are. */
  readonly tail: readonly Entry[];
  /** Every `config` and `bootstrap` entry still in the log, ascending. */
  readonly configurations: readonly Entry[];
  /** The configuration as of compacted.index; null when nothing was compacted. */
  readonly snapshotConfiguration: Configuration | null;
  readonly applied: LogIndex;
  /**
   * Set while this log is repaired from the others: entries up to `index` may have been acknowledged, in terms up
   * to `term`, and were found damaged: what was lost did not reach further than that position.
   */
  readonly promised?: LogPosition | null;
  /** Known to be committed; at least `applied`. */
  readonly commit?: LogIndex;
}

export class RaftLog {
  readonly #terms: TermRuns;
  readonly #cache: EntryCache;
  readonly #cacheBytes: number;
  readonly #configurations: ConfigurationHistory;
  readonly #writes = new PendingWrites();
  /** Never falls; everything up to it equals the log of every leader to come (5.4.3). */
  #commit: LogIndex;
  /** What the driver's state machine has applied. */
  #applied: LogIndex;
  /** Falls only when what is behind it is truncated. */
  #durable: LogIndex;
  /** Entries up to here were handed to storage by takeEffects. */
  #handed: LogIndex;
  /** Bytes of the entries in (durable, last]. */
  #undurableBytes = 0;

  constructor(recovered: RecoveredState, cacheBytes: number) {
    const { compacted, terms, lastIndex, tail, applied } = recovered;
    this.#terms = new TermRuns(compacted, terms, lastIndex);
    this.#cache = new EntryCache(lastIndex, tail);
    this.#cacheBytes = cacheBytes;
    this.#configurations = new ConfigurationHistory(
      compacted.index,
      recovered.snapshotConfiguration,
      recovered.configurations,
    );
    this.#applied = applied;
    this.#commit = asIndex(Math.max(recovered.commit ?? 0, applied, compacted.index));
    this.#durable = lastIndex;
    this.#handed = lastIndex;
    invariant(compacted.index <= applied, "what was not applied is not compacted");
    invariant(this.#commit <= lastIndex, "the log lost entries that were committed");
    this.#cache.evict(this.#durable, cacheBytes);
  }

  get last(): LogIndex {
    return this.#terms.last;
  }

  get lastTerm(): Term {
    return this.#terms.lastTerm;
  }

  get compacted(): LogPosition {
    return this.#terms.compacted;
  }

  get commit(): LogIndex {
    return this.#commit;
  }

  get applied(): LogIndex {
    return this.#applied;
  }

  get durable(): LogIndex {
    return this.#durable;
  }

  /** Last index that may be applied: committed AND durable here (rule S2). */
  get applicable(): LogIndex {
    return asIndex(Math.min(this.#commit, this.#durable));
  }

  get cachedBytes(): number {
    return this.#cache.bytes;
  }

  get undurableBytes(): number {
    return this.#undurableBytes;
  }

  /** Writes handed to storage and not answered. */
  get writesUnderWay(): number {
    return this.#writes.count;
  }

  /** When the oldest of them was handed over, as `takeWrite` was told; null: none. */
  get oldestWriteAt(): number | null {
    return this.#writes.oldestAt;
  }

  /** First index that the cache holds; entries before it must be fetched. */
  get cachedFrom(): LogIndex {
    return this.#cache.first;
  }

  /** The configuration in force: the newest one in the log, committed or not. */
  get configuration(): Configuration {
    return this.#configurations.current;
  }

  get configurationIndex(): LogIndex {
    return this.#configurations.currentIndex;
  }

  configurationAt(index: LogIndex): Configuration {
    return this.#configurations.at(index);
  }

  hasHeld(incarnation: string): boolean {
    return this.#configurations.hasHeld(incarnation);
  }

  /** Null outside [compacted.index, last]. */
  termAt(index: LogIndex): Term | null {
    return this.#terms.termAt(index);
  }

  lastAtMost(index: LogIndex, term: Term): LogPosition {
    return this.#terms.lastAtMost(index, term);
  }

  /** Whether a log that ends at `other` may lead this one (5.4.1): higher last term, or equal and as long. */
  isCoveredBy(other: LogPosition): boolean {
    return other.term > this.lastTerm || (other.term === this.lastTerm && other.index >= this.last);
  }

  slice(from: LogIndex, to: LogIndex): readonly Entry[] | null {
    return this.#cache.slice(from, to);
  }

  sized(from: LogIndex, maxBytes: number): readonly Entry[] | null {
    return this.#cache.sized(from, maxBytes);
  }

  append(entry: Entry): void {
    invariant(entry.index === this.last + 1, "the log has no gap");
    this.#terms.append(entry.term);
    this.#cache.append(entry);
    this.#undurableBytes += entryBytes(entry);
    this.#evict();
    if (entry.kind === "config" || entry.kind === "bootstrap") this.#configurations.append(entry);
  }

  /**
   * Follower: takes over what is new in `entries`, which follow a position that was checked. Only a real
   * conflict of terms truncates (5.3, figure 2): a late or repeated append never shortens the log.
   * Answers the first index that was truncated, or null.
   */
  merge(entries: readonly Entry[]): LogIndex | null {
    const news = entries.findIndex(({ index, term }) => this.termAt(index) !== term);
    const first = news < 0 ? undefined : entries[news];
    if (first === undefined) return null;
    const truncated = first.index <= this.last ? first.index : null;
    if (truncated !== null) this.#truncate(truncated);
    for (const entry of entries.slice(news)) this.append(entry);
    return truncated;
  }

  #truncate(from: LogIndex): void {
    invariant(from > this.#commit, `a committed entry would be truncated, at index ${from}`);
    for (let index = this.last; index > this.#durable && index >= from; index--) {
      this.#undurableBytes -= entryBytes(this.#cache.get(index)); // what is not durable is in the cache
    }
    this.#terms.truncate(from);
    this.#cache.truncate(from);
    this.#configurations.truncate(from);
    this.#writes.truncated(from);
    this.#durable = asIndex(Math.min(this.#durable, from - 1));
    this.#handed = asIndex(Math.min(this.#handed, from - 1));
  }

  /** Never lowers. @throws InvariantViolation beyond the end of the log. */
  commitTo(index: LogIndex): void {
    if (index <= this.#commit) return;
    invariant(
      index <= this.last,
      `index ${index} is committed but this log ends at ${this.last}: it lost entries that it had acknowledged; remove this member and add it again`,
    );
    this.#commit = index;
  }

  appliedTo(index: LogIndex): void {
    invariant(index >= this.#applied, "applied never goes back");
    invariant(index <= this.applicable, "only what is committed and durable here is applied");
    this.#applied = index;
  }

  /** Entries that were not handed to storage. */
  get hasUnwritten(): boolean {
    return this.#handed < this.last;
  }

  /** The write to hand to storage now, if there is one. `at`: now, in any unit that grows. */
  takeWrite(hardState: HardState | null, at: number): PersistOp | null {
    if (hardState === null && !this.hasUnwritten) return null;
    const entries = this.#cache.slice(asIndex(this.#handed + 1), this.last);
    invariant(entries !== null, "what was not handed over is in the cache");
    const op: PersistOp = { hardState, entries };
    this.#handed = this.last;
    this.#writes.add(op, at);
    return op;
  }

  /** Null for what counts for nothing; else the hard state that is durable now, if any, and when it was handed over. */
  persisted(ack: PersistAck): { hardState: HardState | null; at: number } | null {
    const write = this.#writes.acknowledged(ack);
    if (write === null) return null;
    invariant(write.durable <= this.#handed, "what was not handed over is not durable");
    for (let index = this.#durable + 1; index <= write.durable; index++) {
      this.#undurableBytes -= entryBytes(this.#cache.get(asIndex(index)));
    }
    this.#durable = asIndex(Math.max(this.#durable, write.durable));
    this.#evict();
    return write;
  }

  /** The store has dropped everything up to `index`. */
  compactTo(index: LogIndex): void {
    if (index <= this.compacted.index) return;
    invariant(index <= this.#applied, "only what is applied is compacted");
    this.#terms.compact(index);
    this.#configurations.compact(index);
    this.#cache.forgetTo(index);
  }

  /** State and log were replaced by a snapshot, durably; no suffix is kept, it may conflict. */
  restart({ index, term, configuration }: SnapshotMeta): void {
    invariant(index > this.#commit, "a snapshot behind the commit index would lose entries");
    this.#terms.restart({ index, term });
    this.#cache.restart(index);
    this.#configurations.restart(index, configuration);
    this.#writes.truncated(asIndex(1));
    this.#undurableBytes = 0;
    this.#commit = index;
    this.#applied = index;
    this.#durable = index;
    this.#handed = index;
  }

  /** Leaves nothing in memory that is applied here: storage has it. */
  dropCache(): void {
    this.#cache.evict(this.#applied, 0);
  }

  #evict(): void {
    this.#cache.evict(this.#durable, this.#cacheBytes);
  }
}
