/** What a worker claims before it has slots for it. */
import { describe, expect, test } from "bun:test";
import {
  FlotillaWorker,
  type FlotillaWorkerOptions,
  type WorkerHandlers,
} from "../../src/client/index.ts";
import { eventually } from "../cluster/harness.ts";
import { clientOf, type Script, ScriptedMember } from "./scripted-member.ts";

const never = new Promise<Response>(() => {});

function started(
  handlers: WorkerHandlers,
  options: Omit<FlotillaWorkerOptions, "handlers">,
): { worker: FlotillaWorker; errors: string[] } {
  const errors: string[] = [];
  const onError = (error: Error): void => void errors.push(error.message);
  const worker = new FlotillaWorker({ handlers, onError, ...options });
  worker.start();
  return { worker, errors };
}

/** Gives the queue's fences to claims, takes completions and releases, and lets a claim of nothing wait. */
const queueOf =
  (queue: number[]): Script =>
  ({ path, body }) => {
    if (path === "/api/leases/claim") {
      const fences = queue.splice(0, (body as { max: number }).max);
      return fences.length === 0
        ? never
        : Response.json({ tasks: fences.map(short), directive: "ok" });
    }
    if (path === "/api/leases/heartbeat") return never;
    const { items } = body as { items?: { task_id: string }[] };
    return Response.json({
      items: (items ?? []).map(({ task_id }) => ({ task_id, status: "ok" })),
    });
  };
const short = (fence: number): object => ({
  id: `0192f6f1-7c3a-7d1e-9b52-${fence.toString(16).padStart(12, "0")}`,
  name: "short",
  payload: null,
  timeout_ms: null,
  started_at: "2026-01-01T00:00:00.000Z",
  lease: { worker: "w", attempt: 1, fence, expires_at: "2026-01-01T00:00:15.000Z" },
});
const claimsOf = ({ asked }: ScriptedMember): { max: number }[] =>
  asked
    .filter(({ path }) => path === "/api/leases/claim")
    .map(({ body }) => body as { max: number });
const released = ({ asked }: ScriptedMember): number[] =>
  asked
    .filter(({ path }) => path.endsWith("/release"))
    .flatMap(({ body }) => {
      const { items, fence } = body as { items?: { fence: number }[]; fence?: number };
      return items?.map((item) => item.fence) ?? [fence ?? 0];
    });

describe("A worker whose handlers are short", () => {
  test("claims ahead of its slots while handlers are short, and runs no more than its slots at once", async () => {
    const queue = Array.from({ length: 400 }, (_, i) => i + 1);
    await using member = new ScriptedMember(queueOf(queue));
    using lonely = clientOf([member]);
    let now = 0;
    let most = 0;
    const short = async (): Promise<void> => {
      most = Math.max(most, ++now);
      await Promise.resolve();
      now -= 1;
    };
    const accepted: string[] = [];
    const onReported = (id: string): void => void accepted.push(id);
    const options = { client: lonely, concurrency: 4, onReported };
    const { worker, errors } = started({ short }, options);
    await eventually("all reports", async () => accepted.length === 400);
    await worker.stop();
    expect(most).toBe(4);
    expect(new Set(accepted).size).toBe(400);
    const asked = claimsOf(member).map(({ max }) => max);
    expect(asked[0]).toBe(4);
    expect(Math.max(...asked)).toBe(4 + 4 * 16);
    expect(errors).toEqual([]);
  });

  test("hands back what it claimed ahead once a handler takes long, and what waits when it drains", async () => {
    const queue = Array.from({ length: 40 }, (_, i) => i + 1);
    await using member = new ScriptedMember(queueOf(queue));
    using lonely = clientOf([member]);
    let runs = 0;
    const long = Promise.withResolvers<void>();
    // The first ones are short, so that more are claimed ahead; then one never ends by itself.
    const handler = async (): Promise<void> => {
      if (++runs > 8) await long.promise;
    };
    const { worker } = started({ short: handler }, { client: lonely, concurrency: 2 });
    await eventually("tasks that go back", async () => released(member).length > 0);
    expect(worker.running).toBe(2);
    const back = new Set(released(member));
    // Each was handed back once, and none of them is one that runs.
    expect(back.size).toBe(released(member).length);
    long.resolve();
    await worker.stop();
    const ended = member.asked
      .filter(({ path }) => path === "/api/leases/complete")
      .flatMap(({ body }) => (body as { items: { fence: number }[] }).items)
      .map(({ fence }) => fence);
    expect(ended.filter((fence) => back.has(fence))).toEqual([]);
    // Whatever was claimed has ended one way or the other.
    expect(40 - queue.length).toBe(ended.length + new Set(released(member)).size);
  });
});
