/**
 * The lease protocol in memory, as an executor pool sees it: it hands tasks out, checks fences, answers
 * repeats of a claim alike, and can be told to fail, to hang and to cancel. It checks by itself that a
 * pool never holds more leases, nor asks for more, than it has slots; claims ahead of a free slot are counted
 * apart, and served only when a test says so.
 */
import type { LeaseEvent, WorkerInfo } from "../../src/queue/service.ts";
import { QueueError } from "../../src/queue/service.ts";
import type {
  Claim,
  ClaimedTask,
  Directive,
  HeartbeatLease,
  LeaseEnd,
  LeaseEndAnswer,
  LeaseRef,
  LeaseVerdict,
  Progress,
} from "../../src/queue/types.ts";
import { DEFAULT_RETRY } from "../../src/queue/types.ts";
import type { ExecutorQueue } from "../../src/executor/queue-port.ts";
import type { Clock, Log, Timer } from "../../src/replica/ports.ts";

export const realClock: Clock = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
  after(delay, run): Timer {
    const timer = setTimeout(run, delay);
    return { cancel: () => clearTimeout(timer) };
  },
  soon: (run) => {
    setImmediate(run);
  },
};

export interface LoggedLine {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>> | undefined;
}

export function memoryLog(): Log & { readonly lines: LoggedLine[] } {
  const lines: LoggedLine[] = [];
  const at =
    (level: LoggedLine["level"]): Log["info"] =>
    (message, fields) => {
      lines.push({ level, message, fields });
    };
  return { lines, debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

interface Waiter {
  readonly claim: Claim;
  settle(): void;
}

export interface EndCall {
  readonly items: readonly (LeaseRef & { end: LeaseEnd })[];
}

export class FakeQueue implements ExecutorQueue {
  readonly ends = new Map<string, LeaseEnd>();
  readonly endCalls: EndCall[] = [];
  readonly claims: Claim[] = [];
  readonly reports: (LeaseRef & { progress: Progress | null; lines: readonly string[] })[] = [];
  readonly heartbeats: { leases: readonly HeartbeatLease[]; info: WorkerInfo | undefined }[] = [];
  readonly leased = new Map<string, ClaimedTask>();
  readonly cancelling = new Set<string>();
  /** Most leases held and asked for at once. */
  peak = 0;
  /** "down": calls fail. "hang": heartbeats are never answered. */
  mode: "up" | "down" | "hang" = "up";
  /** Claims whose answer is lost after the tasks were given out. */
  loseClaimAnswers = 0;
  directive: Directive = "ok";
  /** Claims ahead of a free slot get tasks too, behind the others. */
  serveAhead = false;
  #fence = 0;
  #id = 0;
  readonly #ready: { id: string; name: string; payload: string | null }[] = [];
  readonly #waiters = new Set<Waiter>();
  readonly #answers = new Map<string, readonly ClaimedTask[]>();
  readonly #listeners = new Set<(event: LeaseEvent) => void>();
  readonly #watchers = new Set<() => void>();

  add(name: string, payload?: unknown): string {
    return this.addText(name, payload === undefined ? null : JSON.stringify(payload));
  }

  /** With a payload as text, which JavaScript might print in another way. */
  addText(name: string, payload: string | null): string {
    this.#id += 1;
    const id = `task-${this.#id}`;
    this.#ready.push({ id, name, payload });
    this.#serve();
    return id;
  }

  /** What the pool asks for right now. */
  get asked(): number {
    // The repeat of an answered claim brings what is leased already.
    return [...this.#waiters]
      .filter(({ claim }) => claim.ahead !== true && !this.#answers.has(claim.request_id))
      .reduce((sum, { claim }) => sum + claim.max, 0);
  }

  /** Tasks that were released. */
  get readyCount(): number {
    return this.#ready.length;
  }

  cancel(id: string, type: LeaseEvent["type"] = "cancel", reason = "cancelled"): void {
    const task = this.leased.get(id);
    if (task === undefined) throw new Error(`${id} is not leased`);
    if (type === "cancel") this.cancelling.add(id);
    else this.leased.delete(id);
    const event = { type, task_id: id, fence: task.lease.fence, reason };
    for (const listener of this.#listeners) listener(event);
  }

  /** Resolves once `condition` holds; rejects after a generous while. */
  until(condition: () => boolean, what: string, timeoutMs = 10_000): Promise<void> {
    return new Promise((resolve, reject) => {
      const check = (): void => {
        if (!condition()) return;
        clearTimeout(timer);
        clearInterval(poll);
        this.#watchers.delete(check);
        resolve();
      };
      const timer = setTimeout(() => {
        clearInterval(poll);
        this.#watchers.delete(check);
        reject(new Error(`waited in vain for: ${what}`));
      }, timeoutMs);
      const poll = setInterval(check, 5);
      this.#watchers.add(check);
      check();
    });
  }

  ended(id: string): Promise<LeaseEnd> {
    return this.until(() => this.ends.has(id), `${id} to end`).then(() => {
      const end = this.ends.get(id);
      if (end === undefined) throw new Error("unreachable");
      return end;
    });
  }

  claim(
    claim: Claim,
    waitMs: number,
    signal: AbortSignal | null,
  ): Promise<{ tasks: readonly ClaimedTask[]; directive: Directive }> {
    this.claims.push(claim);
    if (this.mode === "down") return Promise.reject(new QueueError("no-leader", "no leader"));
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        const tasks = this.#answers.get(claim.request_id) ?? [];
        this.#waiters.delete(waiter);
        clearTimeout(timer);
        if (this.loseClaimAnswers > 0 && tasks.length > 0) {
          this.loseClaimAnswers -= 1;
          reject(new QueueError("outcome-unknown", "the answer was lost"));
          return;
        }
        resolve({ tasks, directive: this.directive });
      };
      const waiter: Waiter = { claim, settle };
      const timer = setTimeout(settle, waitMs);
      signal?.addEventListener("abort", () => {
        clearTimeout(timer);
        if (this.#waiters.delete(waiter)) reject(signal.reason as Error);
      });
      this.#waiters.add(waiter);
      this.#measure();
      if (this.#answers.has(claim.request_id) || this.directive !== "ok") setImmediate(settle);
      else this.#serve();
    });
  }

  heartbeat(
    _workerId: string,
    _principal: string,
    leases: readonly HeartbeatLease[],
    info?: WorkerInfo,
  ): Promise<{ verdicts: readonly LeaseVerdict[]; directive: Directive }> {
    this.heartbeats.push({ leases, info });
    if (this.mode === "down") return Promise.reject(new QueueError("no-leader", "no leader"));
    if (this.mode === "hang") return new Promise(() => {});
    const verdicts = leases.map((lease): LeaseVerdict => {
      const task = this.leased.get(lease.task_id);
      if (task?.lease.fence !== lease.fence) return "lost";
      return this.cancelling.has(lease.task_id) ? "cancel" : "ok";
    });
    return Promise.resolve({ verdicts, directive: this.directive });
  }

  end(
    _workerId: string,
    _principal: string,
    items: readonly (LeaseRef & { end: LeaseEnd })[],
  ): Promise<readonly LeaseEndAnswer[]> {
    this.endCalls.push({ items });
    if (this.mode !== "up") return Promise.reject(new QueueError("no-leader", "no leader"));
    const answers = items.map(({ task_id, fence, end }): LeaseEndAnswer => {
      const task = this.leased.get(task_id);
      if (task?.lease.fence !== fence) return "stale-lease";
      this.leased.delete(task_id);
      this.ends.set(task_id, end);
      return "ok";
    });
    for (const watcher of this.#watchers) watcher();
    return Promise.resolve(answers);
  }

  report(
    _workerId: string,
    _principal: string,
    items: readonly (LeaseRef & { progress: Progress | null; lines: readonly string[] })[],
  ): Promise<readonly LeaseEndAnswer[]> {
    this.reports.push(...items);
    return Promise.resolve(items.map(() => "ok"));
  }

  onLease(listener: (event: LeaseEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #measure(): void {
    this.peak = Math.max(this.peak, this.leased.size + this.asked);
  }

  #serve(): void {
    const inOrder = [...this.#waiters].toSorted(
      (a, b) => Number(a.claim.ahead === true) - Number(b.claim.ahead === true),
    );
    for (const waiter of inOrder) {
      const { claim } = waiter;
      if (claim.ahead === true && !this.serveAhead) continue;
      const given: ClaimedTask[] = [];
      for (let at = 0; at < this.#ready.length && given.length < claim.max;) {
        const ready = this.#ready[at];
        if (ready === undefined) break;
        if (claim.names?.includes(ready.name) === false && !claim.star) {
          at += 1;
          continue;
        }
        this.#ready.splice(at, 1);
        given.push(this.#lease(ready, claim.worker_id));
      }
      if (given.length === 0) continue;
      this.#answers.set(claim.request_id, given);
      this.#waiters.delete(waiter);
      this.#measure();
      // Answered later, as over a network; the waiter settles itself.
      setImmediate(() => waiter.settle());
    }
  }

  #lease(ready: { id: string; name: string; payload: string | null }, worker: string): ClaimedTask {
    this.#fence += 1;
    const task: ClaimedTask = {
      ...ready,
      status: "Running",
      detail: "running",
      created_at: 0,
      retries: 0,
      max_retries: 3,
      queue: "default",
      priority: 5,
      attempt: 1,
      crashes: 0,
      run_at: 0,
      started_at: 0,
      completed_at: null,
      timeout_ms: null,
      retry: DEFAULT_RETRY,
      result: null,
      last_error: null,
      progress: null,
      lease: { worker, attempt: 1, fence: this.#fence, expires_at: 0 },
      version: 1,
    };
    this.leased.set(ready.id, task);
    return task;
  }
}
