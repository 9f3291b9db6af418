/**
 * The newest entries of the log in memory: contiguous, ending at the last index, bounded in bytes.
 *
 * Eviction rule: an entry may leave only when it is durable in this member's own log, because from then on
 * storage can give it back. What is not durable exists nowhere else here; it stays whatever it costs, and
 * the limits on proposals and appends bound how much that can be.
 */
import { invariant, must } from "./invariant.ts";
import { asIndex, type Entry, INDEX_0, type LogIndex, TERM_0 } from "./types.ts";

/** What an entry costs beside its data: the object, its index, its term. */
const ENTRY_OVERHEAD_BYTES = 64;

/** The array is compacted when this many evicted slots are in front; keeps eviction cheap. */
const EVICTED_SLOTS_MAX = 512;

/**
 * Takes the place of an evicted entry until the array is compacted: 512 entries of 8 MiB that nobody counts any more
 * would be 4 GiB.
 */
const EVICTED: Entry = { index: INDEX_0, term: TERM_0, kind: "noop", data: new Uint8Array() };

const NOTHING_HELD = "an entry is held that can be dropped";

/** Bytes that an entry counts for in every limit. */
export function entryBytes(entry: Entry): number {
  return dataBytes(entry.data);
}

/** Of an entry with this data. */
export function dataBytes(data: Uint8Array): number {
  return data.length + ENTRY_OVERHEAD_BYTES;
}

export class EntryCache {
  #entries: Entry[] = [];
  /** Slots of #entries that are evicted, all of them in front. */
  #head = 0;
  #bytes = 0;
  #last: LogIndex;

  constructor(last: LogIndex, tail: readonly Entry[]) {
    const [first] = tail;
    this.#last = first === undefined ? last : asIndex(first.index - 1);
    for (const entry of tail) this.append(entry);
    invariant(this.#last === last, "the tail ends at the last index");
  }

  /** First index held; last + 1 when nothing is. */
  get first(): LogIndex {
    return asIndex(this.#last - (this.#entries.length - this.#head) + 1);
  }

  get bytes(): number {
    return this.#bytes;
  }

  append(entry: Entry): void {
    invariant(entry.index === this.#last + 1, "the cache has no gap");
    this.#entries.push(entry);
    this.#bytes += entryBytes(entry);
    this.#last = entry.index;
  }

  /** Forgets `from` and everything behind it. */
  truncate(from: LogIndex): void {
    while (this.#last >= from) {
      if (this.#entries.length > this.#head) {
        this.#bytes -= entryBytes(must(this.#entries.pop(), NOTHING_HELD));
        this.#last = asIndex(this.#last - 1);
      } else this.#last = asIndex(from - 1);
    }
  }

  restart(last: LogIndex): void {
    this.#entries = [];
    this.#head = 0;
    this.#bytes = 0;
    this.#last = last;
  }

  /** @throws InvariantViolation when that entry is not here. */
  get(index: LogIndex): Entry {
    invariant(index >= this.first, "an entry that was evicted is not asked for");
    return must(this.#entries[this.#head + index - this.first], "the log reaches that far");
  }

  /** Entries [from, to], or null when some of them are not here. An empty range is an empty array. */
  slice(from: LogIndex, to: LogIndex): readonly Entry[] | null {
    if (from > to) return [];
    if (from < this.first || to > this.#last) return null;
    const start = this.#head + from - this.first;
    return this.#entries.slice(start, start + to - from + 1);
  }

  /** Entries from `from` on, as many as stay within maxBytes, but one at least; null when `from` is gone. */
  sized(from: LogIndex, maxBytes: number): readonly Entry[] | null {
    if (from < this.first) return null;
    let bytes = 0;
    let to = from - 1;
    while (to < this.#last) {
      bytes += entryBytes(this.get(asIndex(to + 1)));
      if (bytes > maxBytes && to >= from) break;
      to += 1;
    }
    return this.slice(from, asIndex(to));
  }

  /** Evicts the oldest entries down to maxBytes, but nothing behind `durable`. */
  evict(durable: LogIndex, maxBytes: number): void {
    while (this.#bytes > maxBytes && this.first <= durable) this.#drop();
  }

  /** Everything up to `index` is compacted. */
  forgetTo(index: LogIndex): void {
    while (this.first <= index) this.#drop();
  }

  #drop(): void {
    this.#bytes -= entryBytes(must(this.#entries[this.#head], NOTHING_HELD));
    this.#entries[this.#head] = EVICTED;
    this.#head += 1;
    if (this.#head >= EVICTED_SLOTS_MAX || this.#head === this.#entries.length) {
      this.#entries.splice(0, this.#head);
      this.#head = 0;
    }
  }
}
