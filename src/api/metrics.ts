/**
 * `GET /metrics` in the Prometheus text format: one registry per app, labels from bounded sets only (route
 * patterns, never paths; statuses; this member's own name).
 */
import type { Clock } from "../replica/ports.ts";
import type { TaskQueue } from "../queue/service.ts";
import { Counter, Gauge, type Histogram, Registry } from "./prometheus.ts";
import { RequestMetrics } from "./request-metrics.ts";

/** Longest that a scrape waits for one source; what is late is left out of this scrape. */
const SOURCE_TIMEOUT_MS = 1_000;

/** Reads one family at scrape time. */
export interface GaugeSource {
  readonly name: string;
  readonly help: string;
  /** Counters only grow, and begin at 0 with the process. A gauge unless told otherwise. */
  readonly kind?: "gauge" | "counter";
  /** Names of the labels, of which every combination must come from a small fixed set. */
  readonly labels?: readonly string[];
  collect(): readonly GaugeValue[] | Promise<readonly GaugeValue[]>;
}

export interface GaugeValue {
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
}

export class Metrics {
  readonly #registry = new Registry();
  readonly #sources: { readonly source: GaugeSource; readonly family: Gauge | Counter }[] = [];
  readonly #clock: Clock;
  readonly #requests = new RequestMetrics();

  constructor(clock: Clock) {
    this.#clock = clock;
    for (const family of this.#requests.families) this.#registry.registerMetric(family);
  }

  /** Adds a family that is read at every scrape. */
  gauge(source: GaugeSource): void {
    const options = {
      name: source.name,
      help: source.help,
      labelNames: [...(source.labels ?? [])],
      registers: [this.#registry],
    };
    const family = source.kind === "counter" ? new Counter(options) : new Gauge(options);
    this.#sources.push({ source, family });
  }

  /** Adds a family that somebody else observes. */
  histogram(family: Histogram): void {
    this.#registry.registerMetric(family);
  }

  /** `route` is a pattern, or "unmatched". */
  observeRequest(method: string, route: string, status: number, ms: number): void {
    this.#requests.observe(method, route, status, ms);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  async text(): Promise<string> {
    await Promise.all(
      this.#sources.map(async ({ source, family }) => {
        const values = await this.#collect(source);
        family.reset();
        // Without labels a reset means 0, which is a statement; nothing is meant.
        if ((source.labels ?? []).length === 0) family.remove();
        for (const { labels = {}, value } of values)
          if (Number.isFinite(value)) family.inc(labels, value);
      }),
    );
    return this.#registry.metrics();
  }

  /** Empty when the source fails or is late: a member without a quorum must still be scraped. */
  async #collect(source: GaugeSource): Promise<readonly GaugeValue[]> {
    const late = Promise.withResolvers<readonly GaugeValue[]>();
    const timer = this.#clock.after(SOURCE_TIMEOUT_MS, () => late.resolve([]));
    try {
      return await Promise.race([Promise.resolve(source.collect()), late.promise]);
    } catch {
      return [];
    } finally {
      timer.cancel();
    }
  }
}

/** What the queue and the process can say of themselves. */
export function queueGauges(queue: TaskQueue, nodeId: string): readonly GaugeSource[] {
  const cluster = (
    name: string,
    help: string,
    read: (view: Awaited<ReturnType<TaskQueue["cluster"]>>) => number,
  ): GaugeSource => ({
    name,
    help,
    collect: async () => [{ value: read((await queue.readCluster("stale")).cluster) }],
  });
  const workers = (
    name: string,
    help: string,
    read: (worker: Awaited<ReturnType<TaskQueue["workers"]>>[number]) => number,
  ): GaugeSource => ({
    name,
    help,
    kind: name.endsWith("_total") ? "counter" : "gauge",
    collect: async () => {
      // What this member knows of itself: a scrape must not wait for a leader.
      const { workers: known } = await queue.readWorkers("stale");
      const own = known.filter((worker) => worker.member === nodeId);
      return [{ value: own.reduce((sum, worker) => sum + read(worker), 0) }];
    },
  });
  return [
    {
      name: "flotilla_tasks",
      help: "Tasks by status, on this member's view.",
      labels: ["status"],
      collect: async () => {
        const { stats } = await queue.stats("stale");
        return Object.entries(stats.stats).map(([status, value]) => ({
          labels: { status },
          value,
        }));
      },
    },
    cluster("flotilla_raft_term", "Current term.", (view) => view.term),
    cluster(
      "flotilla_raft_commit_index",
      "Highest committed index known.",
      (view) => view.commit_index,
    ),
    cluster("flotilla_raft_applied_index", "Highest applied index.", (view) => view.applied_index),
    cluster("flotilla_raft_is_leader", "1 on the leader.", (view) =>
      view.leader_id === view.node_id ? 1 : 0,
    ),
    cluster("flotilla_raft_has_leader", "1 while a leader is known.", (view) =>
      view.leader_id === null ? 0 : 1,
    ),
    {
      name: "flotilla_raft_role",
      help: "1 for the role this member has.",
      labels: ["role"],
      collect: async () => [
        { labels: { role: (await queue.readCluster("stale")).cluster.role }, value: 1 },
      ],
    },
    workers("flotilla_executors_slots", "Executor slots of this member.", (w) => w.slots ?? 0),
    workers("flotilla_executors_busy", "Tasks running on this member.", (w) => w.running.length),
    workers("flotilla_executors_stuck", "Executors that would not die.", (w) => w.stuck),
    workers("flotilla_executor_kills_total", "Executors killed since the start.", (w) => w.kills),
    workers(
      "flotilla_executor_restarts_total",
      "Executors replaced since the start.",
      (w) => w.restarts,
    ),
    {
      name: "process_resident_memory_bytes",
      help: "Resident memory.",
      collect: () => [{ value: process.memoryUsage.rss() }],
    },
    {
      name: "process_cpu_seconds_total",
      help: "CPU time, user and system, of all threads.",
      kind: "counter",
      collect: () => {
        const { user, system } = process.cpuUsage();
        return [{ value: (user + system) / 1e6 }];
      },
    },
    {
      name: "process_uptime_seconds",
      help: "Since the process started.",
      collect: () => [{ value: process.uptime() }],
    },
  ];
}
