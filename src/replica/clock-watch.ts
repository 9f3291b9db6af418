/**
 * Tells a member whether its wall clock is the odd one out (rule T1). Members tell each other their wall
 * clocks every second; a member that disagrees with more members than it agrees with must not campaign,
 * because its first entry as a leader would carry its wrong time. Counted over the members heard lately,
 * itself agreeing with itself, so that two survivors that disagree are not both silenced.
 */
import type { NodeId } from "../raft/types.ts";
import type { Clock, Millis } from "./ports.ts";

/** Largest difference between two wall clocks that counts as agreement. */
const CLOCK_SKEW_MAX_MS: Millis = 5_000;
/** A word of a peer older than this says nothing. */
const HEARD_LATELY_MS: Millis = 10_000;
/**
 * What a peer said counts for so long after the connection to it broke: one that is dialled anew carries its clock
 * only with the next word, a second later, and in that second a member must not take itself for the only witness.
 */
const KEPT_MS: Millis = 3_000;

interface Word {
  /** What the peer's wall clock showed at `at` of this member's monotonic clock. */
  readonly wall: Millis;
  readonly at: Millis;
  /** Since when there is no connection to it, or null. */
  lostAt: Millis | null;
}

export class ClockWatch {
  readonly #clock: Clock;
  readonly #heard = new Map<NodeId, Word>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A peer said what its wall clock shows; the time on the wire is small beside the limit. */
  heard(peer: NodeId, wall: Millis): void {
    this.#heard.set(peer, { wall, at: this.#clock.monotonic(), lostAt: null });
  }

  /** The connection to this peer is over; its word counts for a while, or until the next one. */
  lost(peer: NodeId): void {
    const now = this.#clock.monotonic();
    for (const [id, { lostAt }] of this.#heard)
      if (lostAt !== null && now - lostAt > KEPT_MS) this.#heard.delete(id);
    const word = this.#heard.get(peer);
    if (word !== undefined) word.lostAt ??= now;
  }

  /** The peer said so at least once since it was connected. */
  knows(peer: NodeId): boolean {
    return this.#heard.get(peer)?.lostAt === null;
  }

  /** As far as this member can tell the peer's wall clock shows about the same as its own. */
  agreesWith(peer: NodeId): boolean {
    return Math.abs(this.#offset(peer) ?? 0) <= CLOCK_SKEW_MAX_MS;
  }

  /**
   * How far the peer's wall clock is ahead of this one's, or null. Counted on by the monotonic clock, so that
   * a jump of the own wall clock shows at once and not with the peer's next word.
   */
  #offset(peer: NodeId): Millis | null {
    const heard = this.#heard.get(peer);
    if (heard === undefined) return null;
    return heard.wall + (this.#clock.monotonic() - heard.at) - this.#clock.wall();
  }

  /** What the middle one of the known wall clocks shows, own included, whole epoch ms: right while most are. */
  medianWall(): Millis {
    const offsets = [0, ...[...this.#heard.keys()].map((peer) => this.#offset(peer) ?? 0)];
    offsets.sort((a, b) => a - b);
    return Math.floor(this.#clock.wall() + (offsets[Math.floor(offsets.length / 2)] ?? 0));
  }

  /** A sentence when this member's clock is the odd one out, else null. */
  skewed(): string | null {
    const now = this.#clock.monotonic();
    // Read once: this is asked with every tick.
    const own = this.#clock.wall();
    let agree = 1;
    let disagree = 0;
    for (const { wall, at, lostAt } of this.#heard.values()) {
      if (now - at > HEARD_LATELY_MS || (lostAt !== null && now - lostAt > KEPT_MS)) continue;
      if (Math.abs(wall + (now - at) - own) <= CLOCK_SKEW_MAX_MS) agree += 1;
      else disagree += 1;
    }
    if (disagree <= agree) return null;
    return `the wall clock differs by more than ${CLOCK_SKEW_MAX_MS / 1000} s from ${disagree} other members: set it right, this member does not campaign until then`;
  }
}
