/**
 * What the log made of every task, told by the machine's own signals as each entry is applied for the first
 * time, and held against what a task may do (`LEGAL`, and the rules Q1 to Q8). Clients' answers are judged by it: it
 * knows each task's status as of each index.
 */
import type { Database } from "bun:sqlite";
import type { Answer, Command, Signal } from "../../src/queue/commands.ts";
import { isKept } from "../../src/queue/first-answer.ts";
import type { TaskMachine } from "../../src/queue/machine.ts";
import type { IdempotencyScope, Status } from "../../src/queue/types.ts";
import type { CommittedEntry } from "../../src/replica/ports.ts";
import { commandsOf } from "./commands.ts";
import type { Invariant } from "./invariants/invariant.ts";
import type { SimNode } from "./node.ts";
import type { OldLease } from "./beginning.ts";
import type { Simulation } from "./simulation.ts";
import { OUTSIDE } from "./workers.ts";

/** A claim is known for so long, in log time; which leaps when a wrong clock leads (T1). */
const CLAIM_KEPT_MS = 300_000;
/** And until its worker has made so many more: an old offer may come late on the network, and is released. */
const CLAIMS_KEPT = 64;

interface Moment {
  readonly index: number;
  /** Null: gone for everyone. */
  readonly status: Status | null;
}

export interface LedgerTask {
  readonly id: string;
  status: Status | null;
  cancelling: boolean;
  attempt: number;
  /** Of the newest claim; 0: none. */
  fence: number;
  retries: number;
  crashes: number;
  /** What became of it, oldest first. */
  readonly moments: Moment[];
}

const LEGAL: Readonly<Record<Status, readonly (Status | null)[]>> = {
  Pending: ["Pending", "Running", "Cancelled", null],
  Running: ["Running", "Pending", "Completed", "Failed", "Cancelled", null],
  Completed: ["Pending", null],
  Failed: ["Pending", null],
  Cancelled: ["Pending", null],
};

export class Ledger implements Invariant {
  readonly #sim: Simulation;
  readonly tasks = new Map<string, LedgerTask>();
  /** Index of the claim, of the end, by fence. */
  readonly claimedAt = new Map<number, number>();
  readonly endedAt = new Map<number, number>();
  /** When the entry with the claim was first applied, virtual ms, by fence. */
  readonly claimedMs = new Map<number, number>();
  readonly completed = new Set<number>();
  readonly cancelledAt = new Map<string, number>();
  /** Where each claim, by worker and request, took its tasks. */
  readonly #claims = new Map<
    string,
    { readonly index: number; readonly logTime: number; readonly number: number }
  >();
  /** What each claim, by worker and request, was granted. */
  readonly #grants = new Map<
    string,
    {
      readonly id: string;
      readonly attempt: number;
      readonly fence: number;
      readonly index: number;
      readonly logTime: number;
    }[]
  >();
  /** Claims of each worker that took something. */
  readonly #claimsOf = new Map<string, number>();
  /** Leases of workers outside with which the cluster began. */
  readonly heldAtFirst: OldLease[] = [];
  /** Idempotency keys under which something is kept, and since when, by index. */
  readonly keys = new Map<string, { readonly scope: IdempotencyScope; readonly at: number }>();
  /** Cancels and retries of which the answer was looked at. */
  readonly #judged = new Set<string>();
  readonly counts: Record<Status, number> = {
    Pending: 0,
    Running: 0,
    Completed: 0,
    Failed: 0,
    Cancelled: 0,
  };
  #fence = 0;
  #logTime = 0;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  /** What a task was once `index` was applied; undefined: unknown then. */
  at(id: string, index: number): Moment | undefined {
    return this.tasks.get(id)?.moments.findLast((moment) => moment.index <= index);
  }

  /** What this claim was granted up to `index`, and is still held, as far as a repeat must be told of it. */
  heldBy(claim: string, index: number): readonly { readonly id: string; readonly fence: number }[] {
    return (this.#grants.get(claim) ?? []).filter(
      (grant) =>
        grant.index <= index &&
        !this.endedAt.has(grant.fence) &&
        this.tasks.get(grant.id)?.status === "Running" &&
        this.#logTime - grant.logTime < CLAIM_KEPT_MS,
    );
  }

  /** Leases of workers outside that were granted behind `index`. */
  grantedBehind(index: number): OldLease[] {
    return [...this.#grants].flatMap(([claim, grants]) =>
      grants
        .filter((grant) => grant.index > index && claim.startsWith(`${this.#sim.era}w`))
        .map(({ id, attempt, fence }) => ({
          worker: claim.split(" ")[0] ?? "",
          task_id: id,
          attempt,
          fence,
        })),
    );
  }

  /** A cluster begins with tasks: what they are is known by its state, which was held against the ledger of the old one. */
  begins(machine: TaskMachine, db: Database): void {
    const { reborn } = this.#sim;
    this.#fence = reborn === null ? 0 : reborn.of.ledger.#fence;
    this.#logTime = machine.logTime();
    const leases = new Map(machine.running().map((lease) => [lease.task_id, lease]));
    for (const { id } of db.query<{ id: string }, []>("SELECT id FROM tasks ORDER BY seq").all()) {
      const task = machine.task(id);
      if (task === null) continue;
      const { status, attempt, retries, crashes, version } = task;
      const lease = leases.get(id);
      const { fence = 0, cancelling = false } = lease ?? {};
      const moments = [{ index: version, status }];
      this.tasks.set(id, { id, status, cancelling, attempt, fence, retries, crashes, moments });
      this.counts[status] += 1;
      if (lease === undefined) continue;
      this.claimedAt.set(fence, version);
      if (lease.local === null)
        this.heldAtFirst.push({ worker: lease.worker, task_id: id, attempt, fence });
    }
  }

  get live(): number {
    return Object.values(this.counts).reduce((sum, count) => sum + count, 0);
  }

  // ------------------------------------------------------------------ entries

  logged(
    entry: CommittedEntry,
    answers: readonly Answer[],
    signals: readonly Signal[],
    node: SimNode,
  ): void {
    this.#logTime = Math.max(this.#logTime, entry.now);
    const retried = new Set<string>();
    const plain = new Map<string, number>();
    let others = false;
    /** Fences of the leases that the leader gives up in this entry. */
    const givenUp = new Set<number>();
    const commands = commandsOf(entry);
    for (const asked of commands) {
      if (asked.type === "retry") retried.add(asked.id);
      if (asked.type === "retry" || asked.type === "cancel")
        plain.set(asked.id, (plain.get(asked.id) ?? 0) + 1);
      else others ||= asked.type !== "submit";
      if (asked.type === "expire" || asked.type === "timeout")
        for (const { fence } of asked.items) givenUp.add(fence);
    }
    const touched = new Set<string>();
    for (const signal of signals) this.#signal(entry, signal, retried, touched);
    for (const signal of signals) {
      if (signal.type !== "lease-lost") continue;
      const { id, fence, reason } = signal;
      if ((reason === "expired" || reason === "timeout") && !givenUp.has(fence))
        this.#fail(`the lease of ${id} under fence ${fence} is ${reason}, and nobody said so`);
    }
    for (const [i, asked] of commands.entries()) {
      const answer = answers[i];
      const request = entry.requests[i];
      if (answer === undefined || request === undefined) continue;
      this.#answered(entry, asked, answer);
      if (asked.type !== "cancel" && asked.type !== "retry") continue;
      const isNews = this.#isNews(request) && asked.idem === undefined;
      if (isNews && !others && plain.get(asked.id) === 1 && !node.isSuspect)
        this.#isSo(asked, answer, node);
    }
    // A restart gives leases back for free, so often; then it counts as a crash.
    const restarts = commands.some(({ type }) => type === "boot");
    const due = restarts ? touched : chargesDue(entry, answers);
    for (const id of touched) this.#charged(id, node, retried.has(id), due);
  }

  #signal(
    entry: CommittedEntry,
    signal: Signal,
    retried: ReadonlySet<string>,
    touched: Set<string>,
  ): void {
    switch (signal.type) {
      case "changed":
        touched.add(signal.id);
        this.#changed(entry.index, signal.id, signal.from, signal.to, retried);
        return;
      case "claimed": {
        const { id, lease, run_at } = signal.task;
        const { worker_id, request_id } = signal.claim;
        const claim = `${worker_id} ${request_id}`;
        const before = this.#claims.get(claim);
        if (
          before !== undefined &&
          before.index !== entry.index &&
          this.#logTime - before.logTime < CLAIM_KEPT_MS &&
          (this.#claimsOf.get(worker_id) ?? 0) - before.number < CLAIMS_KEPT
        )
          this.#fail(
            `the claim ${claim} took tasks at ${before.index}, and again at ${entry.index}`,
          );
        if (before?.index !== entry.index) {
          const number = (this.#claimsOf.get(worker_id) ?? 0) + 1;
          this.#claimsOf.set(worker_id, number);
          this.#claims.set(claim, { index: entry.index, logTime: this.#logTime, number });
        }
        const task = this.tasks.get(id);
        if (task === undefined) return;
        if (lease.fence <= this.#fence)
          this.#fail(`fence ${lease.fence} of ${id} does not grow: ${this.#fence} was given`);
        if (lease.attempt !== task.attempt + 1)
          this.#fail(`attempt ${lease.attempt} of ${id} follows attempt ${task.attempt}`);
        if (run_at > this.#logTime)
          this.#fail(`${id} was claimed at ${this.#logTime}, before its time ${run_at}`);
        const { attempt, fence } = lease;
        const grant = { id, attempt, fence, index: entry.index, logTime: this.#logTime };
        const granted = this.#grants.get(claim);
        if (granted === undefined) this.#grants.set(claim, [grant]);
        else granted.push(grant);
        this.#fence = lease.fence;
        task.attempt = lease.attempt;
        task.fence = lease.fence;
        this.claimedAt.set(lease.fence, entry.index);
        this.claimedMs.set(lease.fence, this.#sim.world.now);
        return;
      }
      case "lease-end":
        if (!this.endedAt.has(signal.fence)) this.endedAt.set(signal.fence, entry.index);
        return;
      case "lease-cancel": {
        const task = this.tasks.get(signal.id);
        if (task === undefined) return;
        this.#sim.faults.count("cancel while running");
        task.cancelling = true;
        return;
      }
      case "cleared":
        for (const task of this.tasks.values()) {
          if (task.status === null || (signal.status !== null && task.status !== signal.status))
            continue;
          this.counts[task.status] -= 1;
          task.status = null;
          task.moments.push({ index: entry.index, status: null });
        }
        return;
      case "ready":
      case "lease-lost":
      case "final":
      case "settings":
        return;
    }
  }

  #changed(
    index: number,
    id: string,
    from: Status | null,
    to: Status | null,
    retried: ReadonlySet<string>,
  ): void {
    let task = this.tasks.get(id);
    if (from === null) {
      if (task !== undefined) this.#fail(`${id} was made twice`);
      const { asked, denied } = this.#sim.history;
      if (!asked.has(id)) this.#fail(`${id} appeared and nobody asked for it`);
      if (denied.has(id)) this.#fail(`${id} appeared, and its submit was refused`);
      task = {
        id,
        status: null,
        cancelling: false,
        attempt: 0,
        fence: 0,
        retries: 0,
        crashes: 0,
        moments: [],
      };
      this.tasks.set(id, task);
    } else {
      if (task === undefined || task.status !== from) {
        this.#fail(`${id} goes from ${from} to ${to}, and was ${task?.status ?? "unknown"}`);
        return;
      }
      if (!LEGAL[from].includes(to)) this.#fail(`${id} goes from ${from} to ${to}`);
      const again = from === "Completed" || from === "Failed" || from === "Cancelled";
      if (again && to === "Pending" && !retried.has(id))
        this.#fail(`${id} goes from ${from} to Pending and nobody retried it`);
      if (task.cancelling && to !== "Cancelled" && to !== "Running" && to !== null)
        this.#fail(`${id} was being cancelled and becomes ${to}`);
      this.counts[from] -= 1;
    }
    if (from === "Running" && to === "Completed") this.completed.add(task.fence);
    // A report; what a cancel does is told by a signal of its own.
    if (from === "Running" && to === "Running") {
      this.counts.Running += 1;
      task.moments.push({ index, status: to });
      return;
    }
    task.cancelling = false;
    task.status = to;
    if (to !== null) this.counts[to] += 1;
    task.moments.push({ index, status: to });
  }

  /** Failures and time-outs are charged to one budget, crashes to the other, once for each attempt. */
  #charged(id: string, node: SimNode, retried: boolean, due: ReadonlySet<string>): void {
    const known = this.tasks.get(id);
    const task = node.machine?.task(id) ?? null;
    if (known === undefined) return;
    if ((task?.status ?? null) !== known.status)
      this.#fail(
        `${id} is ${task?.status ?? "gone"} on ${node.id}, by the log it is ${known.status}`,
      );
    if (task === null) return;
    const { retries, crashes, max_retries, attempt } = task;
    if (retries > max_retries) this.#fail(`${id} was charged ${retries} of ${max_retries} retries`);
    if (crashes > this.#sim.options.maxCrashes) this.#fail(`${id} was charged ${crashes} crashes`);
    if (!retried && retries + crashes > known.retries + known.crashes + 1)
      this.#fail(`${id} was charged twice for one attempt`);
    if (retries + crashes > attempt) this.#fail(`${id} was charged more often than it was claimed`);
    if (!retried && retries + crashes > known.retries + known.crashes && !due.has(id))
      this.#fail(`${id} was charged for what is free: neither failed, timed out, nor crashed`);
    known.retries = retries;
    known.crashes = crashes;
  }

  #answered({ index }: CommittedEntry, command: Command, answer: Answer): void {
    const { idem } = command;
    if (idem !== undefined && isKept(answer)) {
      const key = `${idem.principal} ${idem.route} ${idem.key}`;
      if (!this.keys.has(key)) this.keys.set(key, { scope: idem, at: index });
    }
    if (command.type === "cancel" && answer.ok && !this.cancelledAt.has(command.id))
      this.cancelledAt.set(command.id, index);
    if (command.type !== "end" || !answer.ok || answer.value.type !== "ended") return;
    for (const [i, item] of command.items.entries()) {
      const said = answer.value.items[i];
      if (said === "ok" && item.end.kind === "release" && command.principal === OUTSIDE)
        this.#sim.history.wasReleased(item, index);
      if (said === "ok" && item.end.kind === "complete" && !this.completed.has(item.fence))
        this.#fail(
          `the completion of ${item.task_id} under fence ${item.fence} was accepted and not applied`,
        );
      const task = this.tasks.get(item.task_id);
      const holds = task?.status === "Running" && task.fence === item.fence;
      if (said === "stale-lease" && holds && task.attempt === item.attempt)
        this.#fail(`the valid fence ${item.fence} of ${item.task_id} was called stale`);
    }
  }

  /** False: it was logged before, and is answered as then. */
  #isNews({ member, boot, seq }: CommittedEntry["requests"][number]): boolean {
    const number = `${member} ${boot} ${seq}`;
    if (this.#judged.has(number)) return false;
    this.#judged.add(number);
    return true;
  }

  /** What is said of one task, by an entry that does nothing else to it, is how the task is then. */
  #isSo(
    { type, id }: Extract<Command, { readonly type: "cancel" | "retry" }>,
    answer: Answer,
    { machine }: SimNode,
  ): void {
    const { status = null, cancelling = false } = this.tasks.get(id) ?? {};
    const said = answer.ok ? "ok" : answer.code;
    if (!isPossible(type, said, status, cancelling))
      this.#fail(`the ${type} of ${id} is answered ${said}, and it is ${status ?? "gone"}`);
    if (type !== "retry" || !answer.ok) return;
    const { retries = 0, crashes = 0, result = null } = machine?.task(id) ?? {};
    if (retries > 0 || crashes > 0 || result !== null)
      this.#fail(`${id} is retried and keeps ${retries} retries, ${crashes} crashes, or a result`);
  }

  #fail(what: string): void {
    this.#sim.fail("ledger (Q1, Q2, Q4, Q5, Q6, Q8)", what);
  }

  /** Q1: what was acknowledged is there, in one status, or was cleared. */
  ended(): void {
    for (const node of this.#sim.core()) {
      if (node.applied !== this.#sim.appliedMax) continue;
      for (const { id, status } of this.tasks.values()) {
        const task = node.machine?.task(id) ?? null;
        if ((task?.status ?? null) !== status)
          this.#fail(
            `${id} is ${task?.status ?? "gone"} on ${node.id}, by the log it is ${status}`,
          );
      }
    }
  }
}

function isPossible(
  type: "cancel" | "retry",
  said: string,
  status: Status | null,
  cancelling: boolean,
): boolean {
  switch (said) {
    case "ok":
      if (type === "retry") return status === "Pending";
      return status === "Cancelled" || (status === "Running" && cancelling);
    case "not-found":
      return status === null;
    case "already-final":
      return status === "Completed" || status === "Failed";
    case "not-final":
      return status === "Pending" || status === "Running";
    default:
      return true;
  }
}

/** Tasks of which this entry says that an attempt failed, ran too long, crashed, or was given up. */
function chargesDue(entry: CommittedEntry, answers: readonly Answer[]): ReadonlySet<string> {
  const due = new Set<string>();
  for (const [i, asked] of commandsOf(entry).entries()) {
    if (answers[i]?.ok !== true) continue;
    if (asked.type === "end") {
      for (const { task_id, end } of asked.items) if (end.kind === "fail") due.add(task_id);
    }
    if (asked.type === "expire" || asked.type === "timeout")
      for (const { task_id } of asked.items) due.add(task_id);
  }
  return due;
}
