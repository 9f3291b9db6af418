/**
 * When the state database is checkpointed: on its own clock, not on traffic, and only if something changed.
 * Readers on other threads pause meanwhile, by a flag they share: a reader that holds an old page keeps the
 * WAL from starting over. Between checkpoints, and also when nothing comes in any more, what deleted tasks
 * left free goes back to the file system, a step at a time.
 */
import { type Clock, FatalError, type Log, type Millis, type Timer } from "../replica/ports.ts";
import type { StateCheckpointer } from "./state-checkpointer.ts";

/** Long enough to gather many transactions, short enough that a busy member's WAL stays at some tens of MiB. */
const CHECKPOINT_INTERVAL_MS: Millis = 2_000;
/** Between two steps of the vacuum: applies wait for some 10 ms of each. */
const VACUUM_PAUSE_MS: Millis = 200;

export interface CheckpointScheduleOptions {
  readonly checkpointer: StateCheckpointer;
  readonly clock: Clock;
  readonly log: Log;
  readonly appliedIndex: () => number;
  /** The disk failed: the process must stop. */
  readonly onFatal: (error: FatalError) => void;
}

export class CheckpointSchedule {
  readonly #o: CheckpointScheduleOptions;
  #timer: Timer | null = null;
  #doneAt = -1;
  #checkpointAt: Millis;
  /** There are free pages to give back. */
  #spare = false;
  /** The vacuum has changed the file since the newest checkpoint. */
  #vacuumed = false;
  #stopped = false;
  #replacements = 0;
  /** The applied index that is durable in the state database for certain; what may be compacted ends here. */
  durableApplied = 0;

  constructor(options: CheckpointScheduleOptions) {
    this.#o = options;
    this.#checkpointAt = options.clock.monotonic() + CHECKPOINT_INTERVAL_MS;
    this.#again(CHECKPOINT_INTERVAL_MS);
  }

  /** Another state took the place of the one that was checkpointed; it may stand before it. */
  replaced(): void {
    this.durableApplied = 0;
    this.#doneAt = -1;
    this.#replacements += 1;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#o.checkpointer.close();
  }

  #again(delay: Millis): void {
    if (this.#stopped) return;
    this.#timer = this.#o.clock.after(delay, () => void this.#look());
  }

  async #look(): Promise<void> {
    try {
      if (this.#o.clock.monotonic() >= this.#checkpointAt) await this.#checkpoint();
      if (this.#spare) {
        this.#vacuumed = true;
        this.#spare = await this.#o.checkpointer.vacuumStep();
      }
    } catch (error) {
      this.#spare = false;
      if (error instanceof FatalError) {
        this.#o.onFatal(error);
        return;
      }
      this.#o.log.error("the state cannot be checkpointed", { error: String(error) });
    }
    this.#again(this.#spare ? VACUUM_PAUSE_MS : CHECKPOINT_INTERVAL_MS);
  }

  async #checkpoint(): Promise<void> {
    this.#checkpointAt = this.#o.clock.monotonic() + CHECKPOINT_INTERVAL_MS;
    if (this.#o.appliedIndex() === this.#doneAt && !this.#vacuumed) return;
    const replacements = this.#replacements;
    const { durableApplied, heldMs, sparePages } = await this.#o.checkpointer.run();
    this.#spare = sparePages > 0;
    if (durableApplied !== null && replacements === this.#replacements) {
      this.durableApplied = durableApplied;
      this.#doneAt = durableApplied;
      this.#vacuumed = false;
    }
    if (heldMs > 100)
      this.#o.log.warn("a checkpoint held applies for long", { ms: Math.round(heldMs) });
  }
}
