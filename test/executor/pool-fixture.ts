/** Executor pools over the fake queue, for tests; each pool is stopped at the end of its test. */
import { ExecutorPool, type ExecutorPoolOptions } from "../../src/executor/executor-pool.ts";
import type { LeaseEnd, TaskError } from "../../src/queue/types.ts";
import { asNodeId } from "../../src/raft/types.ts";
import { FakeQueue, memoryLog, realClock } from "./fake-queue.ts";

/** Handlers that behave in every way a handler can. */
export const FIXTURE = new URL("./fixtures/handlers.ts", import.meta.url).pathname;

interface Started {
  readonly queue: FakeQueue;
  readonly pool: ExecutorPool;
}

/** The pools of one test. */
export class Pools {
  readonly #made: ExecutorPool[] = [];

  readonly poolOf = (
    queue: FakeQueue,
    options: Partial<ExecutorPoolOptions> = {},
  ): ExecutorPool => {
    const pool = new ExecutorPool({
      queue,
      member: asNodeId("n1"),
      boot: 7,
      concurrency: 2,
      handlers: { kind: "module", path: FIXTURE, builtin: [] },
      ioRoots: [],
      allowNet: [],
      clock: realClock,
      log: memoryLog(),
      // Handlers that obey are given the time for it, on a busy machine too; who wants a kill says so.
      graceMs: 5_000,
      leaseMs: () => 15_000,
      ...options,
    });
    this.#made.push(pool);
    return pool;
  };

  readonly started = async (options: Partial<ExecutorPoolOptions> = {}): Promise<Started> => {
    const queue = new FakeQueue();
    const pool = this.poolOf(queue, options);
    await pool.start();
    return { queue, pool };
  };

  /** A pool whose Workers are all loaded, so that a handler is entered as soon as its task is claimed. */
  readonly warmed = async (
    options: Partial<ExecutorPoolOptions> & { readonly concurrency: number },
  ): Promise<Started> => {
    const { queue, pool } = await this.started(options);
    const ids = Array.from({ length: options.concurrency }, () => queue.add("wait", { ms: 50 }));
    await Promise.all(ids.map((id) => queue.ended(id)));
    queue.endCalls.length = 0;
    return { queue, pool };
  };

  async stop(): Promise<void> {
    await Promise.all(this.#made.splice(0).map((pool) => pool.stop()));
  }
}

/** The body of a test that has its pools for itself, so that others may run at the same time. */
export function withPools(run: (pools: Pools) => Promise<void>): () => Promise<void> {
  return async () => {
    const pools = new Pools();
    try {
      await run(pools);
    } finally {
      await pools.stop();
    }
  };
}

export function errorOf(end: LeaseEnd): TaskError {
  if (end.kind !== "fail") throw new Error(`ended with ${end.kind}`);
  return end.error;
}
