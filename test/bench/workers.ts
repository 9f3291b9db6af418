/** A worker process, as the harness holds it. */
import { join } from "node:path";
import type { Subprocess } from "bun";
import type { WorkerNews, WorkerOrder } from "./worker-process.ts";

const READY_MS = 30_000;

export class OutsideWorkers {
  readonly #process: Subprocess;
  readonly #news: WorkerNews[] = [];
  #wake: (() => void) | null = null;

  private constructor(urls: readonly string[], concurrency: number) {
    this.#process = Bun.spawn(
      [
        process.execPath,
        join(import.meta.dir, "worker-process.ts"),
        urls.join(","),
        String(concurrency),
      ],
      {
        stdio: ["ignore", "inherit", "inherit"],
        ipc: (message: WorkerNews) => {
          this.#news.push(message);
          this.#wake?.();
        },
      },
    );
  }

  /** Resolves once it claims. */
  static async start(urls: readonly string[], concurrency: number): Promise<OutsideWorkers> {
    const workers = new OutsideWorkers(urls, concurrency);
    await workers.#next("ready", READY_MS);
    return workers;
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** Counts from 0, and reports when `tasks` were completed: see `reached`. */
  async arm(tasks: number): Promise<void> {
    this.#tell({ arm: tasks });
    await this.#next("armed", READY_MS);
  }

  /** When the last of the armed tasks was accepted as complete; wall clock ms. @throws after `timeoutMs` */
  async reached(timeoutMs: number): Promise<number> {
    return (await this.#next("reached", timeoutMs)).at;
  }

  async seen(): Promise<Extract<WorkerNews, { kind: "seen" }>> {
    this.#tell({ tell: true });
    return this.#next("seen", READY_MS);
  }

  async stop(): Promise<void> {
    this.#tell({ stop: true });
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), 5_000);
    await this.#process.exited;
    clearTimeout(timer);
  }

  #tell(order: WorkerOrder): void {
    if (this.#process.exitCode === null) this.#process.send(order);
  }

  async #next<K extends WorkerNews["kind"]>(
    kind: K,
    timeoutMs: number,
  ): Promise<Extract<WorkerNews, { kind: K }>> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const at = this.#news.findIndex((news) => news.kind === kind);
      const [found] = at < 0 ? [] : this.#news.splice(at, 1);
      if (found !== undefined) return found as Extract<WorkerNews, { kind: K }>;
      if (performance.now() > deadline) throw new Error(`waited in vain for the workers: ${kind}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 100);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = null;
    }
  }
}
