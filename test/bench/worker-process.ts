/**
 * A worker in a process of its own: claims and completes with the client library, and counts. Told over IPC what to count
 * (`{arm: n}`), and asked for what it saw (`{tell: true}`).
 *
 *     bun worker-process.ts URLS CONCURRENCY
 */
import { FlotillaClient, FlotillaWorker } from "../../src/client/index.ts";
import { Histogram } from "./histogram.ts";
import { now } from "./statistics.ts";

export interface WorkerOrder {
  /** Forget what was counted, and say so after so many tasks more. */
  readonly arm?: number;
  readonly tell?: boolean;
  readonly stop?: boolean;
}

export type WorkerNews =
  | { readonly kind: "ready" | "armed" }
  /** Wall clock, ms. */
  | { readonly kind: "reached"; readonly at: number }
  | { readonly kind: "seen"; readonly tasks: number; readonly startMs: Percentiles };

export interface Percentiles {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

const [urls = "", concurrency = "50"] = process.argv.slice(2);
let tasks = 0;
let target = Infinity;
let latencies = new Histogram();

function tell(news: WorkerNews): void {
  process.send?.(news);
}

const client = new FlotillaClient({ urls });
const worker = new FlotillaWorker({
  client,
  concurrency: Number(concurrency),
  handlers: {
    bench: ({ t }: { t: number }) => {
      latencies.record(now() - t);
    },
  },
  onReported: () => {
    if (++tasks === target) tell({ kind: "reached", at: now() });
  },
});

process.on("message", (order: WorkerOrder) => {
  if (order.arm !== undefined) {
    tasks = 0;
    target = order.arm;
    latencies = new Histogram();
    tell({ kind: "armed" });
  }
  if (order.tell === true) {
    const startMs = {
      p50: latencies.percentile(50),
      p99: latencies.percentile(99),
      max: latencies.maxMs,
    };
    tell({ kind: "seen", tasks, startMs });
  }
  if (order.stop === true) void worker.stop({ drainMs: 1_000 }).then(() => process.exit(0));
});
process.on("disconnect", () => process.exit(0));
worker.start();
tell({ kind: "ready" });
