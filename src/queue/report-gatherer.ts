/**
 * Progress and log lines on their way into the log (T6): what a worker reports within a second goes in one
 * command, so that a chatty handler costs one entry a second and not one a line. Somebody who waits for the
 * answer (`POST …/logs`) is not held for that second: such a report goes at once, or, while one of its worker's
 * is under way, with all that gathered meanwhile as soon as that one is on record.
 */
import type { Clock, Millis } from "../replica/ports.ts";
import { queueError } from "./proposals.ts";
import type { LeaseEndAnswer, LeaseRef, Progress } from "./types.ts";

const EVERY_MS: Millis = 1_000;
/** Reports that wait, of all workers on this member. */
const REPORTS_MAX = 20_000;
/** Of one worker: its command goes out early beyond either. */
const ITEMS_MAX = 500;
const TEXT_MAX = 1024 * 1024;

export interface ReportItem extends LeaseRef {
  readonly progress: Progress | null;
  readonly lines: readonly string[];
}

interface Pending {
  progress: Progress | null;
  readonly lines: string[];
  readonly ref: LeaseRef;
  readonly settle: ((answer: LeaseEndAnswer) => void)[];
  readonly fail: ((error: unknown) => void)[];
}

interface Bucket {
  readonly workerId: string;
  readonly principal: string;
  pending: Map<string, Pending>;
  text: number;
  /** Commands proposed and not answered. */
  inFlight: number;
  /** Somebody waits for what is pending: it goes when nothing is in flight any more. */
  prompt: boolean;
  /** A flush is scheduled; until it ran, and a second after, the bucket stays. */
  flushAt: Millis;
  scheduled: boolean;
}

export type SendReport = (
  workerId: string,
  principal: string,
  items: readonly ReportItem[],
) => Promise<readonly LeaseEndAnswer[]>;

export class ReportGatherer {
  readonly #clock: Clock;
  readonly #send: SendReport;
  readonly #buckets = new Map<string, Bucket>();
  #waiting = 0;

  constructor(clock: Clock, send: SendReport) {
    this.#clock = clock;
    this.#send = send;
  }

  get size(): number {
    return this.#waiting;
  }

  /**
   * Resolves once the report is applied: about a second later at most, or with `prompt` a round or two through
   * the log later. @throws QueueError overloaded
   */
  report(
    workerId: string,
    principal: string,
    item: ReportItem,
    prompt = false,
  ): Promise<LeaseEndAnswer> {
    if (this.#waiting >= REPORTS_MAX)
      return Promise.reject(queueError("overloaded", `${REPORTS_MAX} reports wait already`));
    const bucket = this.#bucketOf(workerId, principal);
    const key = keyOf(item);
    let pending = bucket.pending.get(key);
    if (pending === undefined) {
      const { task_id, attempt, fence } = item;
      pending = {
        progress: null,
        lines: [],
        ref: { task_id, attempt, fence },
        settle: [],
        fail: [],
      };
      bucket.pending.set(key, pending);
    }
    pending.progress = item.progress ?? pending.progress;
    for (const line of item.lines) {
      pending.lines.push(line);
      bucket.text += line.length + 1;
    }
    const { promise, resolve, reject } = Promise.withResolvers<LeaseEndAnswer>();
    pending.settle.push(resolve);
    pending.fail.push(reject);
    this.#waiting += 1;
    if (bucket.pending.size >= ITEMS_MAX || bucket.text >= TEXT_MAX) this.#flush(bucket);
    else if (prompt) this.#hurry(bucket);
    else this.#schedule(bucket);
    return promise;
  }

  /**
   * Sends at once what waits of these leases: the worker is about to end them, and what is applied after the end
   * is stale. Call it before the end is proposed: one member's commands are applied in their order.
   */
  flush(workerId: string, principal: string, leases: readonly LeaseRef[]): void {
    const bucket = this.#buckets.get(keyOfBucket(workerId, principal));
    if (bucket === undefined) return;
    const taken: Pending[] = [];
    for (const lease of leases) {
      const key = keyOf(lease);
      const pending = bucket.pending.get(key);
      if (pending === undefined || !bucket.pending.delete(key)) continue;
      for (const line of pending.lines) bucket.text -= line.length + 1;
      taken.push(pending);
    }
    if (taken.length === 0) return;
    this.#dispatch(bucket, taken);
    this.#schedule(bucket);
  }

  #bucketOf(workerId: string, principal: string): Bucket {
    const key = keyOfBucket(workerId, principal);
    let bucket = this.#buckets.get(key);
    if (bucket === undefined) {
      bucket = {
        workerId,
        principal,
        pending: new Map(),
        text: 0,
        inFlight: 0,
        prompt: false,
        flushAt: 0,
        scheduled: false,
      };
      this.#buckets.set(key, bucket);
    }
    return bucket;
  }

  /** The first report after a quiet second goes at once (with others of its turn), the next a second later. */
  #schedule(bucket: Bucket): void {
    if (bucket.scheduled) return;
    bucket.scheduled = true;
    const waitMs = bucket.flushAt - this.#clock.monotonic();
    const run = (): void => {
      bucket.scheduled = false;
      this.#flush(bucket);
    };
    if (waitMs <= 0) this.#clock.soon(run);
    else this.#clock.after(waitMs, run);
  }

  /** With all that is reported in this turn, or that gathers until the command under way is answered. */
  #hurry(bucket: Bucket): void {
    if (bucket.prompt) return;
    bucket.prompt = true;
    this.#sendPrompt(bucket);
  }

  #sendPrompt(bucket: Bucket): void {
    if (bucket.inFlight > 0) return;
    this.#clock.soon(() => {
      if (!bucket.prompt || bucket.inFlight > 0) return;
      if (bucket.pending.size > 0) this.#flush(bucket);
      // Sent ahead of an end.
      else bucket.prompt = false;
    });
  }

  #flush(bucket: Bucket): void {
    bucket.prompt = false;
    if (bucket.pending.size === 0) {
      if (bucket.inFlight > 0) {
        bucket.flushAt = this.#clock.monotonic() + EVERY_MS;
        this.#schedule(bucket);
        return;
      }
      this.#buckets.delete(keyOfBucket(bucket.workerId, bucket.principal));
      return;
    }
    const pendings = [...bucket.pending.values()];
    bucket.pending = new Map();
    bucket.text = 0;
    bucket.flushAt = this.#clock.monotonic() + EVERY_MS;
    this.#dispatch(bucket, pendings);
    // Looks once more after a second, to forget a bucket that stayed empty.
    this.#schedule(bucket);
  }

  #dispatch(bucket: Bucket, pendings: readonly Pending[]): void {
    for (const { settle } of pendings) this.#waiting -= settle.length;
    bucket.inFlight += 1;
    const items = pendings.map(({ ref, progress, lines }) => ({ ...ref, progress, lines }));
    this.#send(bucket.workerId, bucket.principal, items)
      .then(
        (answers) => {
          for (const [index, { settle }] of pendings.entries())
            for (const resolve of settle) resolve(answers[index] ?? "not-found");
        },
        (error: unknown) => {
          for (const { fail } of pendings) for (const reject of fail) reject(error);
        },
      )
      .finally(() => {
        bucket.inFlight -= 1;
        if (bucket.prompt) this.#sendPrompt(bucket);
      });
  }
}

function keyOf({ task_id, fence }: LeaseRef): string {
  return `${task_id}/${fence}`;
}

function keyOfBucket(workerId: string, principal: string): string {
  return `${workerId}\u0000${principal}`;
}
