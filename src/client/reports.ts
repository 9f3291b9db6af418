/**
 * Tells the cluster how attempts ended: completions of one turn, and those that come while a request is under
 * way, in one request; failures and releases alike, snoozes one by one, a few at a time. What is not answered yet
 * is repeated, and its lease is kept alive by the worker meanwhile.
 */
import { FlotillaError } from "./error.ts";
import type { Completion, LeaseCalls } from "./lease-calls.ts";
import { unacceptable, type Outcome } from "./outcome.ts";
import { fieldsSummary, refusedItems } from "./refused-items.ts";
import type { CompletedAnswer, CompletionStatus, LeaseRef } from "./types.ts";

const COMPLETIONS_MAX = 1_000;
/** UTF-16 units; with three bytes each still below the 8 MiB of a body. */
const COMPLETIONS_LENGTH_MAX = 2 * 1024 * 1024;
const BULK_IN_FLIGHT = 2;
const SINGLES_IN_FLIGHT = 8;
/** Failures in one request: with their stacks below the 8 MiB of a body, unless they are beyond measure. */
const GROUP_MAX = 100;
/** An end that nobody accepted for so long is given up: its lease is over, and the task runs again. */
const REPORT_MS = 60_000;

export type Ending = Outcome | { readonly kind: "release" };

interface Report {
  readonly lease: LeaseRef;
  readonly ending: Exclude<Ending, { kind: "complete" }>;
}

export interface ReportHooks {
  /** The cluster has taken the end. */
  accepted(lease: LeaseRef): void;
  /** The cluster did not accept the end: the lease was over. */
  rejected(lease: LeaseRef, code: string): void;
  /** It could not be told at all. */
  failed(lease: LeaseRef, error: FlotillaError): void;
  /** Something was answered. */
  progressed(): void;
}

export class Reports {
  readonly #calls: LeaseCalls;
  readonly #workerId: string;
  readonly #hooks: ReportHooks;
  /** By fence. */
  readonly #unanswered = new Map<number, LeaseRef>();
  readonly #completions: Completion[] = [];
  readonly #singles: Report[] = [];
  #bulkInFlight = 0;
  #singlesInFlight = 0;
  #flushAsked = false;

  constructor(calls: LeaseCalls, workerId: string, hooks: ReportHooks) {
    this.#calls = calls;
    this.#workerId = workerId;
    this.#hooks = hooks;
  }

  /** Leases whose end was not answered yet. */
  get unanswered(): ReadonlyMap<number, LeaseRef> {
    return this.#unanswered;
  }

  end(lease: LeaseRef, ending: Ending): void {
    this.#unanswered.set(lease.fence, lease);
    if (ending.kind === "complete") this.#completions.push({ ...lease, result: ending.result });
    else this.#singles.push({ lease, ending });
    this.#askFlush();
  }

  #askFlush(): void {
    if (this.#flushAsked) return;
    this.#flushAsked = true;
    setImmediate(() => {
      this.#flushAsked = false;
      this.#flush();
    });
  }

  #flush(): void {
    while (this.#completions.length > 0 && this.#bulkInFlight < BULK_IN_FLIGHT) {
      void this.#sendBulk(this.#take());
    }
    while (this.#singlesInFlight < SINGLES_IN_FLIGHT) {
      const group = this.#takeGroup();
      const [report] = group;
      if (report === undefined) break;
      if (group.length === 1) void this.#sendSingle(report);
      else void this.#sendGroup(group);
    }
  }

  /** The reports at the front that one request may hold. */
  #takeGroup(): Report[] {
    const kind = this.#singles[0]?.ending.kind;
    const other = this.#singles.findIndex(({ ending }) => ending.kind !== kind);
    const alike = other === -1 ? this.#singles.length : other;
    return this.#singles.splice(0, kind === "snooze" ? 1 : Math.min(alike, GROUP_MAX));
  }

  async #sendGroup(group: readonly Report[]): Promise<void> {
    this.#singlesInFlight += 1;
    let refused = false;
    try {
      const { items } = await this.#tellAll(group);
      for (const [index, { lease }] of group.entries())
        this.#answered(lease, items[index]?.status ?? "not-found");
    } catch (error) {
      const failure = asFlotillaError(error);
      // One that is not acceptable must not take the others with it; and an older member knows no groups.
      refused = [400, 404, 405, 413].includes(failure.status ?? 0);
      if (!refused) for (const { lease } of group) this.#gaveUp(lease, failure);
    }
    this.#singlesInFlight -= 1;
    if (refused) for (const report of group) await this.#sendSingle(report);
    else this.#settled();
  }

  #tellAll(group: readonly Report[]): Promise<CompletedAnswer> {
    const options = { timeoutMs: REPORT_MS };
    const failures = group.flatMap(({ lease, ending }) =>
      ending.kind === "fail" ? [{ ...lease, ...ending.failure }] : [],
    );
    return failures.length > 0
      ? this.#calls.failAll(this.#workerId, failures, options)
      : this.#calls.releaseAll(
          this.#workerId,
          group.map(({ lease }) => lease),
          options,
        );
  }

  #take(): Completion[] {
    let length = 0;
    let count = 0;
    for (const { result } of this.#completions) {
      length += result?.length ?? 0;
      if (count === COMPLETIONS_MAX || (count > 0 && length > COMPLETIONS_LENGTH_MAX)) break;
      count += 1;
    }
    return this.#completions.splice(0, count);
  }

  async #sendBulk(batch: Completion[]): Promise<void> {
    this.#bulkInFlight += 1;
    const pieces = [batch];
    for (let piece = pieces.pop(); piece !== undefined; piece = pieces.pop()) {
      try {
        const { items } = await this.#calls.complete(this.#workerId, piece, {
          timeoutMs: REPORT_MS,
        });
        for (const [index, item] of piece.entries()) {
          this.#answered(item, items[index]?.status ?? "not-found");
        }
      } catch (error) {
        pieces.push(...this.#refused(piece, asFlotillaError(error)));
      }
    }
    this.#bulkInFlight -= 1;
    this.#settled();
  }

  /** Results that are not acceptable fail their own tasks only; returns what is to be sent again. */
  #refused(piece: Completion[], error: FlotillaError): Completion[][] {
    const aboutResults = error.status === 400 || error.status === 413;
    if (!aboutResults) {
      for (const item of piece) this.#gaveUp(item, error);
      return [];
    }
    const named = refusedItems(error, "items");
    if (named.size > 0) {
      for (const [index, errors] of named) {
        const item = piece[index];
        if (item !== undefined) this.#failInstead(item, error.code, fieldsSummary(errors));
      }
      const again = piece.filter((_, index) => !named.has(index));
      return again.length === 0 ? [] : [again];
    }
    const [only] = piece;
    if (piece.length === 1 && only !== undefined) {
      this.#failInstead(only, error.code, error.message);
      return [];
    }
    const half = piece.length >> 1;
    return [piece.slice(half), piece.slice(0, half)];
  }

  #failInstead({ task_id, attempt, fence }: Completion, code: string, message: string): void {
    const type = code === "result-too-large" ? "ResultTooLarge" : "UnacceptableResult";
    this.end({ task_id, attempt, fence }, unacceptable(type, message));
  }

  async #sendSingle({ lease, ending }: Report): Promise<void> {
    this.#singlesInFlight += 1;
    try {
      await this.#tell(lease, ending);
      this.#answered(lease, "ok");
    } catch (error) {
      const failure = asFlotillaError(error);
      const { status } = failure;
      if (status === 403 || status === 404 || status === 409) {
        this.#unanswered.delete(lease.fence);
        this.#hooks.rejected(lease, failure.code);
      } else this.#gaveUp(lease, failure);
    }
    this.#singlesInFlight -= 1;
    this.#settled();
  }

  #tell(lease: LeaseRef, ending: Report["ending"]): Promise<unknown> {
    const options = { timeoutMs: REPORT_MS };
    switch (ending.kind) {
      case "fail":
        return this.#calls.fail(this.#workerId, lease, ending.failure, options);
      case "snooze":
        return this.#calls.snooze(this.#workerId, lease, ending.delayMs, options);
      case "release":
        return this.#calls.release(this.#workerId, lease, options);
    }
  }

  #answered(lease: LeaseRef, status: CompletionStatus): void {
    this.#unanswered.delete(lease.fence);
    if (status === "ok") this.#hooks.accepted(lease);
    else this.#hooks.rejected(lease, status);
  }

  #gaveUp(lease: LeaseRef, error: FlotillaError): void {
    this.#unanswered.delete(lease.fence);
    this.#hooks.failed(lease, error);
  }

  #settled(): void {
    this.#askFlush();
    this.#hooks.progressed();
  }
}

function asFlotillaError(error: unknown): FlotillaError {
  if (error instanceof FlotillaError) return error;
  return new FlotillaError("unexpected-answer", String(error), { cause: error });
}
