/**
 * A worker process outside the cluster: claims tasks, runs their handlers in this process, and reports, over
 * the lease protocol. What a Bun Worker inside a member does by force (killing a handler that does not stop)
 * it cannot do: handlers have to heed their signal.
 */
import { Ahead } from "./ahead.ts";
import type { FlotillaClient } from "./client.ts";
import { FlotillaError } from "./error.ts";
import type { LeaseCalls } from "./lease-calls.ts";
import { outcomeOfReturn, outcomeOfThrow, type Outcome } from "./outcome.ts";
import { Reports } from "./reports.ts";
import { Run, type WorkerHandler, type WorkerHandlers } from "./run.ts";
import type { ClaimedTask, Directive, HeartbeatLease, LeaseVerdict } from "./types.ts";

const CONCURRENCY = 10;
const CONCURRENCY_MAX = 1_000;
/** Tasks of one claim: what the members take. */
const CLAIM_MAX = 1_000;
const CLAIM_WAIT_MS = 20_000;
/** An empty answer that came sooner was not a long poll that ran out. */
const EMPTY_ANSWER_MIN_MS = 1_000;
const RETRY_MIN_MS = 250;
const RETRY_MAX_MS = 15_000;
/** Until the first claim tells: the default of the cluster. */
const LEASE_MS = 15_000;
const LEASE_REFRESH_MS = 60_000;
/** Progress and log lines leave so long after they were said. */
const NEWS_MS = 1_000;
const LEASES_PER_BEAT = 1_000;
const DRAIN_MS = 30_000;
/** For a handler to end after its signal was aborted. */
const GRACE_MS = 5_000;
/** The shortest pause between two looks at the runs. */
const LOOK_MIN_MS = 5;

export interface FlotillaWorkerOptions {
  readonly client: FlotillaClient;
  /** By task name; `"*"` takes every name. */
  readonly handlers: WorkerHandlers;
  /** Tasks at once, 1 to 1,000; default 10. */
  readonly concurrency?: number;
  /** Default: every queue. */
  readonly queues?: readonly string[];
  /** For a handler to end once its signal was aborted, before its task is given back; default 5,000. */
  readonly graceMs?: number;
  /** Unique among all workers, also among the restarts of one; default: a random one. */
  readonly workerId?: string;
  /** What no task can be told: a refused claim, an end that was not accepted. Default: a process warning. */
  readonly onError?: (error: Error, task: ClaimedTask | null) => void;
  /** The cluster has accepted how an attempt at this task ended: for counting. Called often, so it should be quick. */
  readonly onReported?: (taskId: string) => void;
}

export interface StopOptions {
  /** The longest that running tasks may take; then their signals abort and they are handed back. Default 30,000. */
  readonly drainMs?: number;
}

export class FlotillaWorker {
  readonly workerId: string;
  readonly #calls: LeaseCalls;
  /** A map: a task may be named like something that every object has. */
  readonly #handlers: ReadonlyMap<string, WorkerHandler>;
  readonly #concurrency: number;
  readonly #graceMs: number;
  readonly #scope: { readonly names?: string[]; readonly queues?: string[] };
  readonly #onError: (error: Error, task: ClaimedTask | null) => void;
  readonly #reports: Reports;
  readonly #ahead: Ahead;
  /** Their handlers run; by fence. */
  readonly #runs = new Map<number, Run>();
  /** Their handlers have ended, their last log lines are on the way: members take a second over those. */
  readonly #closing = new Map<number, Run>();
  #claim: AbortController | null = null;
  #claiming: Promise<void> = Promise.resolve();
  #started = false;
  #quiet = false;
  #stopping: Promise<void> | null = null;
  #ended = false;
  #leaseMs = LEASE_MS;
  #leaseReadAt = -Infinity;
  #beatAt = 0;
  #newsAt = Infinity;
  #lookAt = Infinity;
  #look: ReturnType<typeof setTimeout> | null = null;
  #waiters: (() => void)[] = [];
  #turnAsked = false;

  /** Does nothing until `start`. @throws TypeError naming the bad option */
  constructor(options: FlotillaWorkerOptions) {
    const { client, handlers, concurrency = CONCURRENCY, queues, graceMs = GRACE_MS } = options;
    const { workerId, onError, onReported } = options;
    const names = Object.keys(handlers);
    if (names.length === 0) throw new TypeError("handlers: at least one is needed");
    for (const name of names) {
      if (typeof handlers[name] !== "function")
        throw new TypeError(`handlers: ${JSON.stringify(name)} is not a function`);
    }
    if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > CONCURRENCY_MAX)
      throw new TypeError(`concurrency: must be 1 to ${CONCURRENCY_MAX}, not ${concurrency}`);
    if (!(graceMs >= 0)) throw new TypeError(`graceMs: must be 0 or more, not ${graceMs}`);
    if (queues?.length === 0) throw new TypeError("queues: leave it out for every queue");
    this.workerId = workerId ?? `worker-${crypto.randomUUID()}`;
    this.#calls = client.leases;
    this.#handlers = new Map(Object.entries(handlers));
    this.#concurrency = concurrency;
    this.#graceMs = graceMs;
    this.#ahead = new Ahead(concurrency);
    this.#scope = {
      ...(names.includes("*") ? {} : { names }),
      ...(queues === undefined ? {} : { queues: [...queues] }),
    };
    this.#onError = onError ?? warn;
    this.#reports = new Reports(this.#calls, this.workerId, {
      accepted: ({ task_id }) => {
        try {
          onReported?.(task_id);
        } catch (error) {
          this.#tell(error);
        }
      },
      rejected: (lease, code) => {
        // A cancel is confirmed by the refusal.
        if (code === "cancelled") return;
        this.#report(
          new FlotillaError(code, `task ${lease.task_id}: its end was not accepted (${code})`),
        );
      },
      failed: (_, error) => this.#report(error),
      progressed: () => this.#turn(),
    });
  }

  /** Tasks whose handlers run. */
  get running(): number {
    return this.#runs.size;
  }

  /** Begins to claim; once. */
  start(): void {
    if (this.#started || this.#stopping !== null) return;
    this.#started = true;
    this.#beatAt = performance.now() + this.#leaseMs / 3;
    this.#lookBy(this.#beatAt);
    this.#claiming = this.#claimUntilStopped();
  }

  /**
   * Drains: claims no more, lets what runs finish, hands the rest back at no cost. Resolves when all that ended
   * was reported. A handler that ignores its signal goes on, but nothing it does counts.
   */
  stop({ drainMs = DRAIN_MS }: StopOptions = {}): Promise<void> {
    this.#stopping ??= this.#drain(drainMs);
    return this.#stopping;
  }

  async #drain(drainMs: number): Promise<void> {
    this.#claim?.abort();
    this.#wake();
    await this.#claiming;
    this.#handBack(this.#ahead.clear());
    const isDone = (): boolean => this.#runs.size === 0;
    if (!(await this.#waitFor(isDone, drainMs))) {
      for (const run of this.#runs.values()) run.abort("drain", "the worker stops");
      await this.#waitFor(isDone, this.#graceMs);
    }
    for (const run of this.#runs.values()) this.#giveBack(run);
    await this.#waitFor(() => this.#reports.unanswered.size + this.#closing.size === 0, Infinity);
    this.#end();
  }

  #end(): void {
    this.#ended = true;
    if (this.#look !== null) clearTimeout(this.#look);
  }

  // --- claiming

  async #claimUntilStopped(): Promise<void> {
    let failures = 0;
    while (this.#stopping === null) {
      const max = this.#free();
      if (max <= 0 || this.#quiet) {
        await this.#woken(Infinity);
        continue;
      }
      const controller = new AbortController();
      this.#claim = controller;
      const sentAt = performance.now();
      try {
        const { tasks, directive } = await this.#calls.claim(
          {
            worker_id: this.workerId,
            request_id: crypto.randomUUID(),
            ...this.#scope,
            max,
            wait_ms: CLAIM_WAIT_MS,
          },
          // The same claim until it is answered: tasks of a lost answer come with the repeat.
          { signal: controller.signal, timeoutMs: Infinity },
        );
        this.#claimed(tasks, sentAt);
        this.#directed(directive);
        const isHeld = tasks.length > 0 || performance.now() - sentAt >= EMPTY_ANSWER_MIN_MS;
        failures = isHeld ? 0 : failures + 1;
      } catch (error) {
        if (!controller.signal.aborted) {
          failures += 1;
          this.#report(error);
        }
      }
      this.#claim = null;
      if (failures > 0) {
        await this.#woken(Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** Math.min(failures - 1, 10)));
      }
    }
  }

  /** Places; none while too many ends are unanswered: a cluster that takes no ends has to be waited for. */
  #free(): number {
    const places = this.#concurrency + this.#ahead.room;
    const unanswered = this.#reports.unanswered.size + this.#closing.size;
    const taken = this.#runs.size + this.#ahead.size;
    return Math.min(CLAIM_MAX, places - taken - Math.max(0, unanswered - places));
  }

  #claimed(tasks: readonly ClaimedTask[], sentAt: number): void {
    const now = performance.now();
    let confirmedAt = sentAt;
    for (const task of tasks) {
      const periodMs = Date.parse(task.lease.expires_at) - Date.parse(task.started_at ?? "");
      if (periodMs > 0 && periodMs !== this.#leaseMs) this.#leaseIs(periodMs);
      if (this.#runs.has(task.lease.fence) || this.#ahead.has(task.lease.fence)) continue;
      if (this.#stopping !== null) {
        const { attempt, fence } = task.lease;
        this.#reports.end({ task_id: task.id, attempt, fence }, { kind: "release" });
        continue;
      }
      // A long poll may have been sent long before the claim was made. Counting from its answer is right only
      // as long as that was not held up, which a heartbeat finds out at once.
      if (now - sentAt > this.#leaseMs / 3) {
        confirmedAt = now;
        this.#beatAt = now;
      }
      const run = new Run(task, confirmedAt, now);
      if (this.#runs.size < this.#concurrency && this.#ahead.size === 0) this.#begin(run, now);
      else this.#ahead.add(run, now);
    }
    this.#lookBy(Math.min(this.#beatAt, this.#ahead.overdueAt));
  }

  #begin(run: Run, now: number): void {
    this.#runs.set(run.lease.fence, run);
    this.#lookBy(Math.min(this.#beatAt, run.timeoutAt));
    void this.#execute(run, now);
  }

  /** Free slots go on with what was claimed ahead. */
  #fill(now: number): void {
    while (this.#runs.size < this.#concurrency) {
      const run = this.#ahead.next();
      if (run === null) return;
      this.#begin(run, now);
    }
  }

  /** Tasks that never began go back. */
  #handBack(runs: readonly Run[]): void {
    for (const { lease } of runs) this.#reports.end(lease, { kind: "release" });
  }

  #directed(directive: Directive): void {
    switch (directive) {
      case "ok":
        if (this.#quiet) {
          this.#quiet = false;
          this.#wake();
        }
        return;
      case "quiet":
        this.#quiet = true;
        this.#claim?.abort();
        return;
      case "terminate":
        void this.stop();
        return;
    }
  }

  // --- running

  async #execute(run: Run, startedAt: number): Promise<void> {
    const { task } = run;
    let outcome: Outcome;
    try {
      const handler = this.#handlers.get(task.name) ?? this.#handlers.get("*");
      if (handler === undefined) throw new Error(`no handler takes ${JSON.stringify(task.name)}`);
      outcome = outcomeOfReturn(
        await handler(
          task.payload,
          run.context(() => this.#news()),
        ),
      );
    } catch (error) {
      outcome = outcomeOfThrow(error);
    }
    const { fence } = run.lease;
    this.#runs.delete(fence);
    const now = performance.now();
    this.#ahead.ran(now - startedAt);
    this.#fill(now);
    if (!run.released && (run.hasLines || run.logging !== null)) {
      // Before the end is reported: afterwards the lease is over. The slot is free meanwhile.
      this.#closing.set(fence, run);
      this.#turn();
      await this.#sendLines(run);
      this.#closing.delete(fence);
    }
    if (!run.released) this.#endRun(run, outcome);
    this.#turn();
  }

  #endRun(run: Run, outcome: Outcome): void {
    switch (run.stop) {
      case "lost":
        return;
      case "cancel":
        this.#reports.end(run.lease, { kind: "release" });
        return;
      case "drain":
        // Aborted by us: what the handler makes of it is no failure of the task.
        this.#reports.end(run.lease, outcome.kind === "fail" ? { kind: "release" } : outcome);
        return;
      case "timeout":
      case null:
        this.#reports.end(run.lease, outcome);
        return;
    }
  }

  /** The task goes back, or its cancel is confirmed, though the handler still runs. */
  #giveBack(run: Run): void {
    if (run.released || run.stop === "lost") return;
    run.released = true;
    this.#reports.end(run.lease, { kind: "release" });
  }

  // --- time: one timer for all that runs

  #lookBy(at: number): void {
    if (at >= this.#lookAt || this.#ended) return;
    this.#lookAt = at;
    if (this.#look !== null) clearTimeout(this.#look);
    const delayMs = Math.max(LOOK_MIN_MS, at - performance.now());
    this.#look = setTimeout(() => this.#lookAround(), Math.min(delayMs, 2 ** 31 - 1));
  }

  #lookAround(): void {
    this.#lookAt = Infinity;
    this.#look = null;
    if (this.#ended) return;
    const now = performance.now();
    for (const run of this.#runs.values()) {
      if (run.stop !== "lost" && now - run.confirmedAt >= this.#leaseMs)
        run.abort("lost", "no heartbeat was answered for a lease period");
      if (now >= run.timeoutAt && run.stop === null)
        run.abort("timeout", `timed out after ${run.task.timeout_ms} ms`);
      if (now >= run.graceUntil) this.#giveBack(run);
    }
    if (now >= this.#ahead.overdueAt) this.#handBack(this.#ahead.giveUp());
    if (now >= this.#beatAt) {
      this.#beatAt = now + this.#leaseMs / 3;
      this.#beatAll();
    }
    if (now >= this.#newsAt) {
      this.#newsAt = Infinity;
      this.#sendNews();
    }
    let next = Math.min(this.#beatAt, this.#newsAt, this.#ahead.overdueAt);
    for (const run of this.#runs.values()) {
      if (run.stop !== "lost") next = Math.min(next, run.confirmedAt + this.#leaseMs);
      if (run.stop === null) next = Math.min(next, run.timeoutAt);
      if (!run.released && run.stop !== "lost") next = Math.min(next, run.graceUntil);
    }
    this.#lookBy(next);
  }

  #leaseIs(periodMs: number): void {
    this.#leaseMs = periodMs;
    this.#beatAt = Math.min(this.#beatAt, performance.now() + periodMs / 3);
    this.#lookBy(this.#beatAt);
  }

  // --- heartbeats, progress, log

  #beatAll(): void {
    void this.#refreshLease();
    const runs = [...this.#runs.values()].filter((run) => run.stop !== "lost" && !run.released);
    const beats: HeartbeatLease[] = runs.map((run) => run.takeBeat());
    for (const { lease } of this.#ahead.runs()) beats.push(lease);
    for (const { lease } of this.#closing.values()) beats.push(lease);
    for (const lease of this.#reports.unanswered.values()) beats.push(lease);
    // Without leases too: it keeps the worker listed, and brings the directive.
    for (let from = 0; from === 0 || from < beats.length; from += LEASES_PER_BEAT)
      void this.#beat(beats.slice(from, from + LEASES_PER_BEAT));
  }

  async #beat(leases: readonly HeartbeatLease[]): Promise<void> {
    const sentAt = performance.now();
    try {
      const answer = await this.#calls.heartbeat(this.workerId, leases, {
        timeoutMs: this.#leaseMs,
        // A silent member must not cost the lease: there is time to ask two others.
        attemptMs: Math.max(200, this.#leaseMs / 4),
      });
      for (const [index, { fence }] of leases.entries()) {
        const verdict = answer.leases[index]?.status;
        if (verdict === undefined) continue;
        const run = this.#runs.get(fence);
        if (run !== undefined) this.#judged(run, verdict, sentAt);
        else if (verdict !== "ok") this.#drop(this.#ahead.take(fence), verdict);
      }
      this.#directed(answer.directive);
    } catch (error) {
      // Those that may pass end in the self-stop when they do not; others are faults.
      if (!(error instanceof FlotillaError && error.code === "timeout")) this.#report(error);
    }
  }

  /** One that waited for a slot: there is no handler to stop. */
  #drop(run: Run | null, verdict: "cancel" | "lost"): void {
    if (run !== null && verdict === "cancel") this.#reports.end(run.lease, { kind: "release" });
  }

  #judged(run: Run, verdict: LeaseVerdict, sentAt: number): void {
    switch (verdict) {
      case "ok":
        run.confirmedAt = Math.max(run.confirmedAt, sentAt);
        return;
      case "cancel":
        run.confirmedAt = Math.max(run.confirmedAt, sentAt);
        if (run.stop !== "cancel" && run.stop !== "lost") {
          run.abort("cancel", "the task was cancelled");
          run.graceUntil = performance.now() + this.#graceMs;
          this.#lookBy(run.graceUntil);
        }
        return;
      case "lost":
        run.abort("lost", "the lease was lost");
        return;
    }
  }

  /** A changed setting holds for leases that were taken before it, too. */
  async #refreshLease(): Promise<void> {
    const now = performance.now();
    if (now - this.#leaseReadAt < LEASE_REFRESH_MS) return;
    this.#leaseReadAt = now;
    try {
      const { lease } = await this.#calls.settings({ timeoutMs: this.#leaseMs });
      if (lease > 0 && lease !== this.#leaseMs) this.#leaseIs(lease);
    } catch {
      // Claims tell it, too; and the next minute asks again.
    }
  }

  #news(): void {
    if (this.#newsAt !== Infinity) return;
    this.#newsAt = performance.now() + NEWS_MS;
    this.#lookBy(this.#newsAt);
  }

  #sendNews(): void {
    const runs = [...this.#runs.values()].filter((run) => run.stop === null);
    const beats = runs.filter((run) => run.hasProgress).map((run) => run.takeBeat());
    if (beats.length > 0) void this.#beat(beats);
    for (const run of runs) if (run.hasLines) void this.#sendLines(run);
  }

  /** In order: one request at a time for each run. */
  #sendLines(run: Run): Promise<void> {
    const before = run.logging;
    const sending = (async () => {
      await before;
      await this.#sendTaken(run);
    })();
    run.logging = sending;
    return sending;
  }

  async #sendTaken(run: Run): Promise<void> {
    while (run.hasLines && run.stop !== "lost" && !run.released) {
      try {
        await this.#calls.log(this.workerId, run.lease, run.takeLines());
      } catch (error) {
        if (run.stop === null) this.#report(error, run.task);
        return;
      }
    }
  }

  // --- waiting and telling

  /** Nothing can be told any more: the leases run out, and the tasks run elsewhere. */
  #clientClosed(): void {
    this.#ahead.clear();
    for (const run of this.#runs.values()) run.abort("lost", "the client is closed");
    this.#end();
    void this.stop();
  }

  /** At the end of the turn, when all of its ends are in: one claim covers the slots that they freed. */
  #turn(): void {
    if (this.#turnAsked) return;
    this.#turnAsked = true;
    setImmediate(() => {
      this.#turnAsked = false;
      this.#wake();
    });
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }

  /** Until something ended, or was answered, or the time is up. */
  #woken(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = ms === Infinity ? null : setTimeout(resolve, ms);
      this.#waiters.push(() => {
        if (timer !== null) clearTimeout(timer);
        resolve();
      });
    });
  }

  async #waitFor(isSo: () => boolean, ms: number): Promise<boolean> {
    const deadline = performance.now() + ms;
    while (!isSo()) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) return false;
      await this.#woken(leftMs);
    }
    return true;
  }

  #report(error: unknown, task: ClaimedTask | null = null): void {
    if (error instanceof FlotillaError && error.code === "closed") {
      this.#clientClosed();
      return;
    }
    this.#tell(error, task);
  }

  #tell(error: unknown, task: ClaimedTask | null = null): void {
    const told = error instanceof Error ? error : new Error(String(error));
    try {
      this.#onError(told, task);
    } catch (thrown) {
      // Who listens must not stop who reports.
      warn(told);
      warn(thrown instanceof Error ? thrown : new Error(String(thrown)));
    }
  }
}

/** On standard error, and to be listened to, in Bun and in Node. */
function warn(error: Error): void {
  process.emitWarning(error.message, "FlotillaWorker");
}
