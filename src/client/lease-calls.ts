/** The lease protocol as calls: what a worker outside the cluster says. Every one may be repeated. */
import type { CallOptions, Connection } from "./connection.ts";
import type {
  ClaimAnswer,
  ClaimRequest,
  CompletedAnswer,
  FailRequest,
  HeartbeatAnswer,
  HeartbeatLease,
  LeaseRef,
  Settings,
} from "./types.ts";

/** A completion whose result is JSON text already; null: none. */
export interface Completion extends LeaseRef {
  readonly result: string | null;
}

/** What a worker says of a failed attempt. */
type Failure = LeaseRef & Pick<FailRequest, "error" | "retryable" | "retry_after_ms">;

type Waiting = Pick<CallOptions, "signal" | "timeoutMs" | "attemptMs">;

export class LeaseCalls {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Long poll; `request_id` must be given, for a repeat is the same claim. */
  claim(
    request: ClaimRequest & { request_id: string },
    options: Waiting = {},
  ): Promise<ClaimAnswer> {
    return this.#post("/api/leases/claim", request, { ...options, heldMs: request.wait_ms ?? 0 });
  }

  heartbeat(
    worker_id: string,
    leases: readonly HeartbeatLease[],
    options: Waiting = {},
  ): Promise<HeartbeatAnswer> {
    return this.#post("/api/leases/heartbeat", { worker_id, leases }, options);
  }

  /** 1 to 1,000 of them, in one log entry. */
  complete(
    worker_id: string,
    items: readonly Completion[],
    options: Waiting = {},
  ): Promise<CompletedAnswer> {
    const body = `{"worker_id":${JSON.stringify(worker_id)},"items":[${items.map(completionText).join(",")}]}`;
    return this.#connection.json("POST", "/api/leases/complete", { ...options, body });
  }

  fail(
    worker_id: string,
    lease: LeaseRef,
    failure: Pick<FailRequest, "error" | "retryable" | "retry_after_ms">,
    options: Waiting = {},
  ): Promise<unknown> {
    return this.#end(worker_id, lease, "fail", failure, options);
  }

  /** 1 to 1,000 of them, in one log entry. */
  failAll(
    worker_id: string,
    items: readonly Failure[],
    options: Waiting = {},
  ): Promise<CompletedAnswer> {
    return this.#post("/api/leases/fail", { worker_id, items }, options);
  }

  /** 1 to 1,000 of them, in one log entry. */
  releaseAll(
    worker_id: string,
    items: readonly LeaseRef[],
    options: Waiting = {},
  ): Promise<CompletedAnswer> {
    return this.#post("/api/leases/release", { worker_id, items }, options);
  }

  /** Puts the task back for a while, at no cost. */
  snooze(
    worker_id: string,
    lease: LeaseRef,
    delay_ms: number,
    options: Waiting = {},
  ): Promise<unknown> {
    return this.#end(worker_id, lease, "snooze", { delay_ms }, options);
  }

  /** Puts the task back at once, at no cost; confirms a cancel. */
  release(worker_id: string, lease: LeaseRef, options: Waiting = {}): Promise<unknown> {
    return this.#end(worker_id, lease, "release", {}, options);
  }

  /** 1 to 1,000 lines. A repeat after a lost answer may append them twice. */
  log(
    worker_id: string,
    lease: LeaseRef,
    lines: readonly string[],
    options: Waiting = {},
  ): Promise<unknown> {
    return this.#end(worker_id, lease, "logs", { lines }, options);
  }

  settings(options: Waiting = {}): Promise<Settings> {
    return this.#connection.json("GET", "/api/cluster/config", options);
  }

  #end(
    worker_id: string,
    { task_id, attempt, fence }: LeaseRef,
    action: "fail" | "snooze" | "release" | "logs",
    rest: object,
    options: Waiting,
  ): Promise<unknown> {
    const path = `/api/leases/${encodeURIComponent(task_id)}/${action}`;
    return this.#post(path, { worker_id, attempt, fence, ...rest }, options);
  }

  #post<T>(path: string, body: object, options: CallOptions): Promise<T> {
    return this.#connection.json<T>("POST", path, { ...options, body: JSON.stringify(body) });
  }
}

function completionText({ task_id, attempt, fence, result }: Completion): string {
  const lease = JSON.stringify({ task_id, attempt, fence });
  return result === null ? lease : `${lease.slice(0, -1)},"result":${result}}`;
}
