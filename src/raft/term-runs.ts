/**
 * The term of every index in the log, kept as runs: (first index, term). A log has as many runs as
 * leaderships wrote into it, so terms stay in memory when the entries themselves have left the cache.
 */
import { invariant, must } from "./invariant.ts";
import { asIndex, type LogIndex, type Term, TERM_0 } from "./types.ts";

export interface LogPosition {
  readonly index: LogIndex;
  readonly term: Term;
}

export class TermRuns {
  /** Entry before the first one kept; its term is known too. */
  #compacted: LogPosition;
  /** Ascending in index and term; the first starts at compacted.index + 1 unless the log is empty. */
  #runs: LogPosition[];
  #last: LogIndex;

  constructor(compacted: LogPosition, runs: readonly LogPosition[], last: LogIndex) {
    this.#compacted = compacted;
    this.#runs = [...runs];
    this.#last = last;
    const first = this.#runs[0];
    invariant(last >= compacted.index, "the log ends before its first entry");
    invariant(
      first === undefined ? last === compacted.index : first.index === compacted.index + 1,
      "terms are known from the first entry on",
    );
  }

  get compacted(): LogPosition {
    return this.#compacted;
  }

  get last(): LogIndex {
    return this.#last;
  }

  get lastTerm(): Term {
    return this.#runs.at(-1)?.term ?? this.#compacted.term;
  }

  /** Null outside [compacted.index, last]. */
  termAt(index: LogIndex): Term | null {
    if (index < this.#compacted.index || index > this.#last) return null;
    if (index === this.#compacted.index) return this.#compacted.term;
    for (let i = this.#runs.length - 1; ; i--) {
      const run = must(this.#runs[i], "terms are known from the first entry on");
      if (run.index <= index) return run.term;
    }
  }

  append(term: Term): void {
    invariant(term >= this.lastTerm, "terms never fall along the log");
    this.#last = asIndex(this.#last + 1);
    if (this.#runs.length === 0 || term !== this.lastTerm) {
      this.#runs.push({ index: this.#last, term });
    }
  }

  /** Forgets `from` and everything behind it. */
  truncate(from: LogIndex): void {
    invariant(from > this.#compacted.index, "what was compacted cannot be truncated");
    while ((this.#runs.at(-1)?.index ?? 0) >= from) this.#runs.pop();
    this.#last = asIndex(Math.min(this.#last, from - 1));
  }

  compact(index: LogIndex): void {
    const term = this.termAt(index);
    invariant(term !== null, "only what is in the log is compacted");
    this.#compacted = { index, term };
    while ((this.#runs[1]?.index ?? Infinity) <= index + 1) this.#runs.shift();
    const first = must(this.#runs[0], "an entry behind the compacted one has a term");
    if (index === this.#last) this.#runs = [];
    else this.#runs[0] = { index: asIndex(index + 1), term: first.term };
  }

  /** The log is replaced by a snapshot. */
  restart(at: LogPosition): void {
    this.#compacted = at;
    this.#runs = [];
    this.#last = at.index;
  }

  /**
   * The last position at or before `index` whose term is at most `term`: where two logs could still agree,
   * when one of them is known to hold `term` at `index`. Used on both sides of a refused append.
   *
   *     index   1 2 3 4 5 6 7 8 9
   *     leader  1 3 3 3 5 5 5 5 5     refused at prevIndex 9, prevTerm 5
   *     here    1 1 1 1 2 2           answer: index 6, term 2 (its last entry is older than term 5)
   *
   * The leader then looks for the last position ≤ 6 with a term ≤ 2 in its own log and finds 1: one
   * refusal, not five.
   */
  lastAtMost(index: LogIndex, term: Term): LogPosition {
    let at = Math.min(index, this.#last);
    for (let i = this.#runs.length - 1; i >= 0; i--) {
      const run = must(this.#runs[i], "the loop stays within the terms");
      if (run.index > at) continue;
      if (run.term <= term) return { index: asIndex(at), term: run.term };
      at = run.index - 1;
    }
    if (at < this.#compacted.index) return { index: asIndex(Math.max(at, 0)), term: TERM_0 };
    return this.#compacted;
  }
}
