/**
 * When the log forgets its beginning: on a clock of its own, not on traffic, so that an idle member gives its
 * disk back too. Only what the state holds durably is forgotten (S3), and never what a member needs that is
 * fetching a snapshot; of the rest a tail is kept, from which a member that was away for a while catches up
 * without one.
 *
 * How much: a tail longer than the state is worth nothing, since sending the state is then the shorter way. So
 * the tail is as long as the state, up to a bound. A young tail may be longer than a small state: a member that
 * falls behind for seconds should not need a snapshot. And what is a day old goes in any case.
 */
import type { Clock, Log, Millis, Timer } from "../replica/ports.ts";
import { asIndex, type LogIndex } from "../raft/types.ts";

/** Between two looks. A look alone costs nothing: it compares a few numbers. */
const LOOK_MS: Millis = 1_000;
/** A minute of 4 MiB/s: a restart under load. Disks are larger, but they are somebody's. */
const TAIL_BYTES_MAX = 256 * 1024 * 1024;
/** Four times what may be on its way to one member, however small the state is. */
const YOUNG_BYTES = 32 * 1024 * 1024;
/** A member that was away for longer has not just fallen behind. */
const YOUNG_MS: Millis = 60_000;
const AGE_MAX_MS: Millis = 86_400_000;
/** Where the log was when: a mark for so many bytes, or so much time if less came in. */
const MARK_BYTES = 1024 * 1024;
const MARK_MS: Millis = 60_000;
/** Of what was in the log before this process started only the length is known: taken as even. */
const MARKS_BEFORE = 16;

export interface LogCompactionOptions {
  readonly clock: Clock;
  readonly log: Log;
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
  /** Ascending. At most as many as fit into the longest tail and the greatest age. */
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
    const tail = Math.min(TAIL_BYTES_MAX, await this.#o.stateBytes());
    const until = Math.min(this.#beyond(tail, now), this.#o.durableApplied());
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
  #beyond(tail: number, now: Millis): number {
    const written = this.#o.bytesWritten();
    const newest = this.#marks.findLastIndex(({ bytes, at }) => {
      const age = now - at;
      const kept = age < YOUNG_MS ? Math.max(YOUNG_BYTES, tail) : tail;
      return written - bytes >= kept || age >= AGE_MAX_MS;
    });
    if (newest > 0) this.#marks.splice(0, newest);
    return newest < 0 ? 0 : (this.#marks[0]?.index ?? 0);
  }
}
