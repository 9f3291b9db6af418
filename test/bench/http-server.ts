/** The server of http.ts: the API as a member serves it, over a queue that has every answer ready. */
import { createApi } from "../../src/api/api.ts";
import type { Claim, NewTask, Task } from "../../src/queue/types.ts";
import { systemClock as clock } from "../../src/system/clock.ts";
import { systemRandom as random } from "../../src/system/random.ts";
import { FakeMembers } from "../api/fake-members.ts";
import { FakeQueue } from "../api/fake-queue.ts";

const CLAIM_MAX = 50;
const EXPIRES_AT = clock.wall() + 15_000;

/** Answers what it is asked without doing it. */
class ReadyQueue extends FakeQueue {
  #template: Task | null = null;
  #running: Task | null = null;
  #fence = 0;

  /** A task as a real submit makes it, kept for all answers. */
  async prepare(task: NewTask): Promise<void> {
    await super.submit([task], { principal: "p", idempotency: null });
    this.#template = this.rows.get(task.id)?.task ?? null;
    if (this.#template === null) throw new Error("no template");
    this.#running = { ...this.#template, status: "Running", started_at: clock.wall() };
  }

  override async submit(tasks: readonly NewTask[]) {
    return { ids: tasks.map(({ id }) => id), existing: false as const, replayed: false };
  }

  override async get() {
    return { task: this.#template, read: { appliedIndex: 1, stalenessMs: 0 } };
  }

  override held(ids: readonly string[]) {
    return ids.map(() => this.#template);
  }

  override async claim({ max }: Claim) {
    const running = this.#running;
    if (running === null) throw new Error("not prepared");
    const tasks = Array.from({ length: Math.min(max, CLAIM_MAX) }, () => {
      const lease = { worker: "w1", attempt: 1, fence: ++this.#fence, expires_at: EXPIRES_AT };
      return { ...running, lease };
    });
    return { tasks, directive: "ok" as const, replayed: false };
  }

  override async end(_worker: string, _principal: string, items: readonly unknown[]) {
    return items.map(() => "ok" as const);
  }
}

const queue = new ReadyQueue(() => clock.wall());
const quiet = (): void => undefined;
const { app, shed } = createApi({
  queue,
  members: new FakeMembers(queue),
  clusterId: () => "c1",
  nodeId: "n1",
  advertise: "http://127.0.0.1:3000",
  tokens: [],
  clock,
  random,
  log: { debug: quiet, info: quiet, warn: quiet, error: console.error },
  version: "0",
  draining: () => false,
  backup: async () => null,
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

/** What a refused submit gets, headers and all, to be served by the runtime itself. */
async function refusal(): Promise<Response> {
  queue.overloaded = true;
  const request = new Request("http://127.0.0.1/api/tasks", { method: "POST" });
  const response = shed(request) ?? new Response();
  queue.overloaded = false;
  return new Response(await response.arrayBuffer(), response);
}

const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  routes: { "/canned": await refusal() },
  fetch: async (request) => {
    if (request.url.endsWith("/overloaded") || request.url.endsWith("/ready")) {
      queue.overloaded = request.url.endsWith("/overloaded");
      return new Response();
    }
    if (!request.url.endsWith("/bare")) return shed(request) ?? app.fetch(request);
    return new Response(await request.text(), {
      status: 201,
      headers: { "content-type": "application/json" },
    });
  },
});
app.server = server;
process.send?.({ port: server.port });
process.on("SIGTERM", () => process.exit(0));
