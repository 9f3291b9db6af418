/**
 * Runs this member's share of the tasks: claims what fits into its slots, gives each task to a Bun
 * Worker, keeps the leases alive, stops what was cancelled or lost, and reports how each attempt ended.
 * What it does not do: decide about retries, time-outs or expiry. Those are the log's.
 */
import type { Clock, Log, Timer } from "../replica/ports.ts";
import type { LeaseEvent, WorkerInfo } from "../queue/service.ts";
import {
  DEFAULT_SETTINGS,
  type ClaimedTask,
  type Directive,
  type LeaseEnd,
  type LeaseRef,
  type NodeId,
} from "../queue/types.ts";
import { Ahead, type AheadTask } from "./ahead.ts";
import { Claimer } from "./claimer.ts";
import { ExecutorThread } from "./executor-thread.ts";
import type { HandlersSource } from "./handler.ts";
import { LeaseEnder } from "./lease-ender.ts";
import { LeaseKeeper } from "./lease-keeper.ts";
import type { ReportPart, ThreadSetup } from "./protocol.ts";
import { EXECUTOR_PRINCIPAL, type ExecutorQueue } from "./queue-port.ts";
import { endOf, type Run, type StopCause } from "./run.ts";
import { ExecutorSlot, type RunEnding, type Slot, type SlotEvents } from "./slot.ts";

export interface ExecutorPoolOptions {
  readonly queue: ExecutorQueue;
  readonly member: NodeId;
  readonly boot: number;
  /** Handlers entered at once, at most. 0: the pool does nothing. */
  readonly concurrency: number;
  readonly handlers: HandlersSource;
  /** Folders that `io` may read. */
  readonly ioRoots: readonly string[];
  /** Hosts and CIDRs that `io` and `http` may reach though they are not public. */
  readonly allowNet: readonly string[];
  readonly clock: Clock;
  readonly log: Log;
  /** What a handler gets between its signal and its kill. */
  readonly graceMs?: number;
  /** A terminated Worker that has not closed after this long is held by native code: stuck. */
  readonly stuckAfterMs?: number;
  /** Whether the process has room for a Worker: one that finds none may be the end of the process. */
  readonly mayStart?: () => boolean;
  /** The replicated settings, read anew each time. */
  readonly leaseMs: () => number;
  readonly resultMaxBytes?: () => number;
  /** In [0, 1); jitter of retries only. */
  readonly random?: () => number;
  /** Where tasks run instead of in Bun Workers, and the names that run there: for tests in virtual time. */
  readonly slots?: {
    readonly names: readonly string[];
    open(events: SlotEvents): Slot;
  };
}

/** The handlers could not be loaded; the message is one sentence for the operator. */
export class HandlersError extends Error {
  override name = "HandlersError";
}

const GRACE_MS = 5_000;
const STUCK_AFTER_MS = 2_000;
/** Ends that the queue has not answered, per slot and in bytes, above which nothing new is claimed. */
const UNANSWERED_PER_SLOT = 64;
const UNANSWERED_BYTES_MAX = 8 * 1024 * 1024;
/** Calls with ends that may wait for their answers; while runs are short, so few that they carry many each. */
const END_CALLS_MAX = 8;
const END_CALLS_BUSY = 2;
/** How often slots are looked at in which tasks wait behind another. */
const LOOK_MS = 5;
/** So many looks at which a slot entered nothing: what waits in it goes to another one that is free, or to none. */
const LOOKS_FOR_FREE = 1;
const LOOKS_AT_ALL = 10;
/** Lease periods after which a lease is over in any case, so that its end is not worth repeating. */
const END_WORTH_PERIODS = 4;
/** Lease events about tasks that the claim's answer has not brought yet. */
const EARLY_EVENTS_MAX = 1_024;
/**
 * What a handler gets between its signal and its kill when the member drains: less than otherwise, so that
 * what was killed is handed back, and the process ended, within five seconds after `--drain`.
 */
const DRAIN_GRACE_MS = 3_000;
/** How long a drain waits for its last ends to be answered once nothing runs: without a quorum, in vain. */
const DRAIN_FLUSH_MS = 1_000;

export class ExecutorPool {
  readonly #options: ExecutorPoolOptions;
  readonly #queue: ExecutorQueue;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #random: () => number;
  readonly #graceMs: number;
  readonly #stuckAfterMs: number;
  readonly #ender: LeaseEnder;
  readonly #keeper: LeaseKeeper;
  /** By fence: it is unique in the cluster. */
  readonly #runs = new Map<number, Run>();
  readonly #stuck = new Set<ExecutorThread>();
  readonly #early = new Map<number, LeaseEvent>();
  readonly #ahead: Ahead;
  #slots: readonly Slot[] = [];
  #claimer: Claimer | null = null;
  #names: readonly string[] = [];
  #kills = 0;
  #restarts = 0;
  #turnAsked = false;
  #watch: Timer | null = null;
  #unsubscribe: (() => void) | null = null;
  #draining: Promise<void> | null = null;
  #suspended = false;
  /** Looks whether what a drain waits for has come. */
  #awaited: (() => void) | null = null;
  #stopped = false;

  /** "MEMBER/BOOT": who the leases belong to. */
  readonly workerId: string;

  constructor(options: ExecutorPoolOptions) {
    if (!Number.isInteger(options.concurrency) || options.concurrency < 0)
      throw new RangeError(`concurrency must be a whole number from 0, not ${options.concurrency}`);
    this.#options = options;
    this.#queue = options.queue;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#random = options.random ?? Math.random;
    this.#graceMs = options.graceMs ?? GRACE_MS;
    this.#stuckAfterMs = options.stuckAfterMs ?? STUCK_AFTER_MS;
    this.workerId = `${options.member}/${options.boot}`;
    this.#ender = new LeaseEnder(
      this.#queue,
      this.workerId,
      this.#clock,
      this.#random,
      this.#log,
      () => this.#turn(),
      () => (this.#ahead.busy ? END_CALLS_BUSY : END_CALLS_MAX),
    );
    this.#ahead = new Ahead(this.#clock, options.concurrency, (tasks) => this.#handBack(tasks));
    this.#keeper = new LeaseKeeper(
      this.#queue,
      this.workerId,
      this.#clock,
      this.#random,
      this.#log,
      {
        runs: this.#runs,
        leaseMs: options.leaseMs,
        unanswered: () => this.#ender.unansweredLeases(),
        info: () => this.info(),
        stop: (run, cause, reason) => this.#stopRun(run, cause, reason),
        directive: (directive) => this.#directed(directive),
      },
    );
  }

  /** Names that this pool handles, "*" included; known once `load` resolved. */
  get names(): readonly string[] {
    return this.#names;
  }

  /** Handlers that are entered, or about to be. */
  get running(): number {
    return this.#runs.size;
  }

  info(): WorkerInfo {
    return {
      member: this.#options.member,
      slots: this.#options.concurrency,
      names: this.#names,
      stuck: this.#stuck.size,
      kills: this.#kills,
      restarts: this.#restarts,
    };
  }

  /**
   * Loads the handlers in one Worker, which shows that they load and what they are called.
   * @throws HandlersError when they do not.
   */
  async load(): Promise<readonly string[]> {
    if (this.#options.concurrency === 0 || this.#names.length > 0) return this.#names;
    if (this.#options.slots !== undefined) {
      this.#names = this.#options.slots.names;
      return this.#names;
    }
    const { promise, resolve, reject } = Promise.withResolvers<readonly string[]>();
    const thread = new ExecutorThread(this.#setup(), this.#clock, this.#log, {
      ready: resolve,
      report: () => {},
      ended: () => {},
      closed: (error) => reject(new HandlersError(`the handlers do not load: ${error.message}`)),
    });
    try {
      this.#names = await promise;
    } finally {
      // The slots load their own: what a module's load leaves behind ends here.
      thread.terminate();
    }
    return this.#names;
  }

  /** Begins to claim. @throws HandlersError when the handlers do not load. */
  async start(): Promise<void> {
    await this.load();
    const { concurrency, member, boot } = this.#options;
    if (concurrency === 0 || this.#stopped || this.#claimer !== null) return;
    const setup = this.#setup();
    this.#slots = Array.from({ length: concurrency }, () => this.#slot(setup));
    this.#claimer = new Claimer(
      this.#queue,
      {
        worker_id: this.workerId,
        principal: EXECUTOR_PRINCIPAL,
        queues: null,
        names: this.#names.filter((name) => name !== "*"),
        star: this.#names.includes("*"),
        local: { member, boot },
      },
      this.#clock,
      this.#random,
      this.#log,
      {
        free: () => this.#claimable(),
        ahead: () => this.#claimableAhead(),
        claimed: (tasks) => this.#claimed(tasks),
        directive: (directive) => this.#directed(directive),
        uncovered: () => this.#turn(),
      },
    );
    if (this.#suspended) this.#claimer.pause();
    this.#unsubscribe = this.#queue.onLease((event) => this.#onLease(event));
    this.#keeper.start();
    this.#turn();
  }

  /**
   * Takes no new work, lets what runs finish for at most `timeoutMs`, then aborts the rest, kills it
   * after a short grace and hands it back at no cost. Resolves when nothing runs any more and the queue
   * knows it, or `DRAIN_GRACE_MS + DRAIN_FLUSH_MS` after `timeoutMs`.
   */
  drain(timeoutMs: number): Promise<void> {
    this.#draining ??= this.#drain(timeoutMs);
    return this.#draining;
  }

  /**
   * The member's state is wrong, so what was claimed by it may be: takes no work until `resume`, aborts what runs, and
   * hands it back at no cost, whatever its handlers still say; as soon as the queue answers again.
   */
  suspend(reason: string): void {
    if (this.#suspended) return;
    this.#suspended = true;
    this.#claimer?.pause();
    this.#takeBack();
    for (const run of this.#runs.values()) this.#stopRun(run, "cancel", reason);
    this.#handBack(this.#ahead.clear());
    this.#turn();
  }

  resume(): void {
    if (!this.#suspended) return;
    this.#suspended = false;
    this.#claimer?.resume();
  }

  /** Ends at once: nothing is reported, every Worker is terminated. Drain first for an orderly end. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#claimer?.stop();
    this.#ender.stop();
    this.#keeper.stop();
    this.#watch?.cancel();
    this.#unsubscribe?.();
    for (const run of this.#runs.values()) run.grace?.cancel();
    this.#runs.clear();
    this.#ahead.clear();
    this.#awaited?.();
    await Promise.all(this.#slots.map((slot) => slot.stop()));
  }

  #setup(): ThreadSetup {
    const { handlers, ioRoots, allowNet } = this.#options;
    return { handlers, ioRoots, allowNet };
  }

  #slot(setup: ThreadSetup): Slot {
    const resultMaxBytes = this.#options.resultMaxBytes ?? (() => DEFAULT_SETTINGS.max_payload);
    const events: SlotEvents = {
      report: (task, part) => this.#reported(task, part),
      ended: (task, ending) => this.#ended(task, ending),
      returned: (tasks) => this.#returned(tasks),
      changed: () => {
        this.#goOn();
        this.#turn();
      },
      killed: () => {
        this.#kills += 1;
      },
      restarted: () => {
        this.#restarts += 1;
      },
      stuck: (thread) => this.#stuckThread(thread),
      unstuck: (thread) => this.#unstuckThread(thread),
    };
    const { slots } = this.#options;
    if (slots !== undefined) return slots.open(events);
    const { clock, mayStart = () => true } = this.#options;
    const stuckAfterMs = this.#stuckAfterMs;
    return new ExecutorSlot(
      setup,
      clock,
      this.#log,
      resultMaxBytes,
      stuckAfterMs,
      mayStart,
      events,
    );
  }

  // --- taking work

  #claimable(): number {
    if (this.#draining !== null || this.#stopped || this.#isClogged()) return 0;
    let free = 0;
    for (const slot of this.#slots) if (slot.free) free += 1;
    // A slot whose task still counts as running: its claim would show one more than there are slots.
    return Math.max(0, free - this.#ender.unsent);
  }

  /** Tasks that may wait here for a slot; with one to spare, the claim for it comes first. */
  #claimableAhead(): { readonly room: number; readonly left: number } | null {
    const { room } = this.#ahead;
    if (this.#draining !== null || this.#stopped || room === 0) return null;
    return { room, left: this.#isClogged() ? 0 : room - this.#ahead.size };
  }

  #isClogged(): boolean {
    const { unanswered, unansweredBytes } = this.#ender;
    if (unansweredBytes >= UNANSWERED_BYTES_MAX) return true;
    return unanswered >= this.#options.concurrency * UNANSWERED_PER_SLOT;
  }

  /**
   * Gathers what one turn of the event loop brings: ends and reports leave in one call each, and one
   * claim covers all the slots that they freed, so that all of it can travel in one round.
   */
  #turn(): void {
    if (this.#turnAsked || this.#stopped) return;
    this.#turnAsked = true;
    this.#clock.soon(() => {
      this.#turnAsked = false;
      if (this.#stopped) return;
      this.#goOn();
      this.#ender.flush();
      this.#claimer?.cover();
      this.#awaited?.();
    });
  }

  #claimed(tasks: readonly ClaimedTask[]): void {
    const claimedAt = this.#clock.monotonic();
    let free = this.#ahead.size > 0 ? 0 : this.#slots.filter((slot) => slot.free).length;
    if (tasks.length > free) free = 0;
    for (const task of tasks) {
      const { attempt, fence } = task.lease;
      // The repeat of a claim may bring what already runs.
      if (this.#runs.has(fence) || this.#ahead.has(fence) || this.#stopped) continue;
      const early = this.#early.get(fence);
      this.#early.delete(fence);
      if (early?.type === "lost") continue;
      if (this.#draining !== null || this.#suspended || early?.type === "cancel") {
        this.#end({ task_id: task.id, attempt, fence }, { kind: "release" }, null);
        continue;
      }
      const slot = free > 0 ? this.#freeSlot() : undefined;
      if (slot === undefined) this.#ahead.add(task);
      else this.#run(slot, [{ task, claimedAt }]);
    }
    this.#goOn();
  }

  #freeSlot(): Slot | undefined {
    return this.#slots.find((candidate) => candidate.free);
  }

  #run(slot: Slot, tasks: readonly AheadTask[]): void {
    const startedAt = this.#clock.monotonic();
    for (const { task, claimedAt } of tasks) {
      const { attempt, fence } = task.lease;
      this.#runs.set(fence, {
        task,
        lease: { task_id: task.id, attempt, fence },
        slot,
        startedAt,
        confirmedAt: claimedAt,
        stop: null,
        grace: null,
      });
    }
    slot.run(tasks.map(({ task }) => task));
    if (tasks.length > 1) this.#watch ??= this.#clock.after(LOOK_MS, () => this.#look());
  }

  /** Free slots take what waits for them. */
  #goOn(): void {
    while (this.#ahead.size > 0 && !this.#stopped) {
      const slot = this.#freeSlot();
      if (slot === undefined) return;
      const tasks: AheadTask[] = [];
      for (let left = Math.min(slot.depth, this.#ahead.share); left > 0; left--) {
        const next = this.#ahead.next();
        if (next !== null) tasks.push(next);
      }
      this.#run(slot, tasks);
    }
  }

  /** What waits in a slot behind a run that turned out long goes to another one, or back. */
  #look(): void {
    this.#watch = null;
    if (this.#stopped) return;
    // With no slot to go to, a task is as well off where it is: it may only be a core that is wanting.
    const isWanted = this.#ahead.size === 0 && this.#slots.some((slot) => slot.free);
    const looks = isWanted ? LOOKS_FOR_FREE : LOOKS_AT_ALL;
    for (const slot of this.#slots) if (slot.look() >= looks) slot.takeBack();
    if (this.#slots.some((slot) => slot.isShared()))
      this.#watch = this.#clock.after(LOOK_MS, () => this.#look());
  }

  /** Nobody has begun with them. */
  #returned(tasks: readonly ClaimedTask[]): void {
    const back: AheadTask[] = [];
    for (const task of tasks) {
      const run = this.#runs.get(task.lease.fence);
      if (run === undefined) continue;
      this.#runs.delete(task.lease.fence);
      run.grace?.cancel();
      if (run.stop === null) back.push({ task, claimedAt: run.confirmedAt });
      else if (run.stop !== "lost") this.#handBack([task]);
    }
    this.#ahead.putBack(back);
    this.#turn();
  }

  /** Takes everything back from the slots that no handler was entered for. */
  #takeBack(): void {
    for (const slot of this.#slots) slot.takeBack();
  }

  /** At no cost to the tasks: nobody has begun with them. */
  #handBack(tasks: readonly ClaimedTask[]): void {
    for (const { id, lease } of tasks) {
      const { attempt, fence } = lease;
      this.#end({ task_id: id, attempt, fence }, { kind: "release" }, null);
    }
  }

  #directed(directive: Directive): void {
    switch (directive) {
      case "ok":
        if (!this.#suspended) this.#claimer?.resume();
        return;
      // "terminate" means the process; this pool is only a part of one, and takes no more work.
      case "quiet":
      case "terminate":
        this.#claimer?.pause();
        return;
    }
  }

  // --- what handlers say

  #reported(task: ClaimedTask, part: ReportPart): void {
    const run = this.#runs.get(task.lease.fence);
    if (run === undefined || run.stop === "lost") return;
    this.#ender.report(run.lease, part);
    this.#turn();
  }

  #ended(task: ClaimedTask, ending: RunEnding): void {
    const run = this.#runs.get(task.lease.fence);
    if (run === undefined) return;
    this.#runs.delete(task.lease.fence);
    run.grace?.cancel();
    const ranMs = ending.kind === "outcome" ? ending.ranMs : undefined;
    // What never began says nothing of how long runs take.
    if (ending.kind !== "not-started")
      this.#ahead.ran(ranMs ?? this.#clock.monotonic() - run.startedAt);
    // A lease that ran out while the event loop stood still: its timer just has not fired yet.
    if (run.stop !== "lost" && this.#keeper.leftMs(run) <= 0) run.stop = "lost";
    const end = endOf(run.stop, ending);
    if (end !== null) this.#end(run.lease, end, ending.kind === "outcome" ? ending.rest : null);
  }

  #end(lease: LeaseRef, end: LeaseEnd, rest: ReportPart | null): void {
    this.#ender.add(lease, end, rest, this.#options.leaseMs() * END_WORTH_PERIODS);
    this.#turn();
  }

  // --- stopping

  /**
   * The state was replaced by a snapshot, which tells nobody what happened in between: stops what runs under a
   * lease that is gone, and what was cancelled. `leaseOf`: the lease in force on a task.
   */
  recheck(
    leaseOf: (taskId: string) => { readonly fence: number; readonly cancelling: boolean } | null,
  ): void {
    this.#takeBack();
    for (const [fence, run] of this.#runs) {
      const lease = leaseOf(run.task.id);
      if (lease?.fence !== fence) this.#stopRun(run, "lost", "the lease ended unseen");
      else if (lease.cancelling) this.#stopRun(run, "cancel", "cancelled");
    }
    // What waits for a slot has not begun: whatever became of it is found out by handing it back.
    this.#handBack(this.#ahead.clear());
  }

  #onLease(event: LeaseEvent): void {
    const given = this.#runs.get(event.fence);
    if (given !== undefined && !given.slot.holds(given.task)) given.slot.takeBack();
    // It may have been entered just now.
    const run = this.#runs.get(event.fence);
    if (run === undefined) {
      if (this.#stopWaiting(event.fence, event.type)) return;
      this.#early.set(event.fence, event);
      if (this.#early.size > EARLY_EVENTS_MAX) {
        const [oldest] = this.#early.keys();
        if (oldest !== undefined) this.#early.delete(oldest);
      }
      return;
    }
    if (run.task.id !== event.task_id) return;
    this.#stopRun(run, event.type, event.reason);
  }

  /** True: it waited for a slot, and does not any more. */
  #stopWaiting(fence: number, cause: StopCause): boolean {
    const waiting = this.#ahead.take(fence);
    if (waiting !== null && cause !== "lost") this.#handBack([waiting.task]);
    return waiting !== null;
  }

  #stopRun(run: Run, cause: StopCause, reason: string): void {
    if (!run.slot.holds(run.task)) {
      run.slot.takeBack();
      // It may have been entered just now.
      if (this.#runs.get(run.lease.fence) !== run) {
        this.#stopWaiting(run.lease.fence, cause);
        return;
      }
    }
    if (run.stop !== null) {
      // The signal was given; only what is reported afterwards can change.
      if (cause !== "drain" && run.stop !== "lost") run.stop = cause;
      return;
    }
    run.stop = cause;
    const graceMs = cause === "drain" ? Math.min(this.#graceMs, DRAIN_GRACE_MS) : this.#graceMs;
    run.grace = this.#clock.after(graceMs, () => {
      this.#log.warn("a handler ignored its signal and is killed with its Worker", {
        task_id: run.task.id,
        name: run.task.name,
        reason,
      });
      run.slot.kill(run.task);
    });
    run.slot.abort(run.task, reason);
  }

  #stuckThread(thread: ExecutorThread): boolean {
    this.#stuck.add(thread);
    const replace = this.#stuck.size <= this.#options.concurrency;
    this.#log.warn(
      replace
        ? "a Worker did not die and is stuck; it was replaced"
        : "a Worker did not die and is stuck; too many are, so this member claims less",
      { stuck: this.#stuck.size, slots: this.#options.concurrency, after_ms: this.#stuckAfterMs },
    );
    return replace;
  }

  #unstuckThread(thread: ExecutorThread): void {
    if (!this.#stuck.delete(thread) || this.#stopped) return;
    this.#slots.find((slot) => slot.blocked)?.unblock();
  }

  async #drain(timeoutMs: number): Promise<void> {
    this.#claimer?.stop();
    if (this.#stopped || this.#claimer === null) return;
    this.#takeBack();
    this.#handBack(this.#ahead.clear());
    await this.#until(() => this.#runs.size === 0, timeoutMs);
    for (const run of this.#runs.values())
      this.#stopRun(run, "drain", "the member is shutting down");
    await this.#until(() => this.#runs.size === 0, DRAIN_GRACE_MS);
    // The kill is due at the same moment: what it ends is handed back in the time of the flush.
    await this.#until(() => this.#runs.size === 0 && this.#ender.unanswered === 0, DRAIN_FLUSH_MS);
  }

  /** Resolves when it is so, looked at in every turn, or when the time is up. */
  #until(so: () => boolean, timeoutMs: number): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = this.#clock.after(timeoutMs, resolve);
    this.#awaited = () => {
      if (!so() && !this.#stopped) return;
      timer.cancel();
      resolve();
    };
    this.#turn();
    return promise;
  }
}
