import { afterEach, describe, expect, test } from "bun:test";
import {
  ExecutorPool,
  HandlersError,
  type ExecutorPoolOptions,
} from "../../src/executor/executor-pool.ts";
import type { TaskError } from "../../src/queue/types.ts";
import type { LeaseEnd } from "../../src/queue/types.ts";
import { nodeId } from "../../src/raft/types.ts";
import { FakeQueue, memoryLog, realClock } from "./fake-queue.ts";

const FIXTURE = new URL("./fixtures/handlers.ts", import.meta.url).pathname;
const pools: ExecutorPool[] = [];

function poolOf(queue: FakeQueue, options: Partial<ExecutorPoolOptions> = {}): ExecutorPool {
  const pool = new ExecutorPool({
    queue,
    member: nodeId("n1"),
    boot: 7,
    concurrency: 2,
    handlers: { kind: "module", path: FIXTURE, builtin: [] },
    ioRoots: [],
    allowNet: [],
    clock: realClock,
    log: memoryLog(),
    graceMs: 100,
    leaseMs: () => 15_000,
    ...options,
  });
  pools.push(pool);
  return pool;
}

async function started(
  options: Partial<ExecutorPoolOptions> = {},
): Promise<{ queue: FakeQueue; pool: ExecutorPool }> {
  const queue = new FakeQueue();
  const pool = poolOf(queue, options);
  await pool.start();
  return { queue, pool };
}

function errorOf(end: LeaseEnd): TaskError {
  if (end.kind !== "fail") throw new Error(`ended with ${end.kind}`);
  return end.error;
}

afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.stop()));
});

describe("running tasks", () => {
  test("a task's payload reaches its handler and the result comes back as JSON text", async () => {
    const { queue } = await started();
    const id = queue.add("double", { n: 21 });
    expect(await queue.ended(id)).toEqual({ kind: "complete", result: '{"doubled":42}' });
  });
});
void HandlersError;
void errorOf;
