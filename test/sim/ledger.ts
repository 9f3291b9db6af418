/**
 * What the log made of every task, told by the machine's own signals as each entry is applied for the first time. It
 * judges nothing: before it takes a step over it shows it to the rules that watch steps (`Invariant.changing`,
 * `granting`, `became`), which hold it against what the task was until then. Clients' answers are judged by it: it knows each
 * task's status as of each index.
 */
import type { Database } from "bun:sqlite";
import type { Answer, Command, Signal } from "../../src/queue/commands.ts";
import type { TaskMachine } from "../../src/queue/machine.ts";
import type { Claim, IdempotencyScope, Status } from "../../src/queue/types.ts";
import type { CommittedEntry } from "../../src/replica/ports.ts";
import { commandsOf } from "./commands.ts";
import type { Invariant } from "./invariants/invariant.ts";
import { keeps } from "./kept.ts";
import type { SimNode } from "./node.ts";
import type { OldLease } from "./beginning.ts";
import type { Simulation } from "./simulation.ts";

/** A claim is known for so long, in log time; which leaps when a wrong clock leads (T1). */
export const CLAIM_KEPT_MS = 300_000;

export type Changed = Extract<Signal, { readonly type: "changed" }>;
export type Granted = Extract<Signal, { readonly type: "claimed" }>;

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

export class Ledger implements Invariant {
  readonly #sim: Simulation;
  readonly tasks = new Map<string, LedgerTask>();
  /** Index of the claim, of the end, by fence. */
  readonly claimedAt = new Map<number, number>();
  readonly endedAt = new Map<number, number>();
  /** When the entry with the claim was first applied, virtual ms, by fence. */
  readonly claimedMs = new Map<number, number>();
  /** Fences under which a task was completed. */
  readonly completed = new Set<number>();
  readonly cancelledAt = new Map<string, number>();
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
  /** Leases of workers outside with which the cluster began. */
  readonly heldAtFirst: OldLease[] = [];
  /** Idempotency keys under which something is kept, and since when, by index. */
  readonly keys = new Map<string, { readonly scope: IdempotencyScope; readonly at: number }>();
  readonly counts: Record<Status, number> = {
    Pending: 0,
    Running: 0,
    Completed: 0,
    Failed: 0,
    Cancelled: 0,
  };
  /** The newest that was given. */
  fence = 0;
  logTime = 0;

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
        this.logTime - grant.logTime < CLAIM_KEPT_MS,
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
    this.fence = reborn === null ? 0 : reborn.of.ledger.fence;
    this.logTime = machine.logTime();
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
    this.logTime = Math.max(this.logTime, entry.now);
    const touched = new Set<string>();
    for (const signal of signals) this.#signal(entry, signal, touched);
    for (const [i, asked] of commandsOf(entry).entries()) {
      const answer = answers[i];
      if (answer !== undefined) this.#answered(entry.index, asked, answer);
    }
    for (const id of touched) this.#became(entry, id, answers, node);
  }

  #signal(entry: CommittedEntry, signal: Signal, touched: Set<string>): void {
    switch (signal.type) {
      case "changed":
        touched.add(signal.id);
        this.#changed(entry, signal);
        return;
      case "claimed":
        this.#granted(entry, signal);
        return;
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

  #granted(entry: CommittedEntry, granted: Granted): void {
    const { id, lease } = granted.task;
    const task = this.tasks.get(id);
    for (const rule of this.#sim.watching.granting) rule.granting(task, granted, entry);
    if (task === undefined) return;
    const { attempt, fence } = lease;
    const grant = { id, attempt, fence, index: entry.index, logTime: this.logTime };
    const claim = nameOf(granted.claim);
    const known = this.#grants.get(claim);
    if (known === undefined) this.#grants.set(claim, [grant]);
    else known.push(grant);
    this.fence = fence;
    task.attempt = attempt;
    task.fence = fence;
    this.claimedAt.set(fence, entry.index);
    this.claimedMs.set(fence, this.#sim.world.now);
  }

  #changed(entry: CommittedEntry, changed: Changed): void {
    const { index } = entry;
    const { id, from, to } = changed;
    let task = this.tasks.get(id);
    for (const rule of this.#sim.watching.changing) rule.changing(task, changed, entry);
    if (from === null) {
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
      if (task === undefined || task.status !== from) return;
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

  /** An entry has touched it: what it was charged is as the machine says. */
  #became(entry: CommittedEntry, id: string, answers: readonly Answer[], node: SimNode): void {
    const known = this.tasks.get(id);
    if (known === undefined) return;
    const task = node.machine?.task(id) ?? null;
    for (const rule of this.#sim.watching.became) rule.became(known, task, entry, answers, node);
    if (task === null) return;
    known.retries = task.retries;
    known.crashes = task.crashes;
  }

  #answered(index: number, command: Command, answer: Answer): void {
    const { idem } = command;
    if (idem !== undefined && keeps(answer)) {
      const key = `${idem.principal} ${idem.route} ${idem.key}`;
      if (!this.keys.has(key)) this.keys.set(key, { scope: idem, at: index });
    }
    if (command.type === "cancel" && answer.ok && !this.cancelledAt.has(command.id))
      this.cancelledAt.set(command.id, index);
  }
}

/** Of a claim, whichever of its tries it was. */
export function nameOf({ worker_id, request_id }: Claim): string {
  return `${worker_id} ${request_id}`;
}
