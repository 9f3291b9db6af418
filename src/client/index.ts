/** What `import … from "flotilla/client"` gives: the client and the worker, for Bun and for Node 20 and later. */
export { NonRetryableError, RetryAfter, Snooze } from "../executor/errors.ts";
export {
  FlotillaClient,
  type FlotillaClientOptions,
  type ResultOptions,
  TaskHandle,
} from "./client.ts";
export { FlotillaError, PartlyEnqueuedError, TaskEndedError } from "./error.ts";
export type { WorkerContext, WorkerHandler, WorkerHandlers } from "./run.ts";
export type { ClusterView, EnqueueOptions, ListFilter, Stats, Task, TaskSpec } from "./types.ts";
export { FlotillaWorker, type FlotillaWorkerOptions, type StopOptions } from "./worker.ts";
