/**
 * When the log forgets its beginning: on a clock of its own, not on traffic, so that an idle member gives its
 * disk back too. Only what the state holds durably is forgotten (S3), and never what a member needs that is
 * fetching a snapshot; of the rest a tail is kept, from which a member that was away for a while catches up
 * without one.
 *
 * How much: a tail longer than the state is worth nothing, since sending the state is then the shorter way. So
 * the tail is as long as the state, up to a bound. A young tail may be longer than a small state: a member that
 * falls behind for seconds should not need a snapshot. And what is old goes in any case. The bounds are settings
 * of the cluster (`log_tail`), read at each look: whoever leads sends from its own log, so all keep alike.
 */
import type { Clock, Log, Millis, Timer } from "../replica/ports.ts";
import { asIndex, type LogIndex } from "../raft/types.ts";

/** Between two looks. A look alone costs nothing: it compares a few numbers. */
const LOOK_MS: Millis = 1_000;
/** Where the log was when: a mark for so many bytes, or so much time if less came in. */
const MARK_BYTES = 1024 * 1024;
const MARK_MS: Millis = 60_000;
/** Of what was in the log before this process started only the length is known: taken as even. */
const MARKS_BEFORE = 16;

export interface TailLimits {
  readonly bytesMax: number;
  readonly ageMaxMs: Millis;
  /** What is younger than `youngMs` is kept up to this length, `bytesMax` at most. */
  readonly youngBytes: number;
  readonly youngMs: Millis;
}

export interface LogCompactionOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** As they are at this moment. */
  readonly limits: () => TailLimits;
  /** Last entry applied. */
  readonly applied: () => number;
  /** Of entries' data, handed to the log since the process started. */
  readonly bytesWritten: () => number;
  /** Held at the start. */
  readonly recovered: { readonly entries: number; readonly bytes: number };
  /** The applied index that a checkpoint has made durable. */
  readonly durableApplied: () => number;
  /** Of the state database. @throws Error it is being replaced */
  readonly stateBytes: () => Promise<number>;
  /** Forgets what is not needed up to there; resolves with the last entry forgotten. */
  readonly compact: (index: LogIndex) => Promise<LogIndex>;
}

interface Mark {
  readonly index: number;
  readonly bytes: number;
  readonly at: Millis;
}

export class LogCompaction {
  readonly #o: LogCompactionOptions;
  /** Ascending. At most as many as fit into the longest tail and the greatest age that may be set: some 100,000. */
  readonly #marks: Mark[] = [];
  #timer: Timer | null = null;
  #compacted = 0;
  #stopped = false;

  constructor(options: LogCompactionOptions) {
    this.#o = options;
    const { entries, bytes } = options.recovered;
    const at = options.clock.monotonic();
    const last = options.applied();
    for (let left = MARKS_BEFORE; left >= 0; left--) {
      const part = left / MARKS_BEFORE;
      this.#marks.push({ index: Math.floor(last - entries * part), bytes: -bytes * part, at });
    }
    this.#again();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #again(): void {
    if (this.#stopped) return;
    this.#timer = this.#o.clock.after(LOOK_MS, () => {
      this.#look()
        .catch((error: unknown) => {
          this.#o.log.error("the log cannot be compacted", { error: String(error) });
        })
        .finally(() => this.#again());
    });
  }

  async #look(): Promise<void> {
    const now = this.#o.clock.monotonic();
    this.#mark(now);
    const stateBytes = await this.#o.stateBytes();
    const until = Math.min(this.#beyond(stateBytes, now), this.#o.durableApplied());
    if (until <= this.#compacted || this.#stopped) return;
    this.#compacted = await this.#o.compact(asIndex(until));
  }

  #mark(now: Millis): void {
    const index = this.#o.applied();
    const bytes = this.#o.bytesWritten();
    const newest = this.#marks.at(-1);
    if (newest !== undefined) {
      if (index <= newest.index) return;
      if (bytes - newest.bytes < MARK_BYTES && now - newest.at < MARK_MS) return;
    }
    this.#marks.push({ index, bytes, at: now });
  }

  /** The newest mark that enough was written behind, or that is old enough; the marks before it are forgotten. */
  #beyond(stateBytes: number, now: Millis): number {
    const { bytesMax, ageMaxMs, youngBytes, youngMs } = this.#o.limits();
    const tail = Math.min(bytesMax, stateBytes);
    const youngTail = Math.min(bytesMax, Math.max(youngBytes, tail));
    const written = this.#o.bytesWritten();
    const newest = this.#marks.findLastIndex(({ bytes, at }) => {
      const age = now - at;
      return written - bytes >= (age < youngMs ? youngTail : tail) || age >= ageMaxMs;
    });
    if (newest > 0) this.#marks.splice(0, newest);
    return newest < 0 ? 0 : (this.#marks[0]?.index ?? 0);
  }
}
