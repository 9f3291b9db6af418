/**
 * A TaskQueue in memory that the dashboard's tests look at: it keeps tasks, counts them, refuses what the
 * real one refuses, and changes over time when asked to. The lease protocol is not part of it.
 */
import { STATUSES } from "../../src/queue/types.ts";
import { DEFAULT_RETRY, DEFAULT_SETTINGS } from "../../src/queue/types.ts";
import type {
  Attempt,
  ClusterView,
  LogLine,
  NewTask,
  Status,
  Task,
} from "../../src/queue/types.ts";
import { QueueError } from "../../src/queue/service.ts";
import type {
  Change,
  Health,
  ReadInfo,
  Stats,
  TaskFilter,
  TaskQueue,
  WorkerView,
  WriteContext,
} from "../../src/queue/service.ts";
import type { NodeId } from "../../src/raft/types.ts";

/** Any time; the tests' clock starts here too. */
export const START = Date.UTC(2026, 0, 31, 8, 0, 0);

const nodeId = (text: string): NodeId => text as NodeId;

export function fakeTask(changes: Partial<Task> & { readonly id: string }): Task {
  return {
    name: "echo",
    status: "Pending",
    detail: null,
    created_at: START,
    retries: 0,
    max_retries: 3,
    payload: null,
    queue: "default",
    priority: 5,
    attempt: 0,
    crashes: 0,
    run_at: START,
    started_at: null,
    completed_at: null,
    timeout_ms: 60_000,
    retry: DEFAULT_RETRY,
    result: null,
    last_error: null,
    progress: null,
    lease: null,
    version: 1,
    ...changes,
  };
}

const unused = (name: string) => (): never => {
  throw new Error(`The dashboard must not call ${name}`);
};

export class FakeQueue implements TaskQueue {
  /** Oldest first. */
  readonly tasks: Task[] = [];
  readonly attemptsOf = new Map<string, Attempt[]>();
  readonly logsOf = new Map<string, LogLine[]>();
  readonly submits: { readonly task: NewTask; readonly context: WriteContext }[] = [];
  /** Thrown by every write while set. */
  refusal: QueueError | null = null;
  stalenessMs = 0;
  leader: string | null = "n1";
  workerList: WorkerView[] = [];
  /** Never answers while true. */
  hangs = false;
  readonly refusesSubmits = (): boolean => false;
  reads = 0;
  healthNow: Health = { status: "healthy", ready: true, notReady: null, alarms: [] };
  seconds: { at: number; completed: number; failed: number; submitted: number }[] = [];
  readonly #listeners = new Set<(change: Change) => void>();
  #version = 1;

  get listeners(): number {
    return this.#listeners.size;
  }

  add(task: Task): Task {
    this.tasks.push(task);
    return task;
  }

  /** Replaces fields of a task and tells who listens. */
  change(id: string, changes: Partial<Task>): void {
    const index = this.tasks.findIndex((task) => task.id === id);
    const task = this.tasks[index];
    if (task === undefined) throw new QueueError("not-found", "unknown");
    this.#version += 1;
    this.tasks[index] = { ...task, ...changes, version: this.#version };
    this.notify(id);
  }

  notify(...ids: string[]): void {
    const change = { appliedIndex: this.#version, tasks: new Set(ids) };
    for (const listener of this.#listeners) listener(change);
  }

  async submit(tasks: readonly NewTask[], context: WriteContext) {
    if (this.refusal !== null) throw this.refusal;
    const before = this.submits.find(
      (one) => one.context.idempotency?.key === context.idempotency?.key,
    );
    if (before !== undefined) {
      if (before.context.idempotency?.hash !== context.idempotency?.hash) {
        throw new QueueError("idempotency-mismatch", "another body");
      }
      return { ids: [before.task.id], existing: false, replayed: true };
    }
    for (const task of tasks) {
      this.submits.push({ task, context });
      const { id, name, queue, priority, payload, max_retries } = task;
      this.add(fakeTask({ id, name, queue, priority, payload, max_retries, detail: "ready" }));
    }
    this.notify(...tasks.map((task) => task.id));
    return { ids: tasks.map((task) => task.id), existing: false, replayed: false };
  }

  async cancel(id: string): Promise<void> {
    if (this.refusal !== null) throw this.refusal;
    const task = this.tasks.find((one) => one.id === id);
    if (task === undefined) throw new QueueError("not-found", "unknown");
    if (task.status === "Completed" || task.status === "Failed") {
      throw new QueueError("already-final", "ended");
    }
    this.change(id, { status: "Cancelled", detail: "user", completed_at: START + 9_000 });
  }

  async retry(id: string): Promise<{ replayed: boolean }> {
    if (this.refusal !== null) throw this.refusal;
    const task = this.tasks.find((one) => one.id === id);
    if (task === undefined) throw new QueueError("not-found", "unknown");
    if (task.completed_at === null) throw new QueueError("not-final", "not ended");
    this.change(id, { status: "Pending", detail: "ready", completed_at: null });
    return { replayed: false };
  }

  async get(id: string) {
    this.reads += 1;
    return { task: this.tasks.find((task) => task.id === id) ?? null, read: this.#read() };
  }

  held(ids: readonly string[]) {
    return ids.map((id) => this.tasks.find((task) => task.id === id) ?? null);
  }

  async list(filter: TaskFilter, limit: number, cursor: string | null) {
    this.reads += 1;
    const before = cursor === null ? this.tasks.length : Number(cursor);
    if (!Number.isInteger(before)) throw new Error("a foreign cursor reached the queue");
    const found: { task: Task; index: number }[] = [];
    for (let index = before - 1; index >= 0 && found.length <= limit; index -= 1) {
      const task = this.tasks[index];
      if (task !== undefined && matches(task, filter)) found.push({ task, index });
    }
    const page = found.slice(0, limit);
    const last = page.at(-1);
    return {
      page: {
        tasks: page.map((one) => one.task),
        next: found.length > limit && last !== undefined ? String(last.index) : null,
      },
      read: this.#read(),
    };
  }

  async attempts(id: string) {
    return { attempts: this.attemptsOf.get(id) ?? [], read: this.#read() };
  }

  async logs(id: string, cursor: string | null, limit: number) {
    const lines = this.logsOf.get(id) ?? [];
    const start = Number(cursor ?? 0);
    const end = start + limit;
    return {
      lines: lines.slice(start, end),
      next: end < lines.length ? String(end) : null,
      read: this.#read(),
    };
  }

  async stats(): Promise<{ stats: Stats; read: ReadInfo }> {
    this.reads += 1;
    const counts: Record<Status, number> = {
      Pending: 0,
      Running: 0,
      Completed: 0,
      Failed: 0,
      Cancelled: 0,
    };
    for (const status of STATUSES) {
      counts[status] = this.tasks.filter((task) => task.status === status).length;
    }
    return { stats: { stats: counts, total_tasks: this.tasks.length }, read: this.#read() };
  }

  async readWorkers(): Promise<{ workers: readonly WorkerView[]; read: ReadInfo }> {
    return { workers: await this.workers(), read: this.#read() };
  }

  async readCluster(): Promise<{ cluster: ClusterView; read: ReadInfo }> {
    return { cluster: await this.cluster(), read: this.#read() };
  }

  async workers(): Promise<readonly WorkerView[]> {
    if (this.hangs) await new Promise<never>(() => {});
    return this.workerList;
  }

  async cluster(): Promise<ClusterView> {
    if (this.hangs) await new Promise<never>(() => {});
    return {
      cluster_id: "c1",
      node_id: nodeId("n2"),
      role: "follower",
      term: 7,
      leader_id: this.leader === null ? null : nodeId(this.leader),
      commit_index: 1_234_567,
      applied_index: this.#version,
      last_index: this.#version,
      machine_version: { in_force: 1, newest: 1, supported: 1 },
      snapshot: null,
      alarms: [],
      members: ["n1", "n2", "n3"].map((id) => ({
        id: nodeId(id),
        url: `http://127.0.0.1:300${id.slice(1)}`,
        role: id === this.leader ? "leader" : "follower",
        voter: true,
        match_index: this.#version,
        lag: id === "n3" ? 12 : 0,
        reachable: id !== "n3",
        last_contact_ms: id === "n3" ? 8_000 : 20,
        waiting: null,
        replaces: null,
        round_trip_ms: null,
        replication: null,
      })),
    };
  }

  health(): Health {
    return this.healthNow;
  }

  onChange(listener: (change: Change) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  throughput() {
    return this.seconds;
  }

  settings() {
    return DEFAULT_SETTINGS;
  }

  readonly clear = unused("clear");
  readonly readSettings = unused("readSettings");
  readonly updateSettings = unused("updateSettings");
  readonly waitFinal = unused("waitFinal");
  readonly claim = unused("claim");
  readonly heartbeat = unused("heartbeat");
  readonly end = unused("end");
  readonly report = unused("report");
  readonly onLease = unused("onLease");
  readonly quiet = unused("quiet");
  readonly keyed = {
    known: unused("keyed.known"),
    end: unused("keyed.end"),
    report: unused("keyed.report"),
    heartbeat: unused("keyed.heartbeat"),
    quiet: unused("keyed.quiet"),
  };

  #read(): ReadInfo {
    return { appliedIndex: this.#version, stalenessMs: this.stalenessMs };
  }
}

function matches(task: Task, filter: TaskFilter): boolean {
  if (filter.statuses !== undefined && !filter.statuses.includes(task.status)) return false;
  if (filter.queue !== undefined && filter.queue !== task.queue) return false;
  if (filter.name !== undefined && filter.name !== task.name) return false;
  if (filter.q === undefined) return true;
  return task.id.startsWith(filter.q) || task.name.startsWith(filter.q);
}
