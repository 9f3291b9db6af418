/**
 * What clients saw. Every answer bears, or can be given, the log index that it stands for; the history is
 * linearizable if those indexes respect real time: whoever begins after another has ended stands behind it.
 * A call that failed or timed out is unknown, never absent.
 */
import type { Stats } from "../../src/queue/service.ts";
import type {
  Claim,
  ClaimedTask,
  LeaseRef,
  LeaseVerdict,
  NewTask,
  Status,
  Task,
} from "../../src/queue/types.ts";
import { FINAL_STATUSES, STATUSES } from "../../src/queue/types.ts";
import type { Simulation } from "./simulation.ts";

export class History {
  readonly #sim: Simulation;
  /** Ids that some client sent in a submit. */
  readonly asked = new Set<string>();
  /** Ids whose submit was answered. */
  readonly acknowledged = new Set<string>();
  /** Ids whose submit was refused for good. */
  readonly denied = new Set<string>();
  /** Highest index that a call which has ended stands for. */
  #floor = 0;
  readonly #handed = new Map<number, string>();
  /** Fences of leases that their own workers give back, or may. */
  readonly #released = new Set<number>();
  /** Where a lease was given back that nobody had asked for who held it, by fence. */
  readonly #givenBack = new Map<number, number>();
  /** What was answered under each idempotency key. */
  readonly #keyed = new Map<string, unknown>();
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

  #stands(what: string, index: number | undefined): void {
    if (index === undefined) this.#fail(`${what} was acknowledged and is not in the log`);
    else this.#floor = Math.max(this.#floor, index);
  }

  /** The caller was told that nothing was done. */
  refused(tasks: readonly NewTask[], reason: string): void {
    for (const { id } of tasks) {
      this.denied.add(id);
      if (this.#sim.ledger.tasks.has(id))
        this.#fail(`the submit of ${id} was refused (${reason}), and is in the log`);
    }
  }

  submitted(ids: readonly string[], since: number, fresh: boolean): void {
    this.counts.writes += 1;
    for (const id of ids) {
      this.acknowledged.add(id);
      const index = this.#sim.ledger.tasks.get(id)?.moments[0]?.index;
      if (fresh && index !== undefined && index <= since)
        this.#fail(
          `the submit of ${id} began after index ${since} was seen and stands at ${index}`,
        );
      this.#stands(`the submit of ${id}`, index);
    }
  }

  cancelled(id: string): void {
    this.counts.writes += 1;
    this.#stands(`the cancel of ${id}`, this.#sim.ledger.cancelledAt.get(id));
  }

  completed({ task_id, fence }: LeaseRef): void {
    this.counts.writes += 1;
    if (!this.#sim.ledger.completed.has(fence))
      this.#fail(`the completion of ${task_id} was acknowledged and is not in the log`);
    this.#stands(`the completion of ${task_id}`, this.#sim.ledger.endedAt.get(fence));
  }

  /** Something was done under this idempotency key, or had been before: everybody is told the same. */
  answeredUnder(key: string, answer: unknown): void {
    const first = this.#keyed.get(key);
    if (first === undefined) this.#keyed.set(key, answer);
    else if (!Bun.deepEquals(first, answer))
      this.#fail(
        `the key ${key} was answered ${JSON.stringify(first)} and then ${JSON.stringify(answer)}`,
      );
  }

  isAnswered(key: string): boolean {
    return this.#keyed.has(key);
  }

  refusedUnder(key: string, reason: string): void {
    const first = this.#keyed.get(key);
    if (first !== undefined)
      this.#fail(
        `the key ${key} was answered ${JSON.stringify(first)} and then refused: ${reason}`,
      );
  }

  /** Of a key that its principal uses for one body only. */
  mismatched(key: string): void {
    this.#fail(`the key ${key} is said to have been used with another body`);
  }

  /**
   * A wait for the end of a task, of `waitMs` at most, was over: the task has ended or is gone, or the time is up. It is
   * as it was at some moment of the wait.
   */
  waited(id: string, task: Task | null, since: number, lastedMs: number, waitMs: number): void {
    const { ledger } = this.#sim;
    if (task === null) {
      const moments = ledger.tasks.get(id)?.moments ?? [];
      const ever = moments.some(({ index, status }) => index > since && status === null);
      const then = ledger.at(id, since)?.status ?? null;
      if (then !== null && !ever) this.#fail(`${id} was gone for whoever waited, and was ${then}`);
      return;
    }
    const known = ledger.at(id, task.version);
    if (known?.index !== task.version || known.status !== task.status)
      this.#fail(
        `${id} was ${task.status} in version ${task.version} after a wait, and was ${known?.status} in ${known?.index}`,
      );
    const before = ledger.at(id, since)?.index ?? 0;
    if (task.version < before)
      this.#fail(`${id} was in version ${task.version} after a wait that began behind ${before}`);
    if (FINAL_STATUSES.includes(task.status)) return;
    // The slowest clock loses a tenth.
    if (lastedMs < waitMs * 0.9 - 1)
      this.#fail(`a wait of ${waitMs} ms for ${id} ended after ${lastedMs} ms, and it had not`);
  }

  /** A worker is about to give this back. */
  releases({ fence }: LeaseRef): void {
    this.#released.add(fence);
  }

  /** This lease of a worker outside ended by being given back. */
  wasReleased({ task_id, fence }: LeaseRef, index: number): void {
    if (this.#released.has(fence)) return;
    const request = this.#handed.get(fence);
    if (request === undefined) this.#givenBack.set(fence, index);
    else
      this.#fail(
        `${task_id} was given back at ${index} behind the back of ${request}, which holds it under fence ${fence}`,
      );
  }

  /** `since`: of the try that was answered; what was granted by then and is still held must be told. */
  claimed(claim: Claim, tasks: readonly ClaimedTask[], since = 0): void {
    this.counts.claims += 1;
    const request = `${claim.worker_id} ${claim.request_id}`;
    for (const { id, fence } of this.#sim.ledger.heldBy(request, since))
      if (!tasks.some(({ lease }) => lease.fence === fence))
        this.#fail(
          `${request} was granted ${id} under fence ${fence} by ${since}, and is told of ${tasks.length} others`,
        );
    for (const { id, lease, queue, name } of tasks) {
      const named = claim.names?.includes(name) ?? true;
      if (claim.queues?.includes(queue) === false || (!named && !claim.star))
        this.#fail(`${request} got ${id} of ${queue} and ${name}, which it did not ask for`);
      const known = this.#handed.get(lease.fence);
      if (known !== undefined && known !== request)
        this.#fail(`fence ${lease.fence} of ${id} was handed to ${known} and to ${request}`);
      const backAt = this.#givenBack.get(lease.fence);
      if (backAt !== undefined)
        this.#fail(
          `${request} is told of ${id} under fence ${lease.fence}, which was given back at ${backAt}`,
        );
      this.#handed.set(lease.fence, request);
      this.#stands(`the claim of ${id}`, this.#sim.ledger.claimedAt.get(lease.fence));
    }
    if (tasks.length > claim.max)
      this.#fail(`${request} got ${tasks.length} of ${claim.max} tasks`);
  }

  /** A deposed leader must not say `ok`, and nobody `lost` of a lease that is held. */
  heartbeat(
    worker: string,
    refs: readonly LeaseRef[],
    verdicts: readonly LeaseVerdict[],
    since: number,
    begunAt: number,
  ): void {
    this.counts.heartbeats += 1;
    const { ledger } = this.#sim;
    for (const [i, { task_id, fence }] of refs.entries()) {
      if (verdicts[i] === "ok") this.#heard(fence, begunAt);
      const endedAt = ledger.endedAt.get(fence);
      const claimedAt = ledger.claimedAt.get(fence);
      if (verdicts[i] === "ok" && endedAt !== undefined && endedAt <= since)
        this.#fail(
          `${worker} was told "ok" of ${task_id}, whose lease ended at ${endedAt}, seen at ${since}`,
        );
      if (verdicts[i] === "lost" && endedAt === undefined && claimedAt !== undefined)
        this.#fail(`${worker} was told "lost" of ${task_id}, which it holds`);
    }
  }

  /** However long it was silent before: a leader that has given it up, in an entry that is on its way, says nothing. */
  #heard(fence: number, at: number): void {
    const before = this.heardAt.get(fence) ?? this.#sim.ledger.claimedMs.get(fence) ?? 0;
    if (at > before) this.heardAt.set(fence, at);
  }

  /** A linearizable read of one task. */
  read(id: string, task: Task | null, index: number, since: number): void {
    this.#readAt(index, since);
    const moment = this.#sim.ledger.at(id, index);
    const status = moment?.status ?? null;
    if ((task?.status ?? null) !== status)
      this.#fail(`${id} was read as ${task?.status ?? "absent"} at ${index}, and was ${status}`);
    else if (task !== null && task.version !== moment?.index)
      this.#fail(
        `${id} was read in version ${task.version} at ${index}, and was in ${moment?.index}`,
      );
  }

  listed(tasks: readonly Task[], index: number, since: number, whole: boolean): void {
    this.#readAt(index, since);
    for (const { id, status } of tasks) {
      const known = this.#sim.ledger.at(id, index)?.status ?? null;
      if (known !== status)
        this.#fail(`${id} was listed as ${status} at ${index}, and was ${known}`);
    }
    if (!whole || index !== this.#sim.appliedMax) return;
    if (tasks.length !== this.#sim.ledger.live)
      this.#fail(
        `${tasks.length} tasks were listed at ${index}, there are ${this.#sim.ledger.live}`,
      );
  }

  counted({ stats }: Stats, index: number, since: number): void {
    this.#readAt(index, since);
    if (index !== this.#sim.appliedMax) return;
    const { counts } = this.#sim.ledger;
    for (const status of STATUSES satisfies readonly Status[]) {
      if (stats[status] !== counts[status])
        this.#fail(
          `${stats[status]} ${status} were counted at ${index}, there are ${counts[status]}`,
        );
    }
  }

  #readAt(index: number, since: number): void {
    this.counts.reads += 1;
    if (index < since)
      this.#fail(`a read was served at ${index}, though ${since} was seen before it began`);
    this.#floor = Math.max(this.#floor, index);
  }

  #fail(what: string): void {
    this.#sim.fail("history (I16, linearizability, T6)", what);
  }
}
