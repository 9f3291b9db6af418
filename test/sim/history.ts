/**
 * What clients, workers and executor pools were answered. It judges nothing: it shows each answer to the rules
 * (`Invariant.told`) before it keeps what is kept of it. A call that failed or timed out is unknown, never absent.
 */
import type { Stats } from "../../src/queue/service.ts";
import type {
  Claim,
  ClaimedTask,
  LeaseRef,
  LeaseVerdict,
  NewTask,
  Task,
} from "../../src/queue/types.ts";
import type { Millis } from "../../src/replica/ports.ts";
import type { Simulation } from "./simulation.ts";

/** An answer. `since`: the index behind which it must stand, as of when the call began. */
export type Told =
  | { readonly type: "submitted"; readonly ids: readonly string[]; readonly since: number }
  /** That, and nobody had asked for these before. */
  | { readonly type: "created"; readonly ids: readonly string[]; readonly since: number }
  /** Nothing was done. */
  | { readonly type: "refused"; readonly tasks: readonly NewTask[]; readonly reason: string }
  | { readonly type: "cancelled"; readonly id: string }
  | { readonly type: "completed"; readonly lease: LeaseRef }
  /** Something was done under an idempotency key, or had been before. */
  | { readonly type: "under-key"; readonly key: string; readonly answer: unknown }
  | { readonly type: "refused-under-key"; readonly key: string; readonly reason: string }
  /** The key is said to stand for another body, and its principal uses it for one only. */
  | { readonly type: "mismatched"; readonly key: string }
  | ({ readonly type: "waited"; readonly id: string } & Waited)
  | {
      readonly type: "claimed";
      readonly claim: Claim;
      readonly tasks: readonly ClaimedTask[];
      readonly since: number;
    }
  | {
      readonly type: "heartbeat";
      readonly worker: string;
      readonly refs: readonly LeaseRef[];
      readonly verdicts: readonly LeaseVerdict[];
      readonly since: number;
    }
  /** The linearizable reads: of one task, of a list of them (`whole`: of all), of the counters. */
  | ({ readonly type: "read"; readonly id: string; readonly task: Task | null } & ReadAt)
  | ({ readonly type: "listed"; readonly tasks: readonly Task[]; readonly whole: boolean } & ReadAt)
  | ({ readonly type: "counted"; readonly stats: Stats["stats"] } & ReadAt);

interface ReadAt {
  readonly index: number;
  readonly since: number;
}

/** A wait for the end of a task, of `waitMs` at most, was over: the task has ended or is gone, or the time is up. */
interface Waited {
  readonly task: Task | null;
  readonly since: number;
  readonly lastedMs: Millis;
  readonly waitMs: Millis;
}

export class History {
  readonly #sim: Simulation;
  /** Ids that some client sent in a submit. */
  readonly asked = new Set<string>();
  /** Ids whose submit was refused for good. */
  readonly denied = new Set<string>();
  /** Highest index that a call which has ended stands for. */
  #floor = 0;
  /** Fences of leases that their own workers give back, or may. */
  readonly released = new Set<number>();
  /** What was answered first under each idempotency key. */
  readonly firstUnder = new Map<string, unknown>();
  /** When the newest heartbeat began that was answered `ok`, virtual ms, by fence. */
  readonly heardAt = new Map<number, number>();
  counts = { writes: 0, reads: 0, claims: 0, heartbeats: 0, failed: 0, unknown: 0 };

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  /** A call begins: what it answers must stand behind this index. */
  begin(): number {
    return this.#floor;
  }

  /**
   * A linearizable read begins: what anybody has applied is committed, so the index at which a leader is asked to prove
   * itself is no lower. More than clients could tell from each other's answers, and where a read index goes wrong first.
   */
  beginRead(): number {
    return Math.max(this.#floor, this.#sim.appliedMax);
  }

  get now(): number {
    return this.#sim.world.now;
  }

  #tell(told: Told): void {
    for (const rule of this.#sim.watching.told) rule.told(told);
  }

  /** A call has ended that stands for this index; undefined: for none that is known. */
  #stands(index: number | undefined): void {
    this.#floor = Math.max(this.#floor, index ?? 0);
  }

  /** The caller was told that nothing was done. */
  refused(tasks: readonly NewTask[], reason: string): void {
    this.#tell({ type: "refused", tasks, reason });
    for (const { id } of tasks) this.denied.add(id);
  }

  submitted(ids: readonly string[], since: number, fresh: boolean): void {
    this.counts.writes += 1;
    this.#tell({ type: fresh ? "created" : "submitted", ids, since });
    const { tasks } = this.#sim.ledger;
    for (const id of ids) this.#stands(tasks.get(id)?.moments[0]?.index);
  }

  cancelled(id: string): void {
    this.counts.writes += 1;
    this.#tell({ type: "cancelled", id });
    this.#stands(this.#sim.ledger.cancelledAt.get(id));
  }

  completed(lease: LeaseRef): void {
    this.counts.writes += 1;
    this.#tell({ type: "completed", lease });
    this.#stands(this.#sim.ledger.endedAt.get(lease.fence));
  }

  answeredUnder(key: string, answer: unknown): void {
    this.#tell({ type: "under-key", key, answer });
    if (!this.firstUnder.has(key)) this.firstUnder.set(key, answer);
  }

  isAnswered(key: string): boolean {
    return this.firstUnder.has(key);
  }

  refusedUnder(key: string, reason: string): void {
    this.#tell({ type: "refused-under-key", key, reason });
  }

  mismatched(key: string): void {
    this.#tell({ type: "mismatched", key });
  }

  waited(id: string, waited: Waited): void {
    this.#tell({ type: "waited", id, ...waited });
  }

  /** A worker is about to give this back. */
  releases({ fence }: LeaseRef): void {
    this.released.add(fence);
  }

  /** `since`: of the try that was answered; what was granted by then and is still held must be told. */
  claimed(claim: Claim, tasks: readonly ClaimedTask[], since = 0): void {
    this.counts.claims += 1;
    this.#tell({ type: "claimed", claim, tasks, since });
    for (const { lease } of tasks) this.#stands(this.#sim.ledger.claimedAt.get(lease.fence));
  }

  heartbeat(
    worker: string,
    refs: readonly LeaseRef[],
    verdicts: readonly LeaseVerdict[],
    since: number,
    begunAt: number,
  ): void {
    this.counts.heartbeats += 1;
    this.#tell({ type: "heartbeat", worker, refs, verdicts, since });
    for (const [i, { fence }] of refs.entries())
      if (verdicts[i] === "ok") this.#heard(fence, begunAt);
  }

  /** However long it was silent before: a leader that has given it up, in an entry that is on its way, says nothing. */
  #heard(fence: number, at: number): void {
    const before = this.heardAt.get(fence) ?? this.#sim.ledger.claimedMs.get(fence) ?? 0;
    if (at > before) this.heardAt.set(fence, at);
  }

  /** A linearizable read of one task. */
  read(id: string, task: Task | null, index: number, since: number): void {
    this.#readAt({ type: "read", id, task, index, since });
  }

  listed(tasks: readonly Task[], index: number, since: number, whole: boolean): void {
    this.#readAt({ type: "listed", tasks, index, since, whole });
  }

  counted({ stats }: Stats, index: number, since: number): void {
    this.#readAt({ type: "counted", stats, index, since });
  }

  #readAt(told: Told & ReadAt): void {
    this.counts.reads += 1;
    this.#tell(told);
    this.#stands(told.index);
  }
}
