/** Counts what this member sees happen, by second of log time, for the last minute. */
import type { Millis } from "../replica/ports.ts";
import type { Signal } from "./commands.ts";

const SECONDS = 60;

export interface ThroughputSecond {
  /** Start of the second, epoch ms. */
  readonly at: Millis;
  readonly completed: number;
  readonly failed: number;
  readonly submitted: number;
}

interface Bucket {
  second: number;
  completed: number;
  failed: number;
  submitted: number;
}

export class Throughput {
  /** One more than is shown: the running second. Slot = second modulo length. */
  readonly #ring: Bucket[] = Array.from({ length: SECONDS + 1 }, () => ({
    second: -1,
    completed: 0,
    failed: 0,
    submitted: 0,
  }));

  applied(signals: readonly Signal[], now: Millis): void {
    let bucket: Bucket | null = null;
    for (const signal of signals) {
      if (signal.type !== "changed") continue;
      bucket ??= this.#bucket(Math.floor(now / 1_000));
      if (bucket === null) return;
      if (signal.from === null && signal.to !== null) bucket.submitted += 1;
      if (signal.from === signal.to) continue;
      if (signal.to === "Completed") bucket.completed += 1;
      if (signal.to === "Failed") bucket.failed += 1;
    }
  }

  /** The last 60 whole seconds before `now`, newest last. */
  seconds(now: Millis): readonly ThroughputSecond[] {
    const running = Math.floor(now / 1_000);
    const shown: ThroughputSecond[] = [];
    for (let second = running - SECONDS; second < running; second++) {
      const bucket = this.#ring[second % this.#ring.length];
      const known = bucket?.second === second ? bucket : null;
      shown.push({
        at: second * 1_000,
        completed: known?.completed ?? 0,
        failed: known?.failed ?? 0,
        submitted: known?.submitted ?? 0,
      });
    }
    return shown;
  }

  /** Null: older than what the slot holds already (a replay after newer entries cannot happen, a skew can). */
  #bucket(second: number): Bucket | null {
    const bucket = this.#ring[second % this.#ring.length];
    if (bucket === undefined || bucket.second > second) return null;
    if (bucket.second < second) {
      bucket.second = second;
      bucket.completed = 0;
      bucket.failed = 0;
      bucket.submitted = 0;
    }
    return bucket;
  }
}
