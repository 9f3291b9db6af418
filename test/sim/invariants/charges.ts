/**
 * Q5, exactly: what each end of an attempt costs, what it leads to, and when the task may run again. Counted from the
 * commands alone, beside the machine: a failure and a time-out are a retry, a crash is a crash, the rest is free.
 */
import type { Database } from "bun:sqlite";
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { TaskMachine } from "../../../src/queue/machine.ts";
import {
  FINAL_STATUSES,
  type LeaseEnd,
  type RetryPolicy,
  type Task,
} from "../../../src/queue/types.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { commandsOf } from "../commands.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** Free returns of a claim that was never seen to start; after them it counts as a crash. */
const FREE_RELEASES = 10;

type Cause = LeaseEnd | { readonly kind: "timeout" } | { readonly kind: "expired"; seen: boolean };

interface Budget {
  readonly retries: number;
  readonly crashes: number;
  readonly releases: number;
}
const NEW: Budget = { retries: 0, crashes: 0, releases: 0 };

export class Charges implements Invariant {
  readonly #sim: Simulation;
  readonly #budgets = new Map<string, Budget>();
  /** Log time of each claim, by fence. */
  readonly #claimedAt = new Map<number, number>();
  /** Fences whose work was seen to run. */
  readonly #seen = new Set<number>();
  #now = 0;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  begins(machine: TaskMachine, db: Database): void {
    this.#now = machine.logTime();
    const sql = "SELECT id, retries, crashes, releases FROM tasks";
    for (const { id, ...budget } of db.query<Budget & { readonly id: string }, []>(sql).all())
      if (machine.task(id) !== null) this.#budgets.set(id, budget);
    for (const { fence, started_at, seen } of machine.running()) {
      this.#claimedAt.set(fence, started_at);
      if (seen) this.#seen.add(fence);
    }
  }

  logged(
    entry: CommittedEntry,
    answers: readonly Answer[],
    signals: readonly Signal[],
    { machine }: SimNode,
  ): void {
    const { now, index } = entry;
    const commands = commandsOf(entry);
    this.#now = Math.max(this.#now, now);
    // A restart gives leases back for nothing, also those of which another command says something else.
    const restarts = commands.some(({ type }) => type === "boot");
    const causes = new Map<string, { fence: number; cause: Cause }[]>();
    const because = (id: string, fence: number, cause: Cause): void => {
      const known = causes.get(id);
      if (known === undefined) causes.set(id, [{ fence, cause }]);
      else known.push({ fence, cause });
    };
    // A retry under a key that was used before is answered as then, and changes nothing.
    const revived = new Set<string>();
    for (const signal of signals)
      if (signal.type === "changed" && signal.from !== null && FINAL_STATUSES.includes(signal.from))
        revived.add(signal.id);
    for (const [i, asked] of commands.entries()) {
      const answer = answers[i];
      if (answer?.ok !== true) continue;
      if (asked.type === "retry" && revived.has(asked.id)) this.#budgets.set(asked.id, NEW);
      if (asked.type === "confirm") for (const { fence } of asked.items) this.#seen.add(fence);
      if (asked.type === "end" && answer.value.type === "ended")
        for (const [j, { task_id, fence, end }] of asked.items.entries())
          if (answer.value.items[j] === "ok") because(task_id, fence, end);
      if (asked.type !== "timeout" && asked.type !== "expire") continue;
      // Some may have ended before, in this entry too: by the start of the member that ran them, for instance.
      const times = timesCounted(asked.items.length, answer.value);
      for (let n = 0; n < times; n++)
        if (asked.type === "timeout")
          for (const { task_id, fence } of asked.items)
            because(task_id, fence, { kind: "timeout" });
        else
          for (const { task_id, fence, seen } of asked.items)
            because(task_id, fence, { kind: "expired", seen: seen || this.#seen.has(fence) });
    }
    const steps = new Map<string, number>();
    for (const signal of signals) {
      if (signal.type === "changed") steps.set(signal.id, (steps.get(signal.id) ?? 0) + 1);
      if (signal.type === "claimed") this.#claimedAt.set(signal.task.lease.fence, this.#now);
    }
    const ended = new Set<number>();
    for (const signal of signals) if (signal.type === "lease-end") ended.add(signal.fence);
    for (const [id, count] of steps) {
      const task = machine?.task(id) ?? null;
      const known = this.#budgets.get(id) ?? NEW;
      const [first, ...more] = (causes.get(id) ?? []).filter(({ fence }) => ended.has(fence));
      let { releases } = known;
      if (task !== null && first === undefined && !restarts) {
        const wrong = this.#free(known, task);
        if (wrong !== null)
          this.#sim.fail(
            "Q5",
            `nothing at ${index} is charged to ${id}, of which ${JSON.stringify(known)} was: ${JSON.stringify(task)}`,
          );
      }
      if (task !== null && first !== undefined && more.length === 0 && count === 1 && !restarts) {
        const wrong = this.#wrong(first.fence, first.cause, known, task);
        if (wrong !== null)
          this.#sim.fail(
            "Q5",
            `${id}, ${describe(first.cause)} at ${index} with ${JSON.stringify(known)} charged: ${wrong}: ${JSON.stringify(task)}`,
          );
      }
      const { retries = 0, crashes = 0 } = task ?? {};
      // Also by a restart of the member that ran it.
      if (task?.status === "Pending" && crashes === known.crashes) releases += 1;
      if (task === null) this.#budgets.delete(id);
      else this.#budgets.set(id, { retries, crashes, releases });
    }
  }

  /** A sentence, or null. */
  #wrong(fence: number, cause: Cause, before: Budget, task: Task): string | null {
    // It was being cancelled; what that leads to, the ledger knows.
    if (task.status === "Cancelled") return null;
    const waits = task.run_at - this.#now;
    switch (cause.kind) {
      case "complete":
        return this.#free(before, task) ?? (task.status === "Completed" ? null : "not completed");
      case "release":
        return this.#free(before, task) ?? putBack(task, waits, 0);
      case "snooze":
        return this.#free(before, task) ?? putBack(task, waits, cause.delay_ms);
      case "timeout": {
        const { timeout_ms: most } = task;
        const ran = this.#now - (this.#claimedAt.get(fence) ?? 0);
        if (most === null || ran < most) return `it ran ${ran} ms, it may run ${most} ms`;
        return this.#failed(before, task, waits, null, "timeout");
      }
      case "fail":
        if (cause.crashed) return this.#crashed(before, task, waits);
        if (cause.error.retryable)
          return this.#failed(before, task, waits, cause.retry_after_ms, "exhausted");
        return this.#free(before, task) ?? ends(task, "non_retryable");
      case "expired":
        if (cause.seen || before.releases >= FREE_RELEASES)
          return cause.seen ? this.#crashed(before, task, waits) : null;
        return this.#free(before, task) ?? putBack(task, waits, 0);
    }
  }

  #free(before: Budget, { retries, crashes }: Task): string | null {
    return retries === before.retries && crashes === before.crashes ? null : "it is free";
  }

  #failed(
    before: Budget,
    task: Task,
    waits: number,
    retryAfterMs: number | null,
    detail: Task["detail"],
  ): string | null {
    if (task.crashes !== before.crashes) return "it is no crash";
    if (before.retries >= task.max_retries)
      return task.retries === before.retries ? ends(task, detail) : "no retry was left";
    if (task.retries !== before.retries + 1) return "a retry is to be charged";
    return retryAfterMs === null
      ? backsOff(task, waits, task.retries)
      : putBack(task, waits, retryAfterMs);
  }

  #crashed(before: Budget, task: Task, waits: number): string | null {
    if (task.retries !== before.retries) return "a crash is no failure";
    if (task.crashes !== before.crashes + 1) return "a crash is to be charged";
    if (task.crashes >= this.#sim.options.maxCrashes) return ends(task, "crashed");
    return backsOff(task, waits, task.crashes);
  }
}

/** What ended nothing is no cause; of what ended some of its leases nobody knows which: two causes are never judged. */
function timesCounted(items: number, value: Extract<Answer, { ok: true }>["value"]): 0 | 1 | 2 {
  if (value.type !== "done" || value.count === 0) return 0;
  return value.count < items ? 2 : 1;
}

function describe(cause: Cause): string {
  return cause.kind === "fail" ? (cause.crashed ? "crashed" : "failed") : cause.kind;
}

function ends({ status, detail }: Task, why: Task["detail"]): string | null {
  return status === "Failed" && detail === why ? null : `it is to be Failed, ${why}`;
}

function putBack({ status }: Task, waits: number, delayMs: number): string | null {
  if (status !== "Pending") return "it is to wait again";
  return waits === Math.floor(delayMs) ? null : `it waits ${waits} ms, not ${delayMs}`;
}

/** With jitter half of the delay is certain. */
function backsOff(task: Task, waits: number, n: number): string | null {
  if (task.status !== "Pending") return "it is to be tried again";
  const plain = Math.min(task.retry.max_ms, curve(task.retry, n));
  const least = task.retry.jitter ? plain / 2 : plain;
  return waits >= Math.floor(least) && waits <= plain
    ? null
    : `it waits ${waits} ms, between ${least} and ${plain} are due`;
}

function curve({ kind, initial_ms, factor }: RetryPolicy, n: number): number {
  switch (kind) {
    case "none":
      return 0;
    case "fixed":
      return initial_ms;
    case "linear":
      return initial_ms * n;
    case "exponential":
      return initial_ms * factor ** (n - 1);
  }
}
