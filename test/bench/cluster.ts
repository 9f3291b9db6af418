/** The members under test: real processes of src/node.ts on this machine, their files in one temporary folder. */
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { type ClusterView, eventually, freePorts } from "../cluster/harness.ts";
import { ENGINE_SETTINGS } from "../../src/system/engine.ts";
import type { ProxyOrder, ProxyReady } from "./link-proxy.ts";

const ROOT = join(import.meta.dir, "..", "..");
const START_MS = 30_000;

export interface BenchClusterOptions {
  readonly members: number;
  /** Tasks that each member's own executors run at once; 0: workers outside do it all. */
  readonly concurrency?: number;
  /** Added to each link between members, in each direction. */
  readonly linkMs?: number;
  /** Added to each commit of the log; the member's code is the same, its log thread loads slow-log.ts before. */
  readonly fsyncMs?: number;
  readonly args?: readonly string[];
  readonly profile?: boolean;
}

interface BenchMember {
  readonly id: string;
  readonly url: string;
  readonly data: string;
  readonly process: Subprocess;
}

export class BenchCluster {
  readonly folder: string;
  readonly members: BenchMember[] = [];
  #proxy: Subprocess | null = null;

  private constructor() {
    this.folder = mkdtempSync(join(process.env.BENCH_DIR ?? tmpdir(), "flotilla-bench-"));
  }

  /** Resolves when it has a leader that everybody knows. @throws with the members' output when it does not come up. */
  static async start(options: BenchClusterOptions): Promise<BenchCluster> {
    const cluster = new BenchCluster();
    try {
      await cluster.#start(options);
      await cluster.leader();
    } catch (error) {
      const output = cluster.members.map(({ id }) => cluster.output(id).slice(-2_000)).join("\n");
      await cluster.stop();
      throw new Error(`the cluster did not start: ${String(error)}\n${output}`, { cause: error });
    }
    return cluster;
  }

  get urls(): string[] {
    return this.members.map(({ url }) => url);
  }

  /** Of the living ones. */
  get pids(): Record<string, number> {
    const alive = this.members.filter(({ process: { exitCode, signalCode } }) => {
      return exitCode === null && signalCode === null;
    });
    return Object.fromEntries(alive.map(({ id, process: { pid } }) => [id, pid]));
  }

  get proxyPids(): number[] {
    return this.#proxy === null ? [] : [this.#proxy.pid];
  }

  async leader(): Promise<BenchMember> {
    return eventually(
      "a leader that a majority follows",
      async () => {
        const views = await Promise.all(this.members.map((member) => viewOf(member)));
        const leader = this.members[views.findIndex((view) => view?.role === "leader")];
        const followed = views.filter((view) => view?.leader_id === leader?.id).length;
        return leader !== undefined && followed > this.members.length / 2 ? leader : null;
      },
      START_MS,
    );
  }

  /** The first member that does not lead; null in a cluster of one. */
  async follower(): Promise<BenchMember | null> {
    const leader = await this.leader();
    return this.members.find((member) => member !== leader) ?? null;
  }

  async view(): Promise<ClusterView> {
    const view = await viewOf(await this.leader());
    if (view === null) throw new Error("the leader does not answer");
    return view;
  }

  /** SIGKILL, at once. */
  kill(member: BenchMember): void {
    member.process.kill("SIGKILL");
  }

  /** Removes every task, and waits until their rows are gone. */
  async clear(): Promise<void> {
    const { url } = await this.leader();
    const response = await fetch(`${url}/api/tasks/clear`, { method: "DELETE" });
    if (!response.ok) throw new Error(`clear: HTTP ${response.status} ${await response.text()}`);
  }

  async completed(): Promise<number> {
    return (await this.counts()).Completed;
  }

  async counts(): Promise<Record<"Pending" | "Running" | "Completed" | "Failed", number>> {
    const { url } = await this.leader();
    const response = await fetch(`${url}/api/stats?consistency=stale`);
    const { stats } = (await response.json()) as {
      stats: Record<"Pending" | "Running" | "Completed" | "Failed", number>;
    };
    return stats;
  }

  output(id: string): string {
    try {
      return readFileSync(join(this.folder, `${id}.out`), "utf8");
    } catch {
      return "";
    }
  }

  /** Bytes of the files of a member. */
  async bytes(member: BenchMember): Promise<number> {
    let sum = 0;
    for (const name of await readdir(member.data, { recursive: true })) {
      try {
        sum += statSync(join(member.data, name)).size;
      } catch {
        // Deleted in between.
      }
    }
    return sum;
  }

  /** `gently`: SIGTERM, so that profiles are written. */
  async stop({ gently = false } = {}): Promise<void> {
    for (const { process: child } of this.members) child.kill(gently ? "SIGTERM" : "SIGKILL");
    await Promise.all(this.members.map(({ process: child }) => child.exited));
    this.#proxy?.kill("SIGKILL");
    await this.#proxy?.exited;
    rmSync(this.folder, { recursive: true, force: true });
  }

  async #start(options: BenchClusterOptions): Promise<void> {
    const { members, linkMs = 0, fsyncMs = 0, concurrency = 0, args = [] } = options;
    const ports = freePorts(members);
    const dialled = linkMs === 0 ? null : await this.#delayedPorts(ports, linkMs);
    for (const [i, port] of ports.entries()) {
      const id = `n${i + 1}`;
      const data = join(this.folder, id);
      const peers = ports.map((to, j) => {
        const dial = i === j ? to : (dialled?.[i * members + j] ?? to);
        return `n${j + 1}=http://127.0.0.1:${dial}`;
      });
      // Peers are dialled by turns wherever they are known to be: every such address leads through a proxy.
      const told = dialled?.[i * members + i];
      const child = Bun.spawn(
        [
          process.execPath,
          ...(options.profile === true ? ["--cpu-prof", `--cpu-prof-dir=${profileFolder()}`] : []),
          ...(fsyncMs === 0 ? [] : ["--preload", join(import.meta.dir, "slow-disk.ts")]),
          join(ROOT, "src/node.ts"),
          "--id",
          id,
          "--port",
          String(port),
          "--data",
          data,
          ...(members > 1 ? ["--peers", peers.join(",")] : []),
          ...(told === undefined ? [] : ["--advertise", `http://127.0.0.1:${told}`]),
          "--concurrency",
          String(concurrency),
          "--log-level",
          "warn",
          "--handlers",
          join(import.meta.dir, "noop-handlers.ts"),
          ...args,
        ],
        {
          cwd: this.folder,
          // A member under the profiler does not set the engine by itself.
          env: {
            ...ENGINE_SETTINGS,
            ...process.env,
            NO_COLOR: "1",
            BENCH_FSYNC_MS: String(fsyncMs),
          },
          stdin: "ignore",
          stdout: Bun.file(join(this.folder, `${id}.out`)),
          stderr: "inherit",
        },
      );
      this.members.push({ id, url: `http://127.0.0.1:${port}`, data, process: child });
    }
  }

  /** A port for each pair of members, row by row. */
  async #delayedPorts(ports: readonly number[], delayMs: number): Promise<readonly number[]> {
    const { promise, resolve } = Promise.withResolvers<ProxyReady>();
    const proxy = Bun.spawn([process.execPath, join(import.meta.dir, "link-proxy.ts")], {
      stdio: ["ignore", "inherit", "inherit"],
      ipc: (message: ProxyReady) => resolve(message),
    });
    this.#proxy = proxy;
    const order: ProxyOrder = { routes: ports.flatMap(() => ports), delayMs };
    proxy.send(order);
    return (await promise).ports;
  }
}

/** Where `--profile` leaves the members' CPU profiles. */
export function profileFolder(): string {
  return process.env.BENCH_PROFILES ?? join(tmpdir(), "flotilla-profiles");
}

async function viewOf({ url }: BenchMember): Promise<ClusterView | null> {
  try {
    const response = await fetch(`${url}/api/cluster`, { signal: AbortSignal.timeout(2_000) });
    return response.ok ? ((await response.json()) as ClusterView) : null;
  } catch {
    return null;
  }
}
