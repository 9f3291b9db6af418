/**
 * What Swagger's "Try it out" begins with, for each body: requests that make sense as they are. Without them
 * the page makes one up out of all fields and their largest values, which the API would have to refuse.
 */
import type { ModelName } from "./schema.ts";

/** Of a lease that is nobody's: what comes with it is answered 404, as it should be. */
const lease = { attempt: 1, fence: 42 };
const worker_id = "worker-7";
const task_id = "0192f6f1-7c3a-7d1e-9b52-3f6c1a2b4c5d";

export const EXAMPLES: Partial<Record<ModelName, unknown>> = {
  Submit: { name: "compute", payload: { iterations: 1000, data: "hello" } },
  SubmitBulk: {
    tasks: [
      { name: "echo", payload: { hello: "world" } },
      { name: "sleep", payload: { ms: 500 }, priority: 9, max_retries: 0 },
    ],
  },
  Empty: {},
  Claim: { worker_id, names: ["thumbnail"], max: 1, wait_ms: 1000 },
  Heartbeat: {
    worker_id,
    leases: [{ task_id, ...lease, progress: { percent: 50, message: "half" } }],
  },
  Complete: { worker_id, ...lease, result: { size: 1234 } },
  CompleteBulk: { worker_id, items: [{ task_id, ...lease, result: { size: 1234 } }] },
  Fail: { worker_id, ...lease, error: "the disk is full", retry_after_ms: 30_000 },
  FailBulk: { worker_id, items: [{ task_id, ...lease, error: "the disk is full" }] },
  Snooze: { worker_id, ...lease, delay_ms: 60_000 },
  Release: { worker_id, ...lease },
  ReleaseBulk: { worker_id, items: [{ task_id, ...lease }] },
  LogLines: { worker_id, ...lease, lines: ["fetched 3 of 10"] },
  Member: { id: "n4", url: "http://10.0.0.4:3000" },
  Transfer: { to: "n2" },
  SettingsChange: { retention: { completed: 86_400_000 } },
};
