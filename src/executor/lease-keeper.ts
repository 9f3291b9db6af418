/**
 * Keeps the leases of a pool alive: one heartbeat for all of them every third of a lease period, and the
 * rule that a worker stops by itself once a period has passed since it SENT its last answered heartbeat.
 */
import type { Clock, Log, Timer } from "../replica/ports.ts";
import type { WorkerInfo } from "../queue/service.ts";
import type { Directive, LeaseRef, LeaseVerdict } from "../queue/types.ts";
import { EXECUTOR_PRINCIPAL, messageOf, retryDelayMs, type ExecutorQueue } from "./queue-port.ts";
import type { Run } from "./run.ts";

/** Heartbeat calls in flight at once, each counted for a lease period: then its answer is worth nothing. */
const HEARTBEATS_IN_FLIGHT = 3;

export interface LeaseKeeperHooks {
  /** By fence. */
  readonly runs: ReadonlyMap<number, Run>;
  readonly leaseMs: () => number;
  /** Leases of what has ended, but whose end was not answered: they are kept alive, too. */
  unanswered(): readonly LeaseRef[];
  info(): WorkerInfo;
  stop(run: Run, cause: "cancel" | "lost", reason: string): void;
  directive(directive: Directive): void;
}

export class LeaseKeeper {
  readonly #queue: ExecutorQueue;
  readonly #workerId: string;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #log: Log;
  readonly #hooks: LeaseKeeperHooks;
  #timer: Timer | null = null;
  /** When each of the calls in flight was sent. */
  readonly #inFlight = new Set<{ readonly sentAt: number }>();
  #failures = 0;
  #stopped = false;

  constructor(
    queue: ExecutorQueue,
    workerId: string,
    clock: Clock,
    random: () => number,
    log: Log,
    hooks: LeaseKeeperHooks,
  ) {
    this.#queue = queue;
    this.#workerId = workerId;
    this.#clock = clock;
    this.#random = random;
    this.#log = log;
    this.#hooks = hooks;
  }

  /** The first heartbeat goes out at once: the leader learns of the slots before anything runs in them. */
  start(): void {
    this.#schedule(this.#periodMs());
    void this.#send();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  /** How long the run may go on without another answered heartbeat. */
  leftMs(run: Run): number {
    return run.confirmedAt + this.#hooks.leaseMs() - this.#clock.monotonic();
  }

  #periodMs(): number {
    return Math.max(1, this.#hooks.leaseMs() / 3);
  }

  #schedule(delayMs: number): void {
    if (this.#stopped) return;
    this.#timer?.cancel();
    this.#timer = this.#clock.after(delayMs, () => {
      this.#selfStop();
      this.#schedule(this.#nextMs());
      const worthlessAt = this.#clock.monotonic() - this.#hooks.leaseMs();
      for (const call of this.#inFlight)
        if (call.sentAt <= worthlessAt) this.#inFlight.delete(call);
      if (this.#inFlight.size < HEARTBEATS_IN_FLIGHT) void this.#send();
    });
  }

  /** Sooner than usual when a lease runs out before: `#selfStop` must see it. */
  #nextMs(): number {
    let delayMs = this.#periodMs();
    for (const run of this.#hooks.runs.values()) {
      const leftMs = this.leftMs(run);
      if (run.stop !== "lost") delayMs = Math.min(delayMs, Math.max(leftMs, 1));
    }
    return delayMs;
  }

  /** A worker stops by itself once a lease period has passed since it SENT its last answered heartbeat. */
  #selfStop(): void {
    for (const run of this.#hooks.runs.values()) {
      if (run.stop === "lost" || this.leftMs(run) > 0) continue;
      this.#log.warn("no heartbeat was answered for a lease period; the task is stopped", {
        task_id: run.task.id,
      });
      this.#hooks.stop(run, "lost", "the lease could not be renewed");
    }
  }

  async #send(): Promise<void> {
    const sentAt = this.#clock.monotonic();
    // What waits in a slot was not begun: if it is lost with this process, that is no crash of it.
    const runs = [...this.#hooks.runs.values()].filter(
      ({ stop, slot, task }) => stop !== "lost" && slot.holds(task),
    );
    const leases = [...runs.map((run) => run.lease), ...this.#hooks.unanswered()];
    const call = { sentAt };
    this.#inFlight.add(call);
    try {
      const answer = await this.#queue.heartbeat(
        this.#workerId,
        EXECUTOR_PRINCIPAL,
        leases,
        this.#hooks.info(),
      );
      this.#failures = 0;
      if (this.#stopped) return;
      for (const [index, run] of runs.entries())
        this.#judged(run, answer.verdicts[index] ?? "lost", sentAt);
      this.#hooks.directive(answer.directive);
    } catch (error) {
      this.#log.debug("a heartbeat failed", { error: messageOf(error) });
      const retryMs = retryDelayMs(this.#failures, this.#random);
      this.#failures += 1;
      if (!this.#stopped) this.#schedule(Math.min(retryMs, this.#nextMs()));
    } finally {
      this.#inFlight.delete(call);
    }
  }

  #judged(run: Run, verdict: LeaseVerdict, sentAt: number): void {
    // It may have ended, or been stopped, since.
    if (this.#hooks.runs.get(run.lease.fence) !== run) return;
    switch (verdict) {
      case "ok":
        run.confirmedAt = Math.max(run.confirmedAt, sentAt);
        return;
      case "cancel":
        run.confirmedAt = Math.max(run.confirmedAt, sentAt);
        this.#hooks.stop(run, "cancel", "cancelled");
        return;
      case "lost":
        this.#hooks.stop(run, "lost", "the lease was lost");
        return;
    }
  }
}
