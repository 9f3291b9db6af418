/**
 * A task queue in memory, one process, no log: the promises of queue/service.ts as far as the API can see
 * them. Only for tests of the API.
 */
import {
  DEFAULT_SETTINGS,
  FINAL_STATUSES,
  type Claim,
  type ClaimedTask,
  type ClusterView,
  type HeartbeatLease,
  type IdempotencyScope,
  type LeaseEnd,
  type LeaseEndAnswer,
  type LeaseRef,
  type LogLine,
  type NewTask,
  type Progress,
  type Settings,
  type SettingsChange,
  type Status,
  type Task,
} from "../../src/queue/types.ts";
import { MACHINE_VERSIONS } from "../../src/queue/commands.ts";
import { mergeSettings } from "../../src/queue/settings.ts";
import {
  QueueError,
  type Consistency,
  type Health,
  type KeyedQueue,
  type TaskFilter,
  type TaskQueue,
  type WorkerView,
  type WriteContext,
} from "../../src/queue/service.ts";

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
interface Row {
  readonly task: Mutable<Task>;
  readonly hash: string | null;
  owner: { worker: string; principal: string } | null;
  readonly lines: LogLine[];
}

export class FakeQueue implements TaskQueue {
  readonly rows = new Map<string, Row>();
  /** First answers by scope. */
  readonly keys = new Map<string, { hash: string; answer: unknown }>();
  readonly calls: string[] = [];
  /** Thrown by the next call of any kind. */
  fault: Error | null = null;
  current: Settings = DEFAULT_SETTINGS;
  condition: Health = { status: "healthy", ready: true, notReady: null, alarms: [] };
  workerViews: WorkerView[] = [];
  lastFilter: TaskFilter | null = null;
  lastChange: SettingsChange | null = null;
  lastEnd: LeaseEnd | null = null;
  lastClaim: Claim | null = null;
  lastProgress: HeartbeatLease[] = [];
  abandonedClaims = 0;
  overloaded = false;
  #fence = 0;
  #index = 0;
  readonly #waiters = new Set<() => void>();

  constructor(readonly now: () => number) {}

  #enter(name: string): void {
    this.calls.push(name);
    const fault = this.fault;
    this.fault = null;
    if (fault !== null) throw fault;
  }

  #touch(row: Row): void {
    row.task.version = ++this.#index;
    for (const wake of this.#waiters) wake();
  }

  /** The first answer under this key, or that of `run`, which `keep` may leave out. @throws QueueError */
  async once<T>(
    scope: IdempotencyScope | null | undefined,
    run: () => T | Promise<T>,
    keep: (answer: T) => boolean = () => true,
  ): Promise<{ value: T; replayed: boolean }> {
    if (scope === null || scope === undefined) return { value: await run(), replayed: false };
    const key = JSON.stringify([scope.principal, scope.route, scope.key]);
    const known = this.keys.get(key);
    if (known !== undefined && known.hash !== scope.hash) {
      throw new QueueError("idempotency-mismatch", "The key was used with another body.");
    }
    if (known !== undefined) return { value: structuredClone(known.answer) as T, replayed: true };
    const value = await run();
    if (keep(value)) this.keys.set(key, { hash: scope.hash, answer: structuredClone(value) });
    return { value: structuredClone(value), replayed: false };
  }

  refusesSubmits(): boolean {
    return this.overloaded;
  }

  async submit(tasks: readonly NewTask[], context: WriteContext) {
    this.#enter("submit");
    const { value, replayed } = await this.once(context.idempotency, () => this.#submit(tasks));
    const { shown, ...answer } = value;
    return { ...answer, replayed, ...(context.idempotency === null ? {} : { tasks: shown }) };
  }

  #submit(tasks: readonly NewTask[]) {
    const ids = tasks.map((task) => task.id);
    let existing = false;
    for (const task of tasks) {
      const known = this.rows.get(task.id);
      if (known !== undefined && known.hash !== task.body_hash) {
        throw new QueueError("id-conflict", "Another task has this id.", null, task.id);
      }
      existing ||= known !== undefined;
    }
    if (!existing) for (const task of tasks) this.rows.set(task.id, this.#row(task));
    const shown = ids.flatMap((id) => this.rows.get(id)?.task ?? []);
    return { ids, existing, shown };
  }

  #row(task: NewTask): Row {
    const now = this.now();
    return {
      hash: task.body_hash,
      owner: null,
      lines: [],
      task: {
        id: task.id,
        name: task.name,
        status: "Pending",
        detail: task.run_at !== null && task.run_at > now ? "scheduled" : "ready",
        created_at: now,
        retries: 0,
        max_retries: task.max_retries,
        payload: task.payload,
        queue: task.queue,
        priority: task.priority,
        attempt: 0,
        crashes: 0,
        run_at: task.run_at ?? now,
        started_at: null,
        completed_at: null,
        timeout_ms: task.timeout_ms,
        retry: task.retry,
        result: null,
        last_error: null,
        progress: null,
        lease: null,
        version: ++this.#index,
      },
    };
  }

  async cancel(id: string) {
    this.#enter("cancel");
    const row = this.rows.get(id);
    if (row === undefined) throw new QueueError("not-found", `There is no task ${id}.`);
    if (row.task.status === "Completed" || row.task.status === "Failed") {
      throw new QueueError("already-final", `The task is ${row.task.status}.`);
    }
    if (row.task.status === "Running") row.task.detail = "cancelling";
    else Object.assign(row.task, { status: "Cancelled", detail: "user" });
    this.#touch(row);
  }

  async retry(id: string, ifVersion: number | null, context: WriteContext) {
    this.#enter("retry");
    const row = this.rows.get(id);
    const { value, replayed } = await this.once(context.idempotency, () =>
      this.#retry(id, row, ifVersion),
    );
    return { replayed, ...(context.idempotency === null ? {} : { task: value }) };
  }

  #retry(id: string, row: Row | undefined, ifVersion: number | null): Task {
    if (row === undefined) throw new QueueError("not-found", `There is no task ${id}.`);
    if (ifVersion !== null && ifVersion !== row.task.version) {
      throw new QueueError("version-mismatch", `The version is ${row.task.version}.`);
    }
    if (!FINAL_STATUSES.includes(row.task.status)) {
      throw new QueueError("not-final", `The task is ${row.task.status}.`);
    }
    Object.assign(row.task, { status: "Pending", detail: "ready", retries: 0 });
    this.#touch(row);
    return row.task;
  }

  async clear(status: Status | null) {
    this.#enter("clear");
    const doomed = [...this.rows.values()].filter(
      ({ task }) => status === null || task.status === status,
    );
    for (const { task } of doomed) this.rows.delete(task.id);
    return doomed.length;
  }

  async updateSettings(change: SettingsChange) {
    this.#enter("updateSettings");
    this.lastChange = change;
    this.current = mergeSettings(this.current, change, MACHINE_VERSIONS.newest);
    return this.current;
  }

  #read(consistency: Consistency) {
    return consistency === "stale"
      ? { appliedIndex: this.#index, stalenessMs: 12.3 }
      : { appliedIndex: this.#index, stalenessMs: 0 };
  }

  async get(id: string, consistency: Consistency) {
    this.#enter("get");
    return { task: this.rows.get(id)?.task ?? null, read: this.#read(consistency) };
  }

  held(ids: readonly string[]) {
    this.#enter("held");
    return ids.map((id) => this.rows.get(id)?.task ?? null);
  }

  async list(filter: TaskFilter, limit: number, cursor: string | null, consistency: Consistency) {
    this.#enter("list");
    this.lastFilter = filter;
    const matching = [...this.rows.values()]
      .map(({ task }) => task)
      .filter((task) => filter.statuses?.includes(task.status) ?? true)
      .filter((task) => filter.name === undefined || task.name === filter.name)
      .toReversed();
    const start = cursor === null ? 0 : Number(cursor);
    const tasks = matching.slice(start, start + limit);
    const next = start + limit < matching.length ? String(start + limit) : null;
    return { page: { tasks, next }, read: this.#read(consistency) };
  }

  async attempts(id: string, consistency: Consistency) {
    this.#enter("attempts");
    const row = this.rows.get(id);
    const attempts =
      row === undefined
        ? null
        : Array.from({ length: row.task.attempt }, (_, index) => ({
            attempt: index + 1,
            fence: index + 1,
            worker: "w",
            started_at: this.now(),
            finished_at: null,
            outcome: "running" as const,
            error: null,
          }));
    return { attempts, read: this.#read(consistency) };
  }

  async logs(id: string, cursor: string | null, limit: number, consistency: Consistency) {
    this.#enter("logs");
    const all = this.rows.get(id)?.lines ?? null;
    const start = cursor === null ? 0 : Number(cursor);
    return {
      lines: all?.slice(start, start + limit) ?? null,
      next: all !== null && start + limit < all.length ? String(start + limit) : null,
      read: this.#read(consistency),
    };
  }

  async stats(consistency: Consistency) {
    this.#enter("stats");
    const stats = { Pending: 0, Running: 0, Completed: 0, Failed: 0, Cancelled: 0 };
    for (const { task } of this.rows.values()) stats[task.status]++;
    return { stats: { stats, total_tasks: this.rows.size }, read: this.#read(consistency) };
  }

  settings(): Settings {
    return this.current;
  }

  async readSettings(consistency: Consistency) {
    this.#enter("readSettings");
    return { settings: this.current, read: this.#read(consistency) };
  }

  /** Resolves at the next change, at the end of the time, or when `signal` aborts. */
  #pause(waitMs: number, signal: AbortSignal | null): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(done);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, waitMs);
      this.#waiters.add(done);
      signal?.addEventListener("abort", done);
    });
  }

  async waitFinal(id: string, waitMs: number, signal: AbortSignal | null) {
    this.#enter("waitFinal");
    const task = (): Task | null => this.rows.get(id)?.task ?? null;
    const end = performance.now() + waitMs;
    for (;;) {
      const now = task();
      const left = end - performance.now();
      if (now === null || FINAL_STATUSES.includes(now.status) || left <= 0) return now;
      if (signal?.aborted === true) return now;
      await this.#pause(left, signal);
    }
  }

  async claim(claim: Claim, waitMs: number, signal: AbortSignal | null) {
    this.#enter("claim");
    this.lastClaim = claim;
    const { value, replayed } = await this.once(
      claim.idem,
      () => this.#claimWhenReady(claim, waitMs, signal),
      ({ tasks }) => tasks.length > 0,
    );
    return { ...value, replayed };
  }

  async #claimWhenReady(claim: Claim, waitMs: number, signal: AbortSignal | null) {
    const end = performance.now() + waitMs;
    for (;;) {
      const tasks = this.#claimNow(claim);
      const left = end - performance.now();
      if (tasks.length > 0 || left <= 0) return { tasks, directive: "ok" as const };
      if (signal?.aborted === true) {
        this.abandonedClaims++;
        return { tasks, directive: "ok" as const };
      }
      await this.#pause(left, signal);
    }
  }

  #claimNow(claim: Claim): ClaimedTask[] {
    const claimed: ClaimedTask[] = [];
    for (const row of this.rows.values()) {
      if (claimed.length >= claim.max) break;
      if (row.task.detail !== "ready" || !(claim.names?.includes(row.task.name) ?? true)) continue;
      const lease = {
        worker: claim.worker_id,
        attempt: ++row.task.attempt,
        fence: ++this.#fence,
        expires_at: this.now() + this.current.lease,
      };
      Object.assign(row.task, { status: "Running", detail: "running", lease });
      row.owner = { worker: claim.worker_id, principal: claim.principal };
      row.task.version = ++this.#index;
      claimed.push({ ...row.task, lease });
    }
    return claimed;
  }

  async heartbeat(_workerId: string, _principal: string, leases: readonly HeartbeatLease[]) {
    this.#enter("heartbeat");
    this.lastProgress = [...leases];
    const verdicts = leases.map(({ task_id, fence }) => {
      const task = this.rows.get(task_id)?.task;
      if (task?.lease?.fence !== fence) return "lost" as const;
      return task.detail === "cancelling" ? ("cancel" as const) : ("ok" as const);
    });
    return { verdicts, directive: "ok" as const };
  }

  async end(
    workerId: string,
    principal: string,
    items: readonly (LeaseRef & { end: LeaseEnd })[],
  ): Promise<readonly LeaseEndAnswer[]> {
    this.#enter("end");
    return items.map((item) => {
      this.lastEnd = item.end;
      const row = this.rows.get(item.task_id);
      const refusal = this.#leaseFault(row, workerId, principal, item);
      if (refusal !== null || row === undefined) return refusal ?? "not-found";
      if (row.task.detail === "cancelling") {
        Object.assign(row.task, { status: "Cancelled", detail: "user", lease: null });
        this.#touch(row);
        return item.end.kind === "release" ? "ok" : "cancelled";
      }
      row.task.lease = null;
      if (item.end.kind === "complete") {
        Object.assign(row.task, { status: "Completed", detail: null, result: item.end.result });
      } else if (item.end.kind === "fail") {
        Object.assign(row.task, { status: "Failed", detail: "exhausted" });
        row.task.last_error = item.end.error;
      } else Object.assign(row.task, { status: "Pending", detail: "ready" });
      this.#touch(row);
      return "ok";
    });
  }

  #leaseFault(
    row: Row | undefined,
    worker: string,
    principal: string,
    lease: LeaseRef,
  ): LeaseEndAnswer | null {
    if (row === undefined) return "not-found";
    if (row.task.lease?.fence !== lease.fence) return "stale-lease";
    return row.owner?.worker === worker && row.owner.principal === principal ? null : "forbidden";
  }

  async report(
    workerId: string,
    principal: string,
    items: readonly (LeaseRef & { progress: Progress | null; lines: readonly string[] })[],
  ): Promise<readonly LeaseEndAnswer[]> {
    this.#enter("report");
    return items.map((item) => {
      const row = this.rows.get(item.task_id);
      const refusal = this.#leaseFault(row, workerId, principal, item);
      if (refusal !== null || row === undefined) return refusal ?? "not-found";
      const at = this.now();
      row.lines.push(...item.lines.map((line) => ({ attempt: item.attempt, at, line })));
      return "ok";
    });
  }

  readonly keyed: KeyedQueue = {
    known: async ({ principal, route, key }) =>
      this.keys.has(JSON.stringify([principal, route, key])),
    end: (scope, workerId, items) =>
      this.once(scope, () => this.end(workerId, scope.principal, items), changed),
    report: (scope, workerId, items) =>
      this.once(scope, () => this.report(workerId, scope.principal, items), changed),
    heartbeat: (scope, workerId, leases) =>
      this.once(scope, () => this.heartbeat(workerId, scope.principal, leases)),
    quiet: (scope, workerId) =>
      this.once(
        scope,
        () => this.quiet(workerId),
        (known) => known,
      ),
  };

  onLease() {
    return () => {};
  }

  async workers() {
    this.#enter("workers");
    return this.workerViews;
  }

  async readWorkers(consistency: Consistency) {
    this.#enter(`readWorkers ${consistency}`);
    return { workers: this.workerViews, read: this.#read(consistency) };
  }

  async readCluster(consistency: Consistency) {
    const cluster = await this.cluster();
    return { cluster, read: this.#read(consistency) };
  }

  async quiet(workerId: string) {
    this.#enter("quiet");
    return this.workerViews.some((worker) => worker.id === workerId);
  }

  async cluster(): Promise<ClusterView> {
    this.#enter("cluster");
    return {
      cluster_id: "c1",
      node_id: "n1" as ClusterView["node_id"],
      role: "leader",
      term: 3,
      leader_id: "n1" as ClusterView["node_id"],
      commit_index: this.#index,
      applied_index: this.#index,
      last_index: this.#index,
      machine_version: { in_force: 1, newest: 1, supported: 1 },
      snapshot: null,
      alarms: [],
      members: [
        {
          id: "n1" as ClusterView["node_id"],
          url: "http://127.0.0.1:3000",
          role: "leader",
          voter: true,
          match_index: this.#index,
          lag: 0,
          reachable: true,
          last_contact_ms: 0,
          waiting: null,
          replaces: null,
          round_trip_ms: null,
          replication: null,
        },
      ],
    };
  }

  health(): Health {
    return this.condition;
  }

  onChange() {
    return () => {};
  }

  throughput() {
    return [];
  }
}

const changed = (answers: readonly LeaseEndAnswer[]): boolean =>
  answers.some((answer) => answer === "ok" || answer === "cancelled");
