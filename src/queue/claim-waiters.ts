/**
 * The asked member's side of claims: who waits here, with which leader the wait is registered, and what
 * becomes of tasks that were claimed for somebody who is gone.
 *
 * The leader never answers a claim: this member learns the outcome by applying it. So a wait survives an
 * election; it is offered to the next leader, and what the last one had proposed counts all the same.
 *
 * A worker outside may have asked for the same request elsewhere, and been granted tasks that the leader logged and has
 * not applied itself, or that another leader logged which this one has not heard of. So nobody outside is told that
 * there is nothing before a linearizable read says so; until then the wait stays registered, and what it got stays.
 */
import type { NodeId } from "../raft/types.ts";
import { type Consensus, ConsensusError, type Leadership } from "../replica/consensus.ts";
import type { Clock, Log, Millis } from "../replica/ports.ts";
import type { Signal } from "./commands.ts";
import { Deadlines } from "./deadlines.ts";
import { claimKey } from "./dispatcher.ts";
import { OFFERS_PER_CALL, type OfferBody, parseOfferReply } from "./messages.ts";
import { asQueueError, type Proposer, queueError } from "./proposals.ts";
import type { TaskState } from "./state.ts";
import type { Claim, ClaimRef, ClaimedTask, Directive } from "./types.ts";
import type { LocalWorker } from "./worker-table.ts";

/** Long polls held open by one member. */
const CLAIM_WAITERS_MAX = 10_000;
/** Claims given up whose outcome may still come; those that fall out are left to their leases. */
const WITHDRAWN_MAX = 10_000;
const WITHDRAWN_MS: Millis = 60_000;
/** Directives remembered for a next leader that does not know them. */
const DIRECTIVES_MAX = 10_000;
/** Names and queues listed in one call: with 255 bytes each it stays well below the limit of a frame. */
const LISTED_PER_CALL = 20_000;
/** Until an offer that the leader did not take is made again. */
const REOFFER_MS: Millis = 250;
/**
 * A claim whose time is up, but for which the leader has proposed something: `wait_ms` 0 means one honest
 * look, and the log needs a round or two for it.
 */
const UNDER_WAY_MS: Millis = 1_000;
/** Tries to hand back what nobody waits for any more; after them the leases expire, free of charge too. */
const RELEASE_TRIES = 5;
const RELEASE_RETRY_MS: Millis = 500;

const NO_LEADER = "no leader took the claim within the time limit";

export interface ClaimOutcome {
  readonly tasks: readonly ClaimedTask[];
  readonly directive: Directive;
}

interface Waiter {
  readonly key: string;
  readonly claim: Claim;
  readonly since: Millis;
  readonly deadline: Millis;
  readonly settle: (outcome: ClaimOutcome) => void;
  readonly fail: (error: Error) => void;
  /** Term of the leadership that holds the offer; 0: none. */
  term: number;
  offering: boolean;
  /** The leader has proposed the claim, or will as soon as others are answered. */
  underWay: boolean;
  /** The outcome is being read, however little time there was: it may be in the state, or must be said not to be. */
  reading: boolean;
  /** Its time was over once, and it was given more: to find a leader, or to see what is under way. */
  overdue: boolean;
}

export interface ClaimWaitersOptions {
  readonly consensus: Consensus;
  readonly state: TaskState;
  readonly clock: Clock;
  readonly log: Log;
  readonly proposer: Proposer;
  readonly requestTimeoutMs: Millis;
  /** So that a new leader knows this member's executors by their claims, before a heartbeat of theirs. */
  readonly localWorker: () => LocalWorker | null;
}

export class ClaimWaiters {
  readonly #o: ClaimWaitersOptions;
  readonly #waiting = new Map<string, Waiter>();
  readonly #deadlines: Deadlines<Waiter>;
  /** By key, oldest first. */
  readonly #withdrawn = new Map<string, Millis>();
  readonly #directives = new Map<string, Directive>();
  #term = 0;
  #leader: NodeId | null = null;
  #reofferScheduled = false;
  #probing = false;
  #refusal: (() => Error) | null = null;

  constructor(options: ClaimWaitersOptions) {
    this.#o = options;
    const { clock } = options;
    this.#deadlines = new Deadlines(
      clock,
      () => clock.monotonic(),
      (late) => this.#late(late),
    );
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** What a worker was last told to do, so that a leader that does not know can be told. */
  directive(workerId: string): Directive {
    return this.#directives.get(workerId) ?? "ok";
  }

  heardDirective(workerId: string, directive: Directive): void {
    this.#directives.delete(workerId);
    if (directive === "ok") return;
    this.#directives.set(workerId, directive);
    if (this.#directives.size > DIRECTIVES_MAX) {
      for (const oldest of this.#directives.keys()) {
        this.#directives.delete(oldest);
        break;
      }
    }
  }

  /**
   * An empty answer means that a leader had nothing, never that there was none; and, outside of this member, that
   * nothing is held for this request, whoever was asked before.
   * @throws QueueError overloaded, no-leader, no-quorum, stopping
   */
  wait(claim: Claim, waitMs: Millis, signal: AbortSignal | null): Promise<ClaimOutcome> {
    const { clock } = this.#o;
    if (this.#refusal !== null) return Promise.reject(this.#refusal());
    if (signal?.aborted === true) return Promise.resolve({ tasks: [], directive: "ok" });
    const key = claimKey(claim);
    // The same request again: whoever sent it has given the earlier wait up.
    this.#waiting.get(key)?.settle({ tasks: [], directive: "ok" });
    if (this.#waiting.size >= CLAIM_WAITERS_MAX) {
      return Promise.reject(
        queueError("overloaded", `${CLAIM_WAITERS_MAX} claims wait on this member already`),
      );
    }
    this.#withdrawn.delete(key);
    const { promise, resolve, reject } = Promise.withResolvers<ClaimOutcome>();
    const abort = (): void => this.#giveUp(waiter);
    const remove = (): void => {
      // It may have been given up, and the same request wait again.
      if (this.#waiting.get(key) === waiter) this.#waiting.delete(key);
      this.#deadlines.delete(waiter);
      signal?.removeEventListener("abort", abort);
    };
    const since = clock.monotonic();
    const waiter: Waiter = {
      key,
      claim,
      since,
      deadline: since + waitMs,
      settle: (outcome) => {
        remove();
        resolve(outcome);
      },
      fail: (error) => {
        remove();
        reject(error);
      },
      term: 0,
      offering: false,
      underWay: false,
      reading: false,
      overdue: false,
    };
    signal?.addEventListener("abort", abort, { once: true });
    this.#waiting.set(key, waiter);
    this.#deadlines.set(waiter, waiter.deadline);
    if (this.#leader === null) this.#probe();
    else this.#offer([waiter]);
    return promise;
  }

  applied(signals: readonly Signal[]): void {
    const claimed = new Map<string, { claim: Claim; tasks: ClaimedTask[] }>();
    // The tasks of a claim follow one another, and hold the same object.
    let last: Claim | null = null;
    let tasks: ClaimedTask[] | null = null;
    for (const signal of signals) {
      if (signal.type !== "claimed") continue;
      const { claim, task } = signal;
      if (claim !== last) {
        last = claim;
        const key = claimKey(claim);
        tasks = null;
        if (this.#waiting.has(key) || this.#withdrawn.has(key)) {
          tasks = claimed.get(key)?.tasks ?? [];
          claimed.set(key, { claim, tasks });
        }
      }
      tasks?.push(task);
    }
    for (const [key, { claim, tasks: taken }] of claimed) {
      const waiter = this.#waiting.get(key);
      if (waiter !== undefined) {
        // An earlier wait of this request may have got them, and they may be given back already: read when that is known.
        const isEarlier = waiter.reading || !this.#isRegistered(waiter);
        if (claim.local !== null || !isEarlier)
          waiter.settle({ tasks: taken, directive: this.directive(claim.worker_id) });
        continue;
      }
      this.#withdrawn.delete(key);
      // Its key holds the answer: whoever repeats it, here or elsewhere, gets these tasks and must still have them.
      if (claim.idem === undefined) void this.#handBack(claim, taken);
    }
  }

  onLeadership({ leader, term }: Leadership): void {
    this.#leader = leader;
    this.#term = term;
    if (leader !== null) this.#offer([...this.#waiting.values()]);
    else if (this.#waiting.size > 0) this.#probe();
  }

  /** A snapshot replaced the state without signals: what was claimed meanwhile is asked of the leader. */
  recheck(): void {
    for (const waiter of this.#waiting.values()) waiter.term = 0;
    this.#offer([...this.#waiting.values()]);
  }

  /** The leader says that this request's outcome is in the state. */
  known(ref: ClaimRef): void {
    const waiter = this.#waiting.get(claimKey(ref));
    if (waiter !== undefined) void this.#read(waiter);
  }

  /** The leader proposed it, and it got nothing: it waits there again. */
  returned(ref: ClaimRef): void {
    const waiter = this.#waiting.get(claimKey(ref));
    if (waiter === undefined || waiter.reading) return;
    waiter.underWay = false;
    if (waiter.overdue) this.#answerEmpty(waiter);
  }

  refused(ref: ClaimRef, error: Error): void {
    this.#waiting.get(claimKey(ref))?.fail(error);
  }

  /** The worker shall stop asking: its waits are answered with that. */
  directed(workerId: string, directive: Directive): void {
    this.heardDirective(workerId, directive);
    if (directive === "ok") return;
    for (const waiter of this.#waiting.values()) {
      if (waiter.claim.worker_id !== workerId) continue;
      if (waiter.claim.local === null) this.#timeUp(waiter);
      else this.#settleEmpty(waiter, directive);
    }
  }

  /** This member takes no more work: local waits end with `terminate` at once, those of others with what they got. */
  drain(): void {
    for (const waiter of this.#waiting.values()) {
      if (waiter.claim.local === null) this.#timeUp(waiter);
      else this.#settleEmpty(waiter, "terminate");
    }
  }

  stop(refusal: () => Error): void {
    this.#refusal = refusal;
    for (const waiter of this.#waiting.values()) waiter.fail(refusal());
    this.#deadlines.clear();
  }

  // ------------------------------------------------------------------ with the leader

  /** Registers waits with the leader, those that are not yet, in pieces. */
  #offer(waiters: readonly Waiter[]): void {
    if (this.#leader === null) return;
    let piece: Waiter[] = [];
    let listed = 0;
    const send = (): void => {
      if (piece.length > 0) void this.#offerPiece(piece);
      piece = [];
      listed = 0;
    };
    for (const waiter of waiters) {
      if (waiter.offering || waiter.term >= this.#term) continue;
      const { names, queues } = waiter.claim;
      listed += (names?.length ?? 0) + (queues?.length ?? 0);
      if (piece.length >= OFFERS_PER_CALL || listed > LISTED_PER_CALL) send();
      piece.push(waiter);
    }
    send();
  }

  async #offerPiece(waiters: readonly Waiter[]): Promise<void> {
    const { clock, consensus, requestTimeoutMs } = this.#o;
    const now = clock.monotonic();
    const local = this.#o.localWorker();
    const body: OfferBody = {
      offers: waiters.map(({ claim, deadline }) => ({
        claim,
        // Whoever leaves sooner withdraws it.
        ttl_ms: Math.max(UNDER_WAY_MS, Math.ceil(deadline - now)),
        directive: this.directive(claim.worker_id),
        info: claim.worker_id === local?.id ? local.info : null,
      })),
    };
    for (const waiter of waiters) waiter.offering = true;
    try {
      const reply = parseOfferReply(
        await consensus.call("claim.offer", body, requestTimeoutMs),
        waiters.length,
      );
      for (const [index, waiter] of waiters.entries()) {
        const answer = reply.answers[index];
        waiter.offering = false;
        if (answer === undefined) continue;
        if (this.#waiting.get(waiter.key) !== waiter) {
          // Given up while the offer was on its way, perhaps past the word of it.
          if (!this.#waiting.has(waiter.key)) this.#tellWithdrawn(waiter.claim);
          continue;
        }
        waiter.term = reply.term;
        this.heardDirective(waiter.claim.worker_id, answer.directive);
        if (answer.directive !== "ok" && answer.state !== "known") {
          this.#answerEmpty(waiter);
          continue;
        }
        switch (answer.state) {
          case "parked":
            waiter.underWay = answer.underWay;
            if (this.#isBehind(waiter)) void this.#read(waiter);
            else if (waiter.overdue) this.#overdue(waiter);
            break;
          case "known":
            void this.#read(waiter);
            break;
          case "full":
            waiter.fail(
              queueError("overloaded", "the leader holds too many waiting claims already"),
            );
            break;
        }
      }
      // A leader may have gone between its answer and now.
      this.#offer(waiters.filter((waiter) => this.#waiting.get(waiter.key) === waiter));
    } catch (error) {
      this.#offerFailed(waiters, error);
    }
  }

  #offerFailed(waiters: readonly Waiter[], error: unknown): void {
    const { clock, requestTimeoutMs } = this.#o;
    const now = clock.monotonic();
    const stopping = error instanceof ConsensusError && error.reason === "stopping";
    let left = false;
    for (const waiter of waiters) {
      waiter.offering = false;
      if (this.#waiting.get(waiter.key) !== waiter) continue;
      const neverTaken = waiter.term === 0 && now - waiter.since >= requestTimeoutMs;
      if (stopping || neverTaken || !(error instanceof ConsensusError))
        waiter.fail(asQueueError(error));
      else left = true;
    }
    if (!left || this.#reofferScheduled) return;
    this.#reofferScheduled = true;
    clock.after(REOFFER_MS, () => {
      this.#reofferScheduled = false;
      this.#offer([...this.#waiting.values()]);
    });
  }

  /** The leader parked what this member knows the outcome of: it will not apply that once more. */
  #isBehind({ claim }: Waiter): boolean {
    return claim.local === null && this.#o.state.claimAnswer(claim) !== null;
  }

  /**
   * What this request got, as of now: read once this member has applied all that was acknowledged anywhere. The leader
   * knows of the wait, so that nobody else gives that back meanwhile.
   */
  async #read(waiter: Waiter): Promise<void> {
    const { claim } = waiter;
    const { worker_id } = claim;
    if (waiter.reading) return;
    waiter.reading = true;
    try {
      await this.#o.consensus.linearize(this.#o.requestTimeoutMs);
      if (this.#waiting.get(waiter.key) !== waiter) return;
      const tasks = this.#o.state.claimAnswer(claim);
      if (tasks === null) {
        this.#settleEmpty(waiter, this.directive(worker_id));
        return;
      }
      if (claim.idem !== undefined) {
        // What is known goes under the key, or is what the key holds already.
        const { value } = await this.#o.proposer.propose({ type: "claim", ...claim }, "claimed", {
          weight: claim.max,
        });
        waiter.settle({ tasks: value.tasks, directive: this.directive(worker_id) });
        return;
      }
      waiter.settle({ tasks, directive: this.directive(worker_id) });
    } catch (error) {
      if (this.#waiting.get(waiter.key) === waiter) this.#failWithout(waiter, asQueueError(error));
    }
  }

  // ------------------------------------------------------------------ giving up

  #late(late: readonly Waiter[]): void {
    for (const waiter of late) {
      // An empty answer would hide tasks that are there; the read has a time limit of its own.
      if (waiter.reading) continue;
      if (!waiter.overdue) this.#timeUp(waiter);
      else if (this.#isParked(waiter)) this.#answerEmpty(waiter);
      else this.#failWithout(waiter, queueError("no-leader", NO_LEADER));
    }
  }

  /** The time that it may wait for a task is over, or cut short; what follows takes as long as it takes. */
  #timeUp(waiter: Waiter): void {
    if (waiter.overdue || waiter.reading) return;
    const { clock, requestTimeoutMs } = this.#o;
    waiter.overdue = true;
    if (this.#isParked(waiter)) this.#overdue(waiter);
    // An empty answer would say that there is nothing to do. As patient as a write from here on.
    else this.#deadlines.set(waiter, clock.monotonic() + requestTimeoutMs);
  }

  /** A leader holds it, and its time is up. */
  #overdue(waiter: Waiter): void {
    if (waiter.underWay) this.#deadlines.set(waiter, this.#o.clock.monotonic() + UNDER_WAY_MS);
    else this.#answerEmpty(waiter);
  }

  #isParked(waiter: Waiter): boolean {
    return this.#leader !== null && this.#isRegistered(waiter);
  }

  /** The newest leader that this member knows of has this wait, or had it. */
  #isRegistered({ term }: Waiter): boolean {
    return term > 0 && term >= this.#term;
  }

  /** Its wait is over, and nothing came. This member's own executors ask here alone, and would have heard of it. */
  #answerEmpty(waiter: Waiter): void {
    if (waiter.claim.local === null) void this.#read(waiter);
    else this.#settleEmpty(waiter, this.directive(waiter.claim.worker_id));
  }

  #settleEmpty(waiter: Waiter, directive: Directive): void {
    this.#withdraw(waiter);
    waiter.settle({ tasks: [], directive });
  }

  /** What an earlier leader proposed for it may still happen, and is handed back then. */
  #failWithout(waiter: Waiter, error: Error): void {
    this.#withdraw(waiter);
    waiter.fail(error);
  }

  /**
   * Nobody leads: asks for a read, which waits out an election and fails as soon as a quorum is missing, and
   * refuses what waits outside then. This member's own executors have nobody else to ask, and go on waiting.
   */
  #probe(): void {
    if (this.#probing) return;
    this.#probing = true;
    const { consensus, requestTimeoutMs } = this.#o;
    consensus.linearize(requestTimeoutMs).then(
      () => {
        this.#probing = false;
      },
      (error: unknown) => {
        this.#probing = false;
        for (const waiter of this.#waiting.values()) {
          if (waiter.claim.local !== null || this.#isParked(waiter)) continue;
          this.#failWithout(waiter, asQueueError(error));
        }
      },
    );
  }

  #giveUp(waiter: Waiter): void {
    this.#withdraw(waiter);
    waiter.settle({ tasks: [], directive: "ok" });
  }

  /** Tells the leader, and remembers to hand back what the claim may get all the same. */
  #withdraw({ key, claim }: Waiter): void {
    this.#tellWithdrawn(claim);
    const now = this.#o.clock.monotonic();
    for (const [other, until] of this.#withdrawn) {
      if (until > now && this.#withdrawn.size < WITHDRAWN_MAX) break;
      this.#withdrawn.delete(other);
    }
    this.#withdrawn.delete(key);
    this.#withdrawn.set(key, now + WITHDRAWN_MS);
  }

  #tellWithdrawn(claim: Claim): void {
    if (this.#leader !== null)
      this.#o.consensus.notify(this.#leader, "claim.withdraw", refOf(claim));
  }

  /**
   * Tasks of a claim that was given up here. The leader gives them back, unless the request was repeated meanwhile; one of
   * an earlier build says that this member shall.
   */
  async #handBack(claim: Claim, tasks: readonly ClaimedTask[]): Promise<void> {
    if (claim.local !== null || (await this.#isAbandoned(claim))) await this.#release(claim, tasks);
  }

  async #isAbandoned(claim: Claim): Promise<boolean> {
    const { consensus, log, requestTimeoutMs } = this.#o;
    try {
      return (await consensus.call("claim.abandoned", refOf(claim), requestTimeoutMs)) === true;
    } catch (error) {
      // Nobody can tell: their leases expire, free of charge.
      log.debug("who has the tasks of a claim is not known", { error: String(error) });
      return false;
    }
  }

  async #release(claim: Claim, tasks: readonly ClaimedTask[]): Promise<void> {
    const { clock, log, proposer } = this.#o;
    const items = tasks.map(({ id, lease: { attempt, fence } }) => ({
      task_id: id,
      attempt,
      fence,
      end: { kind: "release" } as const,
    }));
    const { worker_id, principal } = claim;
    for (let attempt = 1; ; attempt++) {
      try {
        await proposer.propose({ type: "end", worker_id, principal, items }, "ended", {
          weight: items.length,
        });
        return;
      } catch (error) {
        if (this.#refusal !== null || attempt >= RELEASE_TRIES) {
          log.warn("tasks claimed for nobody could not be handed back; their leases will expire", {
            worker: worker_id,
            tasks: items.length,
            error: String(error),
          });
          return;
        }
        await new Promise<void>((resolve) => {
          clock.after(RELEASE_RETRY_MS, resolve);
        });
      }
    }
  }
}

function refOf({ worker_id, request_id, principal }: ClaimRef): ClaimRef {
  return { worker_id, request_id, principal };
}
