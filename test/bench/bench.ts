/** What every measure is given: a cluster in one setup, sizes, and where its rows go. */
import type { BenchCluster } from "./cluster.ts";
import { type HttpConnection, openConnections } from "./http-connection.ts";
import type { Load } from "./load.ts";
import { type CpuUse, type Memory, quiet, watchCpu } from "./processes.ts";
import { type Spread, spread } from "./statistics.ts";

/** What is varied from table to table. */
export interface Setup {
  readonly members: number;
  /** Bytes of JSON. */
  readonly payload: number;
  /** Added to links between members, each way. */
  readonly linkMs: number;
  /** Added to each commit of the log (see slow-disk.ts). */
  readonly fsyncMs: number;
}

export interface Sizes {
  readonly reps: number;
  /** Of one repetition of a rate. */
  readonly seconds: number;
  readonly tasks: number;
  readonly latencySeconds: number;
  readonly failoverSeconds: number;
  readonly trials: number;
  readonly steadySeconds: number;
  /** Waits at most so long for the machine to be quiet before each repetition. */
  readonly quietMs: number;
}

export interface Row {
  readonly measure: string;
  readonly setup: Setup;
  readonly unit: "tasks/s" | "reads/s" | "ms" | "MiB" | "per task" | "members" | "/s" | "%" | "B";
  readonly value: Spread;
  /** Of one call, ms: medians of the repetitions' percentiles. */
  readonly p50?: number;
  readonly p99?: number;
  readonly failed?: number;
  readonly cpu?: CpuUse;
  /** Of CPU for one task (or read), µs: what can be compared although others were at work. */
  readonly spent?: { readonly client: number; readonly members: number };
  readonly note?: string;
}

interface Rep {
  readonly load: Load;
  readonly cpu: CpuUse;
}

/** Others may use so many cores during a repetition before one more is run in its place. */
const OTHERS_MAX = 0.4;
const EXTRA_REPS = 2;
/** The state rows of a clear go in steps; when the log has not grown for so long they are gone. */
const SETTLED_MS = 300;
const SETTLE_MAX_MS = 30_000;

export class Bench {
  readonly rows: Row[] = [];
  /** Behind the name of every measure. */
  label = "";
  /** Tasks stay in the table between measures. */
  keeping = false;

  constructor(
    readonly sizes: Sizes,
    readonly setup: Setup,
    readonly cluster: BenchCluster,
    readonly tell: (row: Row) => void,
  ) {}

  record(row: Omit<Row, "setup">): void {
    const full = { ...row, measure: row.measure + this.label, setup: this.setup };
    this.rows.push(full);
    this.tell(full);
  }

  /** Repetitions of one load, the disturbed ones replaced by others as far as `EXTRA_REPS` goes. */
  async repeat(
    measure: string,
    {
      perCall = 1,
      unit = "tasks/s" as Row["unit"],
      own = [] as readonly number[],
      keep = false,
      note = undefined as string | undefined,
    },
    run: () => Promise<Load>,
  ): Promise<number> {
    const reps: Rep[] = [];
    const calm = (): number => reps.filter(({ cpu }) => cpu.others < OTHERS_MAX).length;
    const { sizes } = this;
    const extra = sizes.quietMs > 0 ? EXTRA_REPS : 0;
    while (calm() < sizes.reps && reps.length < sizes.reps + extra) {
      if (!keep) await this.between();
      await quiet(sizes.quietMs);
      const stop = watchCpu(this.cluster.pids, [...own, ...this.cluster.proxyPids]);
      const load = await run();
      const cpu = stop();
      reps.push({ load, cpu });
    }
    const kept = [...reps].sort((a, b) => a.cpu.others - b.cpu.others).slice(0, sizes.reps);
    const rate = spread(kept.map(({ load }) => (load.ok * perCall) / load.seconds));
    const perTask = (pick: (use: CpuUse) => number): number =>
      spread(kept.map(({ load, cpu }) => (pick(cpu) * load.seconds * 1e6) / (load.ok * perCall)))
        .median;
    this.record({
      measure,
      unit,
      value: rate,
      spent: {
        client: perTask(({ client }) => client),
        members: perTask(({ members }) => members),
      },
      // Runs as a whole have none.
      ...(kept.every(({ load }) => load.latencies.count > 0)
        ? {
            p50: spread(kept.map(({ load }) => load.latencies.percentile(50))).median,
            p99: spread(kept.map(({ load }) => load.latencies.percentile(99))).median,
          }
        : {}),
      failed: kept.reduce((sum, { load }) => sum + load.failed, 0),
      cpu: medianCpu(kept.map(({ cpu }) => cpu)),
      ...(note === undefined ? {} : { note }),
    });
    return rate.median;
  }

  /** Before a measure: the table as this bench wants it. */
  async between(): Promise<void> {
    await (this.keeping ? this.settle() : this.clear());
  }

  /** Empties the queue, and waits until the rows are gone. */
  async clear(): Promise<void> {
    await this.cluster.clear();
    await this.settle();
  }

  /** Waits until the log stands still. */
  async settle(): Promise<void> {
    const deadline = performance.now() + SETTLE_MAX_MS;
    let last = -1;
    while (performance.now() < deadline) {
      const { commit_index, members } = await this.cluster.view();
      const behind = members.some(({ lag, reachable }) => reachable && (lag ?? 0) > 0);
      if (commit_index === last && !behind) return;
      last = commit_index;
      await Bun.sleep(SETTLED_MS);
    }
  }

  /** Connections to the leader; `close` them afterwards. */
  async connections(count: number): Promise<HttpConnection[]> {
    return openConnections((await this.cluster.leader()).url, count);
  }
}

export function closeAll(connections: readonly HttpConnection[]): void {
  for (const connection of connections) connection.close();
}

function medianCpu(all: readonly CpuUse[]): CpuUse {
  const of = (pick: (use: CpuUse) => number): number => spread(all.map(pick)).median;
  const ids = Object.keys(all[0]?.byMember ?? {});
  return {
    client: of(({ client }) => client),
    members: of(({ members }) => members),
    byMember: Object.fromEntries(ids.map((id) => [id, of(({ byMember }) => byMember[id] ?? 0)])),
    others: of(({ others }) => others),
  };
}

export function memoryNote(memory: Readonly<Record<string, Memory>>): string {
  return Object.entries(memory)
    .map(([id, { pss, peak }]) => `${id} ${pss.toFixed(0)} (peak ${peak.toFixed(0)})`)
    .join(", ");
}
