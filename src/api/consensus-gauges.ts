/** What the replicated log tells Prometheus: growing counts since the start, and the durations of fsyncs. */
import type { GaugeSource } from "./metrics.ts";

export interface ConsensusFigures {
  /** Counts since the process started, by name. */
  readonly counters: Readonly<Record<string, number>>;
  readonly log: {
    readonly writes: number;
    readonly transactions: number;
    readonly entries: number;
    readonly bytes: number;
    readonly recentMs: readonly number[];
  };
}

/** One family for the counts, one for the log's writes, one for the quantiles of its newest transactions. */
export function consensusGauges(figures: () => ConsensusFigures): readonly GaugeSource[] {
  return [
    {
      name: "flotilla_replica_count",
      help: "Elections, leader changes, entries and commands sealed, applied and forwarded since the start.",
      labels: ["what"],
      collect: () =>
        Object.entries(figures().counters).map(([what, value]) => ({ labels: { what }, value })),
    },
    {
      name: "flotilla_log_count",
      help: "Writes, transactions (one fsync each), entries and bytes of the log since the start.",
      labels: ["what"],
      collect: () => {
        const { writes, transactions, entries, bytes } = figures().log;
        return Object.entries({ writes, transactions, entries, bytes }).map(([what, value]) => ({
          labels: { what },
          value,
        }));
      },
    },
    {
      name: "flotilla_log_transaction_seconds",
      help: "Quantiles of the newest 512 log transactions, fsync included.",
      labels: ["quantile"],
      collect: () => {
        const sorted = [...figures().log.recentMs].sort((a, b) => a - b);
        if (sorted.length === 0) return [];
        return [0.5, 0.9, 0.99].map((quantile) => ({
          labels: { quantile: String(quantile) },
          value:
            (sorted[Math.min(sorted.length - 1, Math.floor(quantile * sorted.length))] ?? 0) /
            1_000,
        }));
      },
    },
  ];
}
