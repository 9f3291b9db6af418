/**
 * Sends how attempts ended, and what they reported. What happens in one turn of the event loop travels
 * in one call; a call that fails is repeated until it is answered or the lease is long lost. The fence
 * makes a repeat harmless: the queue answers `ok` again, or `stale-lease`.
 */
import type { Clock, Log, Timer } from "../replica/ports.ts";
import type { LeaseEnd, LeaseRef } from "../queue/types.ts";
import type { ReportPart } from "./protocol.ts";
import {
  EXECUTOR_PRINCIPAL,
  mayPass,
  messageOf,
  retryDelayMs,
  type ExecutorQueue,
} from "./queue-port.ts";

/** Items and bytes of one call: a log entry stays well under the request limit of 8 MiB. */
const BATCH_MAX_ITEMS = 500;
const BATCH_MAX_BYTES = 2 * 1024 * 1024;

/** An end that the queue has not answered yet. */
interface PendingEnd {
  readonly lease: LeaseRef;
  readonly end: LeaseEnd;
  readonly bytes: number;
  rest: ReportPart | null;
  /** Monotonic; after it the lease is gone for certain and the end is worth nothing. */
  readonly giveUpAt: number;
  /** Sent alone, because a call that held it was refused as a whole. */
  alone: boolean;
}

export class LeaseEnder {
  readonly #queue: ExecutorQueue;
  readonly #workerId: string;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #log: Log;
  /** Told whenever an end was answered or given up: then `flush` may have something to send again. */
  readonly #settled: () => void;
  /** How many calls may wait for an answer. */
  readonly #callsMax: () => number;
  #waiting: PendingEnd[] = [];
  /** By fence: it is unique in the cluster. */
  readonly #unanswered = new Map<number, PendingEnd>();
  #unansweredBytes = 0;
  #calls = 0;
  #reports = new Map<number, LeaseRef & { progress: ReportPart["progress"]; lines: string[] }>();
  #failures = 0;
  #retry: Timer | null = null;
  #stopped = false;

  constructor(
    queue: ExecutorQueue,
    workerId: string,
    clock: Clock,
    random: () => number,
    log: Log,
    settled: () => void,
    callsMax: () => number,
  ) {
    this.#queue = queue;
    this.#workerId = workerId;
    this.#clock = clock;
    this.#random = random;
    this.#log = log;
    this.#settled = settled;
    this.#callsMax = callsMax;
  }

  /** Ends that were not answered yet; the pool claims less while there are many. */
  get unanswered(): number {
    return this.#unanswered.size;
  }

  /** Of them, those that were not sent, or are to be sent again. */
  get unsent(): number {
    return this.#waiting.length;
  }

  /** About how much they take in the log. */
  get unansweredBytes(): number {
    return this.#unansweredBytes;
  }

  /** Leases of the ends that were not answered yet: they are kept alive until they are. */
  unansweredLeases(): readonly LeaseRef[] {
    return [...this.#unanswered.values()].map((pending) => pending.lease);
  }

  /** Takes an end on; `flush` sends it. `worthMs`: how long it is worth repeating. */
  add(lease: LeaseRef, end: LeaseEnd, rest: ReportPart | null, worthMs: number): void {
    const pending: PendingEnd = {
      lease,
      end,
      bytes: sizeOf(end),
      rest,
      giveUpAt: this.#clock.monotonic() + worthMs,
      alone: false,
    };
    this.#unanswered.set(lease.fence, pending);
    this.#unansweredBytes += pending.bytes;
    this.#waiting.push(pending);
  }

  /** Takes progress and log lines of a running attempt on; `flush` sends them. */
  report(lease: LeaseRef, part: ReportPart): void {
    const gathered = this.#reports.get(lease.fence);
    if (gathered === undefined) {
      this.#reports.set(lease.fence, {
        ...lease,
        progress: part.progress,
        lines: [...part.lines],
      });
      return;
    }
    if (part.progress !== null) gathered.progress = part.progress;
    gathered.lines.push(...part.lines);
  }

  /**
   * Sends everything taken on, reports before ends; while a retry is due, it waits for it. While as many calls
   * as there may be wait for their answers, it gathers for the next one, which leaves when one is answered: so
   * calls grow with the load, and nothing is held back without it.
   */
  flush(): void {
    if (this.#stopped || this.#retry !== null) return;
    const batches = this.#calls < this.#callsMax() ? this.#batches() : [];
    for (const batch of batches) {
      for (const { lease, rest } of batch) if (rest !== null) this.report(lease, rest);
    }
    this.#sendReports();
    for (const batch of batches) void this.#send(batch);
  }

  /** Nothing is sent or repeated any more. */
  stop(): void {
    this.#stopped = true;
    this.#retry?.cancel();
    this.#retry = null;
  }

  #batches(): PendingEnd[][] {
    const batches: PendingEnd[][] = [];
    let batch: PendingEnd[] = [];
    let bytes = 0;
    for (const pending of this.#waiting) {
      if (pending.alone) {
        batches.push([pending]);
        continue;
      }
      if (
        batch.length >= BATCH_MAX_ITEMS ||
        (batch.length > 0 && bytes + pending.bytes > BATCH_MAX_BYTES)
      ) {
        batches.push(batch);
        batch = [];
        bytes = 0;
      }
      batch.push(pending);
      bytes += pending.bytes;
    }
    if (batch.length > 0) batches.push(batch);
    this.#waiting = [];
    return batches;
  }

  #sendReports(): void {
    if (this.#reports.size === 0) return;
    const items = [...this.#reports.values()].filter(
      ({ progress, lines }) => progress !== null || lines.length > 0,
    );
    this.#reports = new Map();
    if (items.length === 0) return;
    // Not repeated: what the outcome is unknown of would appear twice in the log, and the newest
    // progress follows anyway.
    this.#queue.report(this.#workerId, EXECUTOR_PRINCIPAL, items).catch((error: unknown) => {
      this.#log.debug("progress and log lines were not recorded", { error: messageOf(error) });
    });
  }

  async #send(batch: PendingEnd[]): Promise<void> {
    const items = batch.map(({ lease: { task_id, attempt, fence }, end }) => ({
      task_id,
      attempt,
      fence,
      end,
    }));
    this.#calls += 1;
    try {
      const answers = await this.#queue.end(this.#workerId, EXECUTOR_PRINCIPAL, items, null);
      this.#failures = 0;
      for (const [index, pending] of batch.entries()) {
        const answer = answers[index] ?? "not-found";
        if (answer !== "ok")
          this.#log.debug("the queue did not take an end", {
            task_id: pending.lease.task_id,
            end: pending.end.kind,
            answer,
          });
        this.#answered(pending);
      }
    } catch (error) {
      this.#failed(batch, error);
    }
    this.#calls -= 1;
    this.#settled();
  }

  #answered(pending: PendingEnd): void {
    if (this.#unanswered.delete(pending.lease.fence)) this.#unansweredBytes -= pending.bytes;
  }

  #failed(batch: PendingEnd[], error: unknown): void {
    const now = this.#clock.monotonic();
    const refused = !mayPass(error);
    const kept: PendingEnd[] = [];
    for (const pending of batch) {
      pending.rest = null;
      const hopeless = refused && batch.length === 1;
      if (!hopeless && now < pending.giveUpAt) {
        if (refused) pending.alone = true;
        kept.push(pending);
        continue;
      }
      this.#answered(pending);
      this.#log.warn("how an attempt ended could not be recorded; its lease will expire", {
        task_id: pending.lease.task_id,
        end: pending.end.kind,
        error: messageOf(error),
      });
    }
    this.#waiting = [...kept, ...this.#waiting];
    if (kept.length === 0 || this.#stopped || this.#retry !== null) return;
    const delayMs = retryDelayMs(this.#failures, this.#random);
    this.#failures += 1;
    this.#retry = this.#clock.after(delayMs, () => {
      this.#retry = null;
      this.flush();
    });
  }
}

/** About how many bytes an end takes in the log. */
function sizeOf(end: LeaseEnd): number {
  const overhead = 256;
  switch (end.kind) {
    case "complete":
      return overhead + (end.result?.length ?? 0);
    case "fail":
      return overhead + end.error.message.length + (end.error.stack?.length ?? 0);
    case "snooze":
    case "release":
      return overhead;
  }
}
