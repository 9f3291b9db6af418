/**
 * Keeps the pool's free slots covered by claims that wait at the leader, and what may wait for a slot by others,
 * which the leader serves behind those of every member. The sum of what the outstanding claims may bring never
 * exceeds the room there is, so that no task is claimed for which there is none.
 */
import type { Clock, Log, Timer } from "../replica/ports.ts";
import { LIMITS, type Claim, type ClaimedTask, type Directive } from "../queue/types.ts";
import { mayPass, messageOf, retryDelayMs, type ExecutorQueue } from "./queue-port.ts";

/** An empty answer that came sooner was not a long poll that ran out. */
const EMPTY_ANSWER_MIN_MS = 1_000;
/** So many names of processes: eight letters or digits each. */
const PROCESSES = 36 ** 8;
/** Between two claims for free slots while runs are so short that slots come free by the dozen meanwhile. */
const PACE_MS = 2;
/** Claims ahead are for this share of their room at least: several small ones would cost as many commands. */
const AHEAD_SHARE = 1 / 4;

export interface ClaimerHooks {
  /** Slots that a claim may be made for, those of outstanding claims included. */
  free(): number;
  /**
   * How many tasks may wait for a slot, and how many more than wait now, those of outstanding claims included;
   * null: none shall at all.
   */
  ahead(): { readonly room: number; readonly left: number } | null;
  claimed(tasks: readonly ClaimedTask[]): void;
  directive(directive: Directive): void;
  /** Asks for `cover` at the end of the turn, after the ends of what ran: a claim must not overtake them. */
  uncovered(): void;
}

interface OutstandingClaim {
  readonly requestId: string;
  readonly max: number;
  readonly ahead: boolean;
  readonly controller: AbortController;
  failures: number;
  retry: Timer | null;
}

export class Claimer {
  readonly #queue: ExecutorQueue;
  readonly #template: Omit<Claim, "request_id" | "max">;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #log: Log;
  readonly #hooks: ClaimerHooks;
  readonly #outstanding = new Set<OutstandingClaim>();
  #reserved = 0;
  #reservedAhead = 0;
  /**
   * Tells this process's requests from all others': the worker id holds the boot, but a folder that was lost counts
   * its boots from one again, and must not be given what the earlier one claimed.
   */
  readonly #process: string;
  #nextRequest = 1;
  #empties = 0;
  /** When slots that were free were claimed for last; monotonic. */
  #coveredAt = Number.NEGATIVE_INFINITY;
  #pace: Timer | null = null;
  #paused = false;
  #stopped = false;

  constructor(
    queue: ExecutorQueue,
    template: Omit<Claim, "request_id" | "max">,
    clock: Clock,
    random: () => number,
    log: Log,
    hooks: ClaimerHooks,
  ) {
    this.#queue = queue;
    this.#template = template;
    this.#clock = clock;
    this.#random = random;
    this.#process = Math.floor(random() * PROCESSES).toString(36);
    this.#log = log;
    this.#hooks = hooks;
  }

  /** Sum of `max` of the claims that wait. */
  get reserved(): number {
    return this.#reserved;
  }

  /** Claims for every free slot that no claim covers yet. */
  cover(): void {
    if (this.#stopped || this.#paused) return;
    const ahead = this.#hooks.ahead();
    const free = this.#hooks.free() - this.#reserved;
    if (free > 0 && (ahead === null || this.#mayHurry())) this.#cover(free, false);
    if (ahead === null) {
      this.#withdraw((claim) => claim.ahead);
      return;
    }
    const uncovered = ahead.left - this.#reservedAhead;
    if (uncovered >= ahead.room * AHEAD_SHARE) this.#cover(uncovered, true);
  }

  /** False: a moment ago there was a claim for free slots; `cover` is asked for when the next one may follow. */
  #mayHurry(): boolean {
    if (this.#pace !== null) return false;
    const sinceMs = this.#clock.monotonic() - this.#coveredAt;
    if (sinceMs >= PACE_MS) return true;
    this.#pace = this.#clock.after(PACE_MS - sinceMs, () => {
      this.#pace = null;
      this.#coveredAt = Number.NEGATIVE_INFINITY;
      this.#hooks.uncovered();
    });
    return false;
  }

  #cover(uncovered: number, ahead: boolean): void {
    if (uncovered <= 0) return;
    const requestId = `${this.#process}-${this.#nextRequest}`;
    this.#nextRequest += 1;
    const claim: OutstandingClaim = {
      requestId,
      max: Math.min(uncovered, LIMITS.claimMax),
      ahead,
      controller: new AbortController(),
      failures: 0,
      retry: null,
    };
    this.#outstanding.add(claim);
    if (ahead) {
      this.#reservedAhead += claim.max;
    } else {
      this.#reserved += claim.max;
      this.#coveredAt = this.#clock.monotonic();
    }
    void this.#ask(claim);
  }

  /** "quiet": takes no new work until resumed; the claims that wait are withdrawn. */
  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#withdraw(() => true);
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#hooks.uncovered();
  }

  /** Withdraws every claim; none will be made any more. */
  stop(): void {
    this.#stopped = true;
    this.#pace?.cancel();
    this.#withdraw(() => true);
  }

  #withdraw(which: (claim: OutstandingClaim) => boolean): void {
    for (const claim of this.#outstanding) {
      if (!which(claim)) continue;
      claim.controller.abort();
      // One between two tries has no answer to wait for.
      if (claim.retry === null) continue;
      claim.retry.cancel();
      this.#settle(claim);
    }
  }

  #settle(claim: OutstandingClaim): void {
    if (!this.#outstanding.delete(claim)) return;
    if (claim.ahead) this.#reservedAhead -= claim.max;
    else this.#reserved -= claim.max;
  }

  async #ask(claim: OutstandingClaim): Promise<void> {
    const askedAt = this.#clock.monotonic();
    let answer: Awaited<ReturnType<ExecutorQueue["claim"]>>;
    try {
      answer = await this.#queue.claim(
        {
          ...this.#template,
          request_id: claim.requestId,
          max: claim.max,
          ...(claim.ahead ? { ahead: true } : {}),
        },
        LIMITS.waitMs,
        claim.controller.signal,
      );
    } catch (error) {
      this.#failed(claim, error);
      return;
    }
    this.#settle(claim);
    if (answer.tasks.length > 0) this.#hooks.claimed(answer.tasks);
    // What a withdrawn claim was told is older than why it was withdrawn.
    if (!claim.controller.signal.aborted) this.#hooks.directive(answer.directive);
    const heldMs = this.#clock.monotonic() - askedAt;
    if (answer.tasks.length > 0 || heldMs >= EMPTY_ANSWER_MIN_MS) {
      this.#empties = 0;
      this.#hooks.uncovered();
      return;
    }
    // A queue that cannot hold claims must not be asked in a tight loop.
    this.#empties += 1;
    this.#clock.after(retryDelayMs(this.#empties, this.#random), () => this.#hooks.uncovered());
  }

  /** The same request again: when the lost answer held tasks, the repeat brings those very tasks. */
  #failed(claim: OutstandingClaim, error: unknown): void {
    if (claim.controller.signal.aborted) {
      this.#settle(claim);
      this.#hooks.uncovered();
      return;
    }
    const delayMs = retryDelayMs(claim.failures, this.#random);
    claim.failures += 1;
    if (claim.failures === 1)
      this.#log[mayPass(error) ? "debug" : "warn"]("a claim failed and is tried again", {
        error: messageOf(error),
      });
    claim.retry = this.#clock.after(delayMs, () => {
      claim.retry = null;
      void this.#ask(claim);
    });
  }
}
