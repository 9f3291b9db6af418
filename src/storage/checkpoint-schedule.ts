/**
 * When the state database is checkpointed: on its own clock, not on traffic, and only if something changed.
 * Readers on other threads pause meanwhile, by a flag they share: a reader that holds an old page keeps the
 * WAL from starting over.
 */
import type { Clock, Log, Millis, Timer } from "../replica/ports.ts";
import type { StateCheckpointer } from "./state-checkpointer.ts";

/** Long enough to gather many transactions, short enough that a busy member's WAL stays at some tens of MiB. */
const CHECKPOINT_INTERVAL_MS: Millis = 2_000;

export interface CheckpointScheduleOptions {
  readonly checkpointer: StateCheckpointer;
  readonly clock: Clock;
  readonly log: Log;
  readonly appliedIndex: () => number;
}

export class CheckpointSchedule {
  readonly #o: CheckpointScheduleOptions;
  #timer: Timer | null = null;
  #doneAt = -1;
  #stopped = false;
  /** The applied index that is durable in the state database for certain; what may be compacted ends here. */
  durableApplied = 0;

  constructor(options: CheckpointScheduleOptions) {
    this.#o = options;
    this.#again();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#o.checkpointer.close();
  }

  #again(): void {
    if (this.#stopped) return;
    this.#timer = this.#o.clock.after(CHECKPOINT_INTERVAL_MS, () => void this.#look());
  }

  async #look(): Promise<void> {
    const applied = this.#o.appliedIndex();
    if (applied !== this.#doneAt) {
      try {
        const { durableApplied, heldMs } = await this.#o.checkpointer.run();
        if (durableApplied !== null) {
          this.durableApplied = durableApplied;
          this.#doneAt = durableApplied;
        }
        if (heldMs > 100)
          this.#o.log.warn("a checkpoint held applies for long", { ms: Math.round(heldMs) });
      } catch (error) {
        this.#o.log.error("the state cannot be checkpointed", { error: String(error) });
      }
    }
    this.#again();
  }
}
