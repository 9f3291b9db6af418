/**
 * How old this member's own state may be. A follower asks the leader "what is committed?" every
 * 100 ms; the answer was sent after the question, so once its commit is applied here, the state is no older
 * than the question. Nothing is assumed about clocks.
 */
import type { LogIndex } from "../raft/types.ts";
import type { Millis } from "./ports.ts";

/** Between two questions; also the least staleness that a follower can show. */
export const BEAT_MS: Millis = 100;
/** Answers whose commit is not applied yet. */
const BEATS_KEPT = 64;

export class Staleness {
  #freshAt: Millis | null = null;
  #committedFreshAt: Millis | null = null;
  readonly #beats: { askedAt: Millis; commit: LogIndex }[] = [];

  beat(askedAt: Millis, commit: LogIndex, applied: LogIndex): void {
    this.#beats.push({ askedAt, commit });
    if (this.#beats.length > BEATS_KEPT) this.#beats.shift();
    this.applied(applied);
  }

  applied(applied: LogIndex): void {
    while (this.#beats[0] !== undefined && this.#beats[0].commit <= applied) {
      this.#freshAt = Math.max(this.#freshAt ?? 0, this.#beats[0].askedAt);
      this.#beats.shift();
    }
  }

  /** The state is committed to its file as it is. */
  committed(): void {
    this.#committedFreshAt = this.#freshAt;
  }

  /** The state is as of its newest commit again: as old as it was then. */
  wentBack(): void {
    this.#freshAt = this.#committedFreshAt;
    this.#beats.length = 0;
  }

  /** Another state has taken its place, as of some earlier index: how old it is is not known. */
  replaced(): void {
    this.#freshAt = null;
    this.#committedFreshAt = null;
    this.#beats.length = 0;
  }

  ageMs(now: Millis): Millis | null {
    return this.#freshAt === null ? null : now - this.#freshAt;
  }
}
