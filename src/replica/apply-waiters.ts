/** Reads whose index is known and that wait until this member has applied it. */
import type { LogIndex } from "../raft/types.ts";
import type { ConsensusError } from "./consensus.ts";
import type { Millis } from "./ports.ts";

export interface ApplyWaiter {
  readonly index: LogIndex;
  readonly deadline: Millis;
  readonly resolve: (index: LogIndex) => void;
  readonly reject: (error: ConsensusError) => void;
}

/** Bounded by `Reads`, which every one of them went through. */
export class ApplyWaiters {
  #waiting: ApplyWaiter[] = [];

  add(waiter: ApplyWaiter): void {
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
    if (!this.#waiting.some(which)) return [];
    const taken = this.#waiting.filter(which);
    this.#waiting = this.#waiting.filter((waiter) => !which(waiter));
    return taken;
  }
}
