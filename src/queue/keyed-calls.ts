/**
 * Calls with an Idempotency-Key that the log alone does not settle (docs/api.md): heartbeats and
 * directives live in the leader's memory, and a claim waits there. Ends and reports are commands, and only say
 * here whether they were the first.
 *
 * A heartbeat under a key costs a log entry, which one without does not (T6): its answer is put on record, and
 * the first on record is everybody's. A repeat keeps no lease alive.
 */
import type { Clock, Millis } from "../replica/ports.ts";
import type { ClaimOutcome, ClaimWaiters } from "./claim-waiters.ts";
import type { AnswerValue, Remembered } from "./commands.ts";
import { expectValue, type Outcome, type Proposer, queueError } from "./proposals.ts";
import type { ReportGatherer, ReportItem } from "./report-gatherer.ts";
import type { HeartbeatAnswer, Keyed, KeyedQueue, TaskQueue } from "./service.ts";
import type { TaskState } from "./state.ts";
import type {
  Claim,
  HeartbeatLease,
  IdempotencyScope,
  LeaseEnd,
  LeaseEndAnswer,
  LeaseRef,
} from "./types.ts";

export interface KeyedClaim extends Claim {
  readonly idem: IdempotencyScope;
}

export interface KeyedCallsOptions {
  readonly queue: Pick<TaskQueue, "heartbeat" | "quiet">;
  readonly state: TaskState;
  readonly clock: Clock;
  readonly proposer: Proposer;
  readonly reports: ReportGatherer;
  readonly claims: ClaimWaiters;
  /** Resolves once this member has applied what was acknowledged before. @throws QueueError */
  readonly current: () => Promise<void>;
}

interface Waiting {
  readonly hash: string;
  /** Null: it failed. */
  readonly outcome: Promise<ClaimOutcome | null>;
}

export class KeyedCalls implements KeyedQueue {
  readonly #o: KeyedCallsOptions;
  /** Claims waiting at this member, by scope; as many at most as claims may wait. */
  readonly #waiting = new Map<string, Waiting>();

  constructor(options: KeyedCallsOptions) {
    this.#o = options;
  }

  async known(scope: IdempotencyScope): Promise<boolean> {
    await this.#o.current();
    return this.#o.state.keyedAnswer(scope) !== null;
  }

  async end(
    scope: IdempotencyScope,
    workerId: string,
    items: readonly (LeaseRef & { readonly end: LeaseEnd })[],
  ): Promise<Keyed<readonly LeaseEndAnswer[]>> {
    const { principal } = scope;
    this.#o.reports.flush(workerId, principal, items);
    const { value, replayed } = await this.#o.proposer.propose(
      { type: "end", worker_id: workerId, principal, items, idem: scope },
      "ended",
      { weight: items.length },
    );
    return { value: value.items, replayed };
  }

  /** A command of its own, so that the key is its alone; what was gathered before goes before it. */
  async report(
    scope: IdempotencyScope,
    workerId: string,
    items: readonly ReportItem[],
  ): Promise<Keyed<readonly LeaseEndAnswer[]>> {
    const { principal } = scope;
    this.#o.reports.flush(workerId, principal, items);
    const { value, replayed } = await this.#o.proposer.propose(
      { type: "report", worker_id: workerId, principal, items, idem: scope },
      "ended",
      { weight: items.length },
    );
    return { value: value.items, replayed };
  }

  async heartbeat(
    scope: IdempotencyScope,
    workerId: string,
    leases: readonly HeartbeatLease[],
  ): Promise<Keyed<HeartbeatAnswer>> {
    let said = await this.#before(scope, "remembered");
    if (said === null) {
      const answer = await this.#o.queue.heartbeat(workerId, scope.principal, leases);
      said = await this.#remember(scope, { kind: "heartbeat", ...answer });
    }
    const { answer } = said.value;
    if (answer.kind !== "heartbeat") throw new Error(`a heartbeat's key holds ${answer.kind}`);
    const { verdicts, directive } = answer;
    return { value: { verdicts, directive }, replayed: said.replayed };
  }

  /** An unknown worker changes nothing, so that nothing is kept of it. */
  async quiet(scope: IdempotencyScope, workerId: string): Promise<Keyed<boolean>> {
    let said = await this.#before(scope, "remembered");
    if (said === null) {
      if (!(await this.#o.queue.quiet(workerId))) return { value: false, replayed: false };
      said = await this.#remember(scope, { kind: "quiet" });
    }
    return { value: true, replayed: said.replayed };
  }

  /**
   * With tasks the directive is always `ok`, then and again: it is not part of what is kept, and a worker that
   * has work hears of another one with its next call.
   */
  async claim(
    claim: KeyedClaim,
    waitMs: Millis,
    signal: AbortSignal | null,
  ): Promise<ClaimOutcome & { readonly replayed: boolean }> {
    const { clock, claims } = this.#o;
    const { idem } = claim;
    const until = clock.monotonic() + waitMs;
    const before = await this.#before(idem, "claimed");
    if (before !== null) return { tasks: before.value.tasks, directive: "ok", replayed: true };
    const key = JSON.stringify([idem.principal, idem.route, idem.key]);
    for (;;) {
      const other = this.#waiting.get(key);
      if (other === undefined) break;
      if (other.hash !== idem.hash)
        throw queueError(
          "idempotency-mismatch",
          "a claim with another body waits under this idempotency key",
        );
      const outcome = await other.outcome;
      if (outcome !== null && outcome.tasks.length > 0)
        return { tasks: outcome.tasks, directive: "ok", replayed: true };
      if (signal?.aborted === true) return { tasks: [], directive: "ok", replayed: false };
      if (this.#waiting.get(key) === other) this.#waiting.delete(key);
    }
    const wait = claims.wait(claim, Math.max(0, until - clock.monotonic()), signal);
    const waiting: Waiting = { hash: idem.hash, outcome: wait.catch(() => null) };
    this.#waiting.set(key, waiting);
    try {
      const { tasks, directive } = await wait;
      return { tasks, directive: tasks.length > 0 ? "ok" : directive, replayed: false };
    } finally {
      if (this.#waiting.get(key) === waiting) this.#waiting.delete(key);
    }
  }

  /** Does `act`, unless an answer of this kind is kept under the key already. What it throws is not kept. */
  async once<K extends Remembered["kind"]>(
    scope: IdempotencyScope,
    kind: K,
    act: () => Promise<Extract<Remembered, { readonly kind: K }>>,
  ): Promise<Keyed<Extract<Remembered, { readonly kind: K }>>> {
    let said = await this.#before(scope, "remembered");
    if (said === null) said = await this.#remember(scope, await act());
    const { answer } = said.value;
    if (!isKind(answer, kind)) throw new Error(`a key of ${kind} holds ${answer.kind}`);
    return { value: answer, replayed: said.replayed };
  }

  /** The first answer under this key, if there is one. @throws QueueError idempotency-mismatch */
  async #before<T extends AnswerValue["type"]>(
    scope: IdempotencyScope,
    type: T,
  ): Promise<Outcome<T> | null> {
    await this.#o.current();
    const answer = this.#o.state.keyedAnswer(scope);
    return answer === null ? null : expectValue(answer, type);
  }

  #remember(scope: IdempotencyScope, answer: Remembered): Promise<Outcome<"remembered">> {
    return this.#o.proposer.propose({ type: "remember", answer, idem: scope }, "remembered");
  }
}

function isKind<K extends Remembered["kind"]>(
  answer: Remembered,
  kind: K,
): answer is Extract<Remembered, { readonly kind: K }> {
  return answer.kind === kind;
}
