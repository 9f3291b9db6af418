/**
 * Who watches what this member applies: executors for their leases, pages for changes. And how much
 * happens by the second. Nothing here is replicated or asked of anybody.
 */
import type { Clock, Millis } from "../replica/ports.ts";
import type { Signal } from "./commands.ts";
import type { Change, LeaseEvent } from "./service.ts";
import type { SignalContext } from "./state.ts";
import { Throughput, type ThroughputSecond } from "./throughput.ts";

/** Task ids named in one change; beyond it only the index says that something changed. */
const CHANGE_TASKS_MAX = 10_000;

export class Watching {
  readonly #clock: Clock;
  readonly #appliedIndex: () => number;
  readonly #throughput = new Throughput();
  readonly #leaseListeners = new Set<(event: LeaseEvent) => void>();
  readonly #changeListeners = new Set<(change: Change) => void>();
  #changed = new Set<string>();
  #scheduled = false;

  constructor(clock: Clock, appliedIndex: () => number) {
    this.#clock = clock;
    this.#appliedIndex = appliedIndex;
  }

  onLease(listener: (event: LeaseEvent) => void): () => void {
    this.#leaseListeners.add(listener);
    return () => {
      this.#leaseListeners.delete(listener);
    };
  }

  onChange(listener: (change: Change) => void): () => void {
    this.#changeListeners.add(listener);
    return () => {
      this.#changeListeners.delete(listener);
    };
  }

  throughput(now: Millis): readonly ThroughputSecond[] {
    return this.#throughput.seconds(now);
  }

  applied(signals: readonly Signal[], at: SignalContext): void {
    this.#throughput.applied(signals, at.now);
    this.#tellLeases(signals);
    if (this.#changeListeners.size === 0 || signals.length === 0) return;
    for (const signal of signals) {
      if (this.#changed.size >= CHANGE_TASKS_MAX) break;
      if (signal.type === "claimed") this.#changed.add(signal.task.id);
      else if ("id" in signal) this.#changed.add(signal.id);
    }
    this.tellChange();
  }

  /** Once per turn of the event loop, whatever happens in it. */
  tellChange(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#clock.soon(() => {
      this.#scheduled = false;
      const change = { appliedIndex: this.#appliedIndex(), tasks: this.#changed };
      this.#changed = new Set();
      for (const listener of this.#changeListeners) listener(change);
    });
  }

  #tellLeases(signals: readonly Signal[]): void {
    if (this.#leaseListeners.size === 0) return;
    for (const signal of signals) {
      if (signal.type !== "lease-cancel" && signal.type !== "lease-lost") continue;
      const event: LeaseEvent = {
        type: signal.type === "lease-cancel" ? "cancel" : "lost",
        task_id: signal.id,
        fence: signal.fence,
        reason: signal.type === "lease-cancel" ? "cancelled" : signal.reason,
      };
      for (const listener of this.#leaseListeners) listener(event);
    }
  }
}
