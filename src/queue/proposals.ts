/**
 * Hands commands to the log and turns what comes back into a value or a `QueueError`: refusals of the
 * machine and failures of consensus alike.
 */
import { CallError, type Consensus, ConsensusError } from "../replica/consensus.ts";
import type { Millis } from "../replica/ports.ts";
import { encodeCommand } from "./command-codec.ts";
import type { Answer, AnswerValue, Command, RefusalCode } from "./commands.ts";
import { QueueError, type QueueErrorCode } from "./service.ts";

export interface ProposeOptions {
  /** Rows that applying it may touch (T3). */
  readonly weight?: number;
  readonly hint?: unknown;
  /** Ends the wait, not the write. */
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: Millis;
  /** See SubmitOptions. */
  readonly thisLeadership?: boolean;
}

export interface Outcome<T extends AnswerValue["type"]> {
  readonly value: Extract<AnswerValue, { type: T }>;
  readonly replayed: boolean;
}

/** When a client may try again, by what refused it; null: trying again will not help. */
const RETRY_AFTER_MS: Partial<Record<QueueErrorCode, Millis>> = {
  "no-leader": 1_000,
  "no-quorum": 1_000,
  "outcome-unknown": 1_000,
  overloaded: 1_000,
  stopping: 1_000,
  "stale-session": 1_000,
  "queue-full": 5_000,
  "idempotency-full": 10_000,
  "low-disk": 10_000,
};

const REFUSALS: Readonly<Record<RefusalCode, string>> = {
  "not-found": "there is no such task",
  "already-final": "the task has ended already",
  "not-final": "the task has not ended",
  "id-conflict": "another task has this id",
  "id-expired": "the id was used, and what it named is gone",
  "idempotency-mismatch": "this idempotency key was used with another body",
  "idempotency-full": "too many idempotency keys are remembered at this time",
  "names-full": "the cluster knows too many handler names already",
  "queue-full": "too many tasks are waiting already",
  "version-mismatch": "the task has changed since that version",
  void: "the leadership that asked for this is over",
  "stale-session": "this member was started again since it asked",
};

export function queueError(
  code: QueueErrorCode,
  message: string,
  taskId: string | null = null,
): QueueError {
  return new QueueError(code, message, RETRY_AFTER_MS[code] ?? null, taskId);
}

/** Failures of consensus as the queue's callers know them; anything else is a defect and stays as it is. */
export function asQueueError(error: unknown): Error {
  if (error instanceof QueueError) return error;
  if (error instanceof CallError) return new Error(`${error.reason}: ${error.message}`);
  if (error instanceof ConsensusError) {
    switch (error.reason) {
      case "no-leader":
      case "no-quorum":
      case "outcome-unknown":
      case "overloaded":
      case "low-disk":
      case "removed":
      case "inconsistent":
      case "stopping":
        return queueError(error.reason, error.message);
      // Questions to a leader that did not answer, or lead any more: which question is nobody's business.
      case "not-leader":
      case "timeout":
        return queueError("no-leader", "the leader did not answer within the time limit");
    }
  }
  return error instanceof Error ? error : new Error(String(error));
}

/** @throws QueueError when the machine refused */
export function expectValue<T extends AnswerValue["type"]>(answer: unknown, type: T): Outcome<T> {
  const given = answer as Answer;
  if (!given.ok) {
    const code = given.code;
    // A refusal that a newer machine knows and this build does not still reaches the caller as one.
    throw queueError(code, given.detail ?? REFUSALS[code] ?? code, given.id ?? null);
  }
  const { value, replayed = false } = given;
  if (!isType(value, type))
    throw new Error(`the machine answered ${value.type} where ${type} was expected`);
  return { value, replayed };
}

function isType<T extends AnswerValue["type"]>(
  value: AnswerValue,
  type: T,
): value is Extract<AnswerValue, { type: T }> {
  return value.type === type;
}

export class Proposer {
  readonly #consensus: Consensus;
  readonly #timeoutMs: Millis;

  constructor(consensus: Consensus, timeoutMs: Millis) {
    this.#consensus = consensus;
    this.#timeoutMs = timeoutMs;
  }

  /** @throws QueueError */
  async propose<T extends AnswerValue["type"]>(
    command: Command,
    type: T,
    options: ProposeOptions = {},
  ): Promise<Outcome<T>> {
    try {
      const answer = this.#consensus.submit(encodeCommand(command), {
        timeoutMs: options.timeoutMs ?? this.#timeoutMs,
        weight: options.weight ?? 1,
        ...(options.hint === undefined ? {} : { hint: options.hint }),
        ...(options.thisLeadership === true ? { thisLeadership: true } : {}),
      });
      return expectValue(await abortable(answer, options.signal), type);
    } catch (error) {
      throw asQueueError(error);
    }
  }
}

/** The promise, or `outcome-unknown` as soon as `signal` aborts; what was asked goes on. */
function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  const gone = (): QueueError =>
    queueError("outcome-unknown", "the caller stopped waiting; the write may still happen");
  if (signal.aborted) {
    promise.catch(() => undefined);
    return Promise.reject(gone());
  }
  return new Promise<T>((resolve, reject) => {
    const abort = (): void => reject(gone());
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
