/** Reads whose index is known and that wait until this member has applied it. */
import type { LogIndex } from "../raft/types.ts";
import { ConsensusError } from "./consensus.ts";
import type { Millis } from "./ports.ts";

export interface ApplyWaiter {
  readonly index: LogIndex;
  readonly deadline: Millis;
  readonly resolve: (index: LogIndex) => void;
  readonly reject: (error: ConsensusError) => void;
}

/** While a disk is full, or a snapshot is installed, nothing is applied, and reads must not pile up without end. */
const WAITERS_MAX = 20_000;

export class ApplyWaiters {
  #waiting: ApplyWaiter[] = [];

  /** Refuses the waiter when too many wait already. */
  add(waiter: ApplyWaiter): void {
    if (this.#waiting.length >= WAITERS_MAX) {
      waiter.reject(
        new ConsensusError("overloaded", `${WAITERS_MAX} reads wait for this member to catch up`),
      );
      return;
    }
    this.#waiting.push(waiter);
  }

  applied(index: LogIndex): void {
    for (const waiter of this.#take((one) => one.index <= index)) waiter.resolve(waiter.index);
  }

  sweep(now: Millis, late: () => ConsensusError): void {
    for (const waiter of this.#take((one) => one.deadline <= now)) waiter.reject(late());
  }

  failAll(error: () => ConsensusError): void {
    for (const waiter of this.#take(() => true)) waiter.reject(error());
  }

  #take(which: (waiter: ApplyWaiter) => boolean): readonly ApplyWaiter[] {
    if (this.#waiting.length === 0 || !this.#waiting.some(which)) return [];
    const taken = this.#waiting.filter(which);
    this.#waiting = this.#waiting.filter((waiter) => !which(waiter));
    return taken;
  }
}
