/**
 * The task queue of one member: what `api/`, `dashboard/` and `executor/` use. Writes become commands and
 * are answered by what this member applies; reads are linearizable unless the caller says otherwise;
 * claims and heartbeats go to whoever leads. Any member answers anything.
 */
import type { Alarm, Consensus, ConsensusStatus } from "../replica/consensus.ts";
import { type Clock, isNoRoom, type Log, type Millis } from "../replica/ports.ts";
import { ClaimWaiters } from "./claim-waiters.ts";
import { ClusterMembers, type MemberChanges } from "./cluster-members.ts";
import { alarmsOf, clusterView, healthOf, memberViews } from "./cluster-view.ts";
import type { Signal } from "./commands.ts";
import type { ReadyHint } from "./dispatcher.ts";
import { FinalWaiters } from "./final-waiters.ts";
import { KeyedCalls } from "./keyed-calls.ts";
import { LeaderSide } from "./leader.ts";
import {
  type DirectiveBody,
  type HeartbeatBody,
  LEASES_PER_CALL,
  parseClaimRef,
  parseDirectiveBody,
  parseHeartbeatReply,
  parseMembers,
  parseRefused,
  parseWorkers,
} from "./messages.ts";
import { Pressure } from "./pressure.ts";
import { asQueueError, Proposer, queueError } from "./proposals.ts";
import { ReportGatherer } from "./report-gatherer.ts";
import type {
  Change,
  Consistency,
  Health,
  HeartbeatAnswer,
  LeaseEvent,
  QueueErrorCode,
  ReadInfo,
  Stats,
  Submitted,
  TaskFilter,
  TaskPage,
  TaskQueue,
  WorkerInfo,
  WorkerView,
  WriteContext,
} from "./service.ts";
import { LOG_TAIL_SINCE } from "./settings.ts";
import type { SignalContext, TaskState } from "./state.ts";
import { ReaderOverloaded, type TaskReader } from "./task-reader.ts";
import type { ThroughputSecond } from "./throughput.ts";
import type {
  Attempt,
  Claim,
  ClaimedTask,
  ClusterView,
  Directive,
  HeartbeatLease,
  IdempotencyScope,
  LeaseEnd,
  LeaseEndAnswer,
  LeaseRef,
  LeaseVerdict,
  LogLine,
  NewTask,
  Progress,
  Settings,
  SettingsChange,
  Status,
  Task,
} from "./types.ts";
import { Watching } from "./watching.ts";
import { type LocalWorker, WORKERS_MAX } from "./worker-table.ts";

/** Questions that only inform people: not worth a long wait. */
const VIEW_TIMEOUT_MS: Millis = 1_000;
/** Between two tries of a `boot` command. */
const BOOT_RETRY_MS: Millis = 500;
/** Distinct pairs of queue and name in the hint of one submit; the rest is found after it is applied. */
const HINT_MAX = 64;

export interface FlotillaQueueOptions {
  readonly consensus: Consensus;
  readonly machine: TaskState;
  readonly reader: TaskReader;
  readonly clock: Clock;
  readonly log: Log;
  readonly requestTimeoutMs: Millis;
  /** An election timeout: without contact for longer than this the member is unhealthy. */
  readonly contactTimeoutMs: Millis;
  /** A code refuses submits at this time (low disk); null lets them in. */
  readonly admission?: () => QueueErrorCode | null;
  /** A sentence when the disk of this member does not work. */
  readonly diskFault?: () => string | null;
  /** A sentence while it has so little room that submits are refused. */
  readonly lowDisk?: () => string | null;
}

export class FlotillaQueue implements TaskQueue {
  readonly #o: FlotillaQueueOptions;
  readonly #proposer: Proposer;
  readonly #pressure = new Pressure();
  readonly #leader: LeaderSide;
  readonly #claims: ClaimWaiters;
  readonly #finals: FinalWaiters;
  readonly #reports: ReportGatherer;
  readonly #watching: Watching;
  readonly keyed: KeyedCalls;
  /** What this member's own executors last said of themselves. */
  #localWorker: LocalWorker | null = null;
  #draining = false;
  #stopped = false;
  readonly #unlisten: () => void;

  constructor(options: FlotillaQueueOptions) {
    this.#o = options;
    const { clock, consensus, log, machine, requestTimeoutMs } = options;
    this.#proposer = new Proposer(consensus, requestTimeoutMs);
    this.#finals = new FinalWaiters(machine, clock);
    this.#watching = new Watching(clock, () => machine.applied().index);
    this.#claims = new ClaimWaiters({
      consensus,
      state: machine,
      clock,
      log,
      proposer: this.#proposer,
      requestTimeoutMs,
      localWorker: () => this.#localWorker,
    });
    this.#reports = new ReportGatherer(clock, async (worker_id, principal, items) => {
      const command = { type: "report", worker_id, principal, items } as const;
      const weight = items.length;
      const { value } = await this.#proposer.propose(command, "ended", { weight });
      return value.items;
    });
    this.keyed = new KeyedCalls({
      queue: this,
      state: machine,
      clock,
      proposer: this.#proposer,
      reports: this.#reports,
      claims: this.#claims,
      current: () => this.#current("linearizable"),
    });
    this.#leader = new LeaderSide({
      ...options,
      state: machine,
      proposer: this.#proposer,
    });
    consensus.serve("claim.known", async (body) => {
      this.#claims.known(parseClaimRef(body));
      return null;
    });
    consensus.serve("claim.returned", async (body) => {
      this.#claims.returned(parseClaimRef(body));
      return null;
    });
    consensus.serve("claim.refused", async (body) => {
      const refused = parseRefused(body);
      this.#claims.refused(refused, queueError(refusalCode(refused.code), refused.detail));
      return null;
    });
    consensus.serve("claim.directive", async (body) => {
      const { worker_id, directive } = parseDirectiveBody(body);
      this.#claims.directed(worker_id, directive);
      return null;
    });
    this.#unlisten = machine.onSignals((signals, at) => this.#applied(signals, at));
    consensus.onLeadership((leadership) => {
      if (this.#stopped) return;
      this.#leader.onLeadership(leadership);
      this.#claims.onLeadership(leadership);
    });
  }

  // ------------------------------------------------------------------ life of the member

  /** Tells the cluster which names this member handles, and frees what its earlier boots held; until done. */
  async boot(names: readonly string[]): Promise<void> {
    const { clock, consensus, log } = this.#o;
    const command = { type: "boot", member: consensus.id, boot: consensus.boot, names } as const;
    for (;;) {
      try {
        await this.#proposer.propose(command, "done", { weight: 100 });
        return;
      } catch (error) {
        if (this.#stopped) return;
        const { reason } = error as { reason?: unknown };
        if (reason === "stale-session" || reason === "names-full") throw error;
        log.debug("the boot of this member could not be recorded and is tried again", {
          error: String(error),
        });
      }
      await new Promise<void>((resolve) => {
        clock.after(BOOT_RETRY_MS, resolve);
      });
    }
  }

  /** Membership and leadership, as operators change them. */
  members(): MemberChanges {
    const { consensus, requestTimeoutMs } = this.#o;
    return new ClusterMembers({
      consensus,
      requestTimeoutMs,
      keyed: this.keyed,
      cluster: () => this.cluster(),
    });
  }

  /** No new claims from now on; those that wait are answered empty. Everything else goes on. */
  beginDrain(): void {
    this.#draining = true;
    this.#claims.drain();
  }

  get draining(): boolean {
    return this.#draining;
  }

  /** Ends every wait and every timer. Writes are refused by consensus once that stops. */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#draining = true;
    const stopping = (): Error => queueError("stopping", "this member is shutting down");
    this.#unlisten();
    this.#leader.stop();
    this.#claims.stop(stopping);
    this.#finals.failAll(stopping);
  }

  /** The state was replaced by a snapshot: no signals told of what happened in between. */
  recheck(): void {
    this.#finals.recheck();
    this.#claims.recheck();
    this.#watching.tellChange();
  }

  /** What waits at this member, for metrics. */
  waiting(): {
    readonly claims: number;
    readonly finals: number;
    readonly reports: number;
    readonly offers: number;
    readonly leases: number;
  } {
    return {
      claims: this.#claims.size,
      finals: this.#finals.size,
      reports: this.#reports.size,
      ...this.#leader.counts(),
    };
  }

  // ------------------------------------------------------------------ writes

  async submit(tasks: readonly NewTask[], context: WriteContext): Promise<Submitted> {
    const { idempotency } = context;
    const refused = this.#o.admission?.() ?? (this.#pressure.refuses() ? "overloaded" : null);
    // A repeat adds no task: it gets its answer however full the disk is.
    const known = idempotency !== null && this.#o.machine.keyedAnswer(idempotency) !== null;
    if (refused !== null && !known)
      throw queueError(refused, ADMISSION[refused] ?? "no tasks are taken at this time");
    const { clock } = this.#o;
    const since = clock.monotonic();
    this.#pressure.began();
    let answered = false;
    try {
      const { value, replayed } = await this.#proposer.propose(
        { type: "submit", tasks, ...idemOf(context) },
        "submitted",
        { weight: tasks.length, hint: this.#hintOf(tasks), signal: context.signal },
      );
      answered = true;
      const { ids, existing, tasks: first } = value;
      return { ids, existing, replayed, ...(first === undefined ? {} : { tasks: first }) };
    } finally {
      const now = clock.monotonic();
      this.#pressure.ended(now, answered ? now - since : null);
    }
  }

  refusesSubmits(): boolean {
    return this.#pressure.refuses();
  }

  async cancel(id: string, context: WriteContext): Promise<void> {
    await this.#proposer.propose({ type: "cancel", id, ...idemOf(context) }, "cancelled", {
      signal: context.signal,
    });
  }

  async retry(
    id: string,
    ifVersion: number | null,
    context: WriteContext,
  ): Promise<{ replayed: boolean; task?: Task }> {
    const task = this.#o.machine.task(id);
    const hint: ReadyHint | undefined =
      task === null ? undefined : { ready: [[task.queue, task.name, 1]] };
    const { value, replayed } = await this.#proposer.propose(
      { type: "retry", id, if_version: ifVersion, ...idemOf(context) },
      "retried",
      { hint, signal: context.signal },
    );
    return { replayed, ...(value.task === undefined ? {} : { task: value.task }) };
  }

  async clear(status: Status | null, context: WriteContext): Promise<number> {
    const { value } = await this.#proposer.propose(
      { type: "clear", status, ...idemOf(context) },
      "cleared",
      { signal: context.signal },
    );
    return value.cleared;
  }

  async updateSettings(change: SettingsChange, context: WriteContext): Promise<Settings> {
    if (change.log_tail !== undefined) await this.#expectVersion("log_tail", LOG_TAIL_SINCE);
    const { value } = await this.#proposer.propose(
      { type: "settings", settings: change, ...idemOf(context) },
      "settings",
      { signal: context.signal },
    );
    return value.settings;
  }

  /**
   * An older version would drop what it does not know in silence, so it is refused before it is logged. It is never
   * lowered: once it was seen here, it is in force wherever the command is applied.
   */
  async #expectVersion(setting: string, version: number): Promise<void> {
    const inForce = (): number => this.#o.machine.machineVersion();
    if (inForce() >= version) return;
    // This member may be behind.
    await this.#current("linearizable");
    if (inForce() >= version) return;
    throw queueError(
      "machine-version",
      `${setting} is a setting from machine version ${version} on, and the cluster runs ${inForce()}: start every member with a build that applies ${version}, wait some 10 s until GET /api/cluster says that it is in force, and ask again`,
    );
  }

  /** What will be ready when the submit is applied, so that the leader can put claims into the same entry. */
  #hintOf(tasks: readonly NewTask[]): ReadyHint {
    const now = this.#o.consensus.logNow();
    const [only] = tasks;
    if (tasks.length === 1 && only !== undefined) {
      const { queue, name, run_at } = only;
      return { ready: run_at !== null && run_at > now ? [] : [[queue, name, 1]] };
    }
    const counts = new Map<string, [string, string, number]>();
    // Tasks of one submit mostly share both, and making keys costs more than all else here.
    let last: [string, string, number] | undefined;
    for (const { queue, name, run_at } of tasks) {
      if (run_at !== null && run_at > now) continue;
      if (last === undefined || last[0] !== queue || last[1] !== name) {
        const key = JSON.stringify([queue, name]);
        last = counts.get(key);
        if (last === undefined) {
          if (counts.size >= HINT_MAX) continue;
          last = [queue, name, 0];
          counts.set(key, last);
        }
      }
      last[2] += 1;
    }
    return { ready: [...counts.values()] };
  }

  // ------------------------------------------------------------------ reads

  async get(id: string, consistency: Consistency): Promise<{ task: Task | null; read: ReadInfo }> {
    await this.#current(consistency);
    return { task: this.#o.machine.task(id), read: this.#readInfo(consistency) };
  }

  held(ids: readonly string[]): (Task | null)[] {
    this.#mayAnswer();
    return this.#o.machine.tasksByIds(ids);
  }

  async list(
    filter: TaskFilter,
    limit: number,
    cursor: string | null,
    consistency: Consistency,
  ): Promise<{ page: TaskPage; read: ReadInfo }> {
    await this.#current(consistency);
    // How fresh it was when it was asked: what the reader sees is at least that new.
    const read = this.#readInfo(consistency);
    try {
      this.#o.machine.flush();
      return { page: await this.#o.reader.list(filter, limit, cursor), read };
    } catch (error) {
      if (isNoRoom(error)) throw queueError("low-disk", ADMISSION["low-disk"] ?? "");
      throw error instanceof ReaderOverloaded ? queueError("overloaded", error.message) : error;
    }
  }

  async attempts(
    id: string,
    consistency: Consistency,
  ): Promise<{ attempts: readonly Attempt[] | null; read: ReadInfo }> {
    await this.#current(consistency);
    return { attempts: this.#o.machine.attempts(id), read: this.#readInfo(consistency) };
  }

  async logs(
    id: string,
    cursor: string | null,
    limit: number,
    consistency: Consistency,
  ): Promise<{ lines: readonly LogLine[] | null; next: string | null; read: ReadInfo }> {
    await this.#current(consistency);
    const page = this.#o.machine.logs(id, cursor, limit);
    const read = this.#readInfo(consistency);
    return { lines: page?.lines ?? null, next: page?.next ?? null, read };
  }

  async stats(consistency: Consistency): Promise<{ stats: Stats; read: ReadInfo }> {
    await this.#current(consistency);
    const stats = { ...this.#o.machine.counts() };
    const total = Object.values(stats).reduce((sum, count) => sum + count, 0);
    return { stats: { stats, total_tasks: total }, read: this.#readInfo(consistency) };
  }

  settings(): Settings {
    return this.#o.machine.settings();
  }

  async readSettings(consistency: Consistency): Promise<{ settings: Settings; read: ReadInfo }> {
    await this.#current(consistency);
    return { settings: this.settings(), read: this.#readInfo(consistency) };
  }

  async waitFinal(id: string, waitMs: Millis, signal: AbortSignal | null): Promise<Task | null> {
    if (this.#stopped) throw queueError("stopping", "this member is shutting down");
    const { clock, machine } = this.#o;
    await this.#current("linearizable");
    const until = clock.monotonic() + waitMs;
    for (;;) {
      const since = machine.applied().index;
      const task = await this.#finals.wait(id, until - clock.monotonic(), signal);
      this.#mayAnswer();
      if (machine.applied().index >= since) return task;
      // The state was wrong, and an older one took its place (T9): it may not know the task yet.
      await this.#current("linearizable");
    }
  }

  /**
   * @throws QueueError inconsistent, removed: however old an answer would do, what this member has is wrong, or
   * grows older without an end
   */
  #mayAnswer(): void {
    const { consensus } = this.#o;
    const condemned = consensus.condemned();
    if (condemned !== null) throw queueError("inconsistent", condemned);
    const removed = consensus.removed();
    if (removed !== null) throw queueError("removed", removed);
  }

  async #current(consistency: Consistency): Promise<void> {
    this.#mayAnswer();
    if (consistency === "stale") return;
    try {
      await this.#o.consensus.linearize(this.#o.requestTimeoutMs);
    } catch (error) {
      throw asQueueError(error);
    }
  }

  #readInfo(consistency: Consistency): ReadInfo {
    const { clock, consensus, machine } = this.#o;
    const appliedIndex = machine.applied().index;
    if (consistency === "linearizable") return { appliedIndex, stalenessMs: 0 };
    // Never in touch since the start: as old as the newest entry applied.
    const stalenessMs = consensus.status().stalenessMs ?? clock.wall() - machine.logTime();
    return { appliedIndex, stalenessMs: Math.max(0, Math.round(stalenessMs)) };
  }

  // ------------------------------------------------------------------ leases

  async claim(
    claim: Claim,
    waitMs: Millis,
    signal: AbortSignal | null,
  ): Promise<{ tasks: readonly ClaimedTask[]; directive: Directive; replayed?: boolean }> {
    if (this.#draining) {
      if (claim.local !== null) return { tasks: [], directive: "terminate" };
      throw queueError("stopping", "this member takes no claims any more: ask another one");
    }
    this.#mayAnswer();
    const { idem } = claim;
    if (idem !== undefined) return this.keyed.claim({ ...claim, idem }, waitMs, signal);
    const claimed = await this.#claims.wait(claim, waitMs, signal);
    // Found wrong meanwhile: nobody saw these leases, and they cost nothing when they end.
    this.#mayAnswer();
    return claimed;
  }

  async heartbeat(
    workerId: string,
    principal: string,
    leases: readonly HeartbeatLease[],
    info?: WorkerInfo,
  ): Promise<HeartbeatAnswer> {
    if (leases.length > LEASES_PER_CALL)
      throw queueError("overloaded", `a heartbeat may name ${LEASES_PER_CALL} leases at most`);
    const body: HeartbeatBody = {
      worker_id: workerId,
      principal,
      leases: leases.map(({ task_id, attempt, fence }) => ({ task_id, attempt, fence })),
      info: info ?? null,
      directive: this.#claims.directive(workerId),
    };
    if (info !== undefined) this.#localWorker = { id: workerId, info };
    const { consensus, requestTimeoutMs } = this.#o;
    // Nobody leads: a read fails as soon as a quorum is missing, where a call would wait to the end of its time.
    if (consensus.status().leader === null) await this.#current("linearizable");
    try {
      const answer = await consensus.call("lease.heartbeat", body, requestTimeoutMs);
      const { verdicts, directive } = parseHeartbeatReply(answer, leases.length);
      this.#claims.heardDirective(workerId, directive);
      this.#reportProgress(workerId, principal, leases, verdicts);
      return { verdicts, directive };
    } catch (error) {
      throw asQueueError(error);
    }
  }

  /** Progress that came with a heartbeat. Best effort: the next heartbeat brings newer progress anyway. */
  #reportProgress(
    workerId: string,
    principal: string,
    leases: readonly HeartbeatLease[],
    verdicts: readonly LeaseVerdict[],
  ): void {
    for (const [index, { progress, ...ref }] of leases.entries()) {
      if (progress === undefined || verdicts[index] === "lost") continue;
      this.#reports
        .report(workerId, principal, { ...ref, progress, lines: [] })
        .catch((error: unknown) => {
          this.#o.log.debug("progress was not recorded", {
            task: ref.task_id,
            error: String(error),
          });
        });
    }
  }

  async end(
    workerId: string,
    principal: string,
    items: readonly (LeaseRef & { end: LeaseEnd })[],
    idempotency: IdempotencyScope | null,
  ): Promise<readonly LeaseEndAnswer[]> {
    this.#reports.flush(workerId, principal, items);
    const { value } = await this.#proposer.propose(
      {
        type: "end",
        worker_id: workerId,
        principal,
        items,
        ...(idempotency === null ? {} : { idem: idempotency }),
      },
      "ended",
      { weight: items.length },
    );
    return value.items;
  }

  report(
    workerId: string,
    principal: string,
    items: readonly (LeaseRef & { progress: Progress | null; lines: readonly string[] })[],
    prompt = false,
  ): Promise<readonly LeaseEndAnswer[]> {
    return Promise.all(
      items.map((item) => this.#reports.report(workerId, principal, item, prompt)),
    );
  }

  onLease(listener: (event: LeaseEvent) => void): () => void {
    return this.#watching.onLease(listener);
  }

  // ------------------------------------------------------------------ watching

  async workers(): Promise<readonly WorkerView[]> {
    return parseWorkers(await this.#askLeader("worker.list", null), WORKERS_MAX);
  }

  async readWorkers(
    consistency: Consistency,
  ): Promise<{ workers: readonly WorkerView[]; read: ReadInfo }> {
    const workers =
      consistency === "stale" ? this.#leader.ownWorkers(this.#localWorker) : await this.workers();
    return { workers, read: this.#readInfo(consistency) };
  }

  async quiet(workerId: string): Promise<boolean> {
    const body: DirectiveBody = { worker_id: workerId, directive: "quiet" };
    return (await this.#askLeader("worker.direct", body)) === true;
  }

  async readCluster(consistency: Consistency): Promise<{ cluster: ClusterView; read: ReadInfo }> {
    const { consensus, contactTimeoutMs } = this.#o;
    const own = consensus.status();
    const cluster =
      consistency === "stale"
        ? clusterView(own, memberViews(own, contactTimeoutMs), this.#alarms(own))
        : await this.cluster();
    return { cluster, read: this.#readInfo(consistency) };
  }

  async cluster(): Promise<ClusterView> {
    const { consensus, contactTimeoutMs } = this.#o;
    const own = consensus.status();
    if (own.leader === null || own.leader === consensus.id)
      return clusterView(own, memberViews(own, contactTimeoutMs), this.#alarms(own));
    let members;
    try {
      members = parseMembers(await this.#ask("cluster.members", null));
    } catch {
      // Nobody leads, or cannot be reached: what this member sees itself is better than nothing.
      members = memberViews(consensus.status(), contactTimeoutMs);
    }
    const status = consensus.status();
    return clusterView(status, members, this.#alarms(status));
  }

  health(): Health {
    const { consensus, contactTimeoutMs, diskFault } = this.#o;
    const status = consensus.status();
    const alarms = this.#alarms(status);
    if (this.#stopped)
      return { status: "unhealthy", ready: false, reason: "this member is shutting down", alarms };
    return healthOf(status, contactTimeoutMs, diskFault?.() ?? null, this.#draining, alarms);
  }

  #alarms(status: ConsensusStatus): readonly Alarm[] {
    const { contactTimeoutMs, lowDisk } = this.#o;
    const stuck = this.#localWorker?.info.stuck ?? 0;
    return alarmsOf(status, contactTimeoutMs, lowDisk?.() ?? null, stuck);
  }

  onChange(listener: (change: Change) => void): () => void {
    return this.#watching.onChange(listener);
  }

  throughput(): readonly ThroughputSecond[] {
    return this.#watching.throughput(this.#o.consensus.logNow());
  }

  /** After a read, which waits out an election and fails in a user's words as soon as a quorum is missing. */
  async #askLeader(method: string, body: unknown): Promise<unknown> {
    await this.#current("linearizable");
    try {
      return await this.#ask(method, body);
    } catch (error) {
      throw asQueueError(error);
    }
  }

  #ask(method: string, body: unknown): Promise<unknown> {
    const timeoutMs = Math.min(VIEW_TIMEOUT_MS, this.#o.requestTimeoutMs);
    return this.#o.consensus.call(method, body, timeoutMs);
  }

  // ------------------------------------------------------------------ what was applied

  #applied(signals: readonly Signal[], at: SignalContext): void {
    this.#finals.applied(signals);
    this.#claims.applied(signals);
    this.#leader.applied(signals, at.now);
    this.#watching.applied(signals, at);
  }
}

const ADMISSION: Partial<Record<QueueErrorCode, string>> = {
  "low-disk": "the disk of this member, or of the leader, is nearly full: no tasks are taken",
  overloaded: "too much is waiting already",
  stopping: "this member is shutting down",
};

function idemOf({ idempotency }: WriteContext): { readonly idem?: IdempotencyScope } {
  return idempotency === null ? {} : { idem: idempotency };
}

/** A refusal as another member named it; one that this build does not know is no more than "void". */
function refusalCode(code: string): QueueErrorCode {
  switch (code) {
    case "names-full":
    case "stale-session":
    case "idempotency-mismatch":
    case "idempotency-full":
      return code;
    default:
      return "void";
  }
}
