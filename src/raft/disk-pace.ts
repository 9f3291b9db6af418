/**
 * How fast this member's own disk answers, in ticks. A leader's heartbeats flow while its disk hangs, so without a
 * look at the disk it would lead for ever and commit what only the others hold, or nothing.
 */
import type { RaftLog } from "./log.ts";

export class DiskPace {
  readonly #log: RaftLog;
  readonly #electionTicks: number;
  readonly #stallTicks: number;
  /** Ticks since this core began; writes are stamped with it. */
  now = 0;
  /** Leadership was given up for this disk, and no write since then was quick. */
  #distrusted = false;
  #probeDue = false;

  constructor(log: RaftLog, electionTicks: number, stallTicks: number) {
    this.#log = log;
    this.#electionTicks = electionTicks;
    this.#stallTicks = stallTicks;
  }

  /** How long the oldest write has been on its way; 0 when there is none. */
  get waitingTicks(): number {
    const since = this.#log.oldestWriteAt;
    return since === null ? 0 : this.now - since;
  }

  /** Too slow to lead with, if others are faster. */
  get stalls(): boolean {
    return this.waitingTicks > this.#stallTicks;
  }

  get distrusted(): boolean {
    return this.#distrusted;
  }

  distrust(): void {
    this.#distrusted = true;
  }

  /** A write that was handed over at `at` is durable. */
  answered(at: number): void {
    if (this.now - at < this.#electionTicks) this.#distrusted = false;
  }

  /**
   * Whether this member may ask for leadership. After a stall it may once a write took less than an election
   * timeout; where nothing is written, one is made for it, or a cluster that is idle could stay without a leader.
   */
  mayLead(): boolean {
    if (this.waitingTicks >= this.#electionTicks) return false;
    if (this.#distrusted && this.#log.writesUnderWay === 0) this.#probeDue = true;
    return !this.#distrusted;
  }

  /** A write is to be made that changes nothing. */
  get isProbeDue(): boolean {
    return this.#probeDue;
  }

  /** True once when a write is to be made that changes nothing. */
  takeProbe(): boolean {
    const due = this.#probeDue;
    this.#probeDue = false;
    return due;
  }
}
