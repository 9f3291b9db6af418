/** The server of http.ts: the API as a member serves it, over a queue that has every answer ready. */
import { createApi } from "../../src/api/api.ts";
import type { NewTask, Task } from "../../src/queue/types.ts";
import { systemClock as clock } from "../../src/system/clock.ts";
import { systemRandom as random } from "../../src/system/random.ts";
import { FakeQueue } from "../api/fake-queue.ts";

const LEASE_MS = 15_000;

/** Answers what it is asked without doing it. */
class ReadyQueue extends FakeQueue {
  #template: Task | null = null;
  #claimed: Awaited<ReturnType<FakeQueue["claim"]>> | null = null;

  /** A task as a real submit makes it, kept for all answers. */
  async prepare(task: NewTask): Promise<void> {
    await super.submit([task], { principal: "p", idempotency: null });
    this.#template = this.rows.get(task.id)?.task ?? null;
    if (this.#template === null) throw new Error("no template");
    const started_at = clock.wall();
    const lease = {
      worker: "w1",
      attempt: 1,
      fence: 1,
      expires_at: started_at + LEASE_MS,
    };
    const running = { ...this.#template, status: "Running" as const, started_at, lease };
    this.#claimed = {
      tasks: Array.from({ length: 50 }, () => running),
      directive: "ok",
      replayed: false,
    };
  }

  override async submit(tasks: readonly NewTask[]) {
    return { ids: tasks.map(({ id }) => id), existing: false as const, replayed: false };
  }

  override async get() {
    return { task: this.#template, read: { appliedIndex: 1, stalenessMs: 0 } };
  }

  override async getMany(ids: readonly string[]) {
    return { tasks: ids.map(() => this.#template), read: { appliedIndex: 1, stalenessMs: 0 } };
  }

  override async claim() {
    if (this.#claimed === null) throw new Error("not prepared");
    return this.#claimed;
  }

  override async end(_worker: string, _principal: string, items: readonly unknown[]) {
    return items.map(() => "ok" as const);
  }
}

const queue = new ReadyQueue(() => clock.wall());
const quiet = (): void => undefined;
const app = createApi({
  queue,
  nodeId: "n1",
  advertise: "http://127.0.0.1:3000",
  tokens: [],
  clock,
  random,
  log: { debug: quiet, info: quiet, warn: quiet, error: console.error },
  version: "0",
  draining: () => false,
});
await queue.prepare({
  id: random.uuid(clock.wall()),
  name: "bench",
  queue: "default",
  priority: 5,
  payload: JSON.stringify({ text: "x".repeat(180) }),
  max_retries: 3,
  run_at: null,
  timeout_ms: 60_000,
  retry: queue.settings().retry,
  body_hash: null,
});
const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch: async (request) => {
    if (!request.url.endsWith("/bare")) return app.fetch(request);
    return new Response(await request.text(), {
      status: 201,
      headers: { "content-type": "application/json" },
    });
  },
});
app.server = server;
process.send?.({ port: server.port });
process.on("SIGTERM", () => process.exit(0));
