/**
 * Gathers the submits of many callers into bulk requests. A call that finds nothing under way leaves at the
 * end of its event-loop turn, together with the others of that turn; those that come while a request is under
 * way leave together when it is answered, when there are enough of them, or after a few milliseconds.
 *
 * A bulk request is all or nothing; callers are not: a task that the members refuse is taken out and its
 * caller is told, and the others are sent again.
 */
import type { Connection, Doubt } from "./connection.ts";
import { FlotillaError } from "./error.ts";
import { fieldsSummary, refusedItems } from "./refused-items.ts";
import {
  BULK_BYTES_MAX,
  BULK_TASKS_MAX,
  bulkBody,
  submitBytes,
  submitText,
  type TaskText,
} from "./task-text.ts";

/** Requests under way at once. Each holds a log entry at the leader; more of them only make smaller ones. */
const IN_FLIGHT_MAX = 4;
/** So many are worth a request of their own beside one that is under way. */
const WORTH_A_REQUEST = 64;
/** A call waits so long at most for the request that is under way, so that one silent member does not hold all up. */
const LINGER_MS = 5;
/** Calls that wait here while the cluster is slow or away; whoever has more should wait for some of them. */
export const WAITING_MAX = 100_000;
const WAITING_BYTES_MAX = 256 * 1024 * 1024;
/** The tasks are known here, ids and all: none is wanted back. */
export const MINIMAL = { prefer: "return=minimal" } as const;
/** Submits that run out of time so close to each other do so together. */
const SAME_AGE_MS = 100;

interface Waiting {
  task: TaskText;
  readonly bytes: number;
  readonly addedAt: number;
  readonly deadline: number;
  readonly resolve: (id: string) => void;
  readonly reject: (error: FlotillaError) => void;
  /** It may have been accepted under its id already, which it keeps from then on. */
  doubtful: boolean;
  reminted: boolean;
}

export class Gatherer {
  readonly #connection: Connection;
  readonly #remint: () => string;
  readonly #waitingMax: number;
  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  #inFlight = 0;
  #pumpAsked = false;
  #timer: ReturnType<typeof setTimeout> | null = null;

  /** `remint` makes a new id when the members found the first one to be of another time. */
  constructor(connection: Connection, waitingMax: number, remint: () => string) {
    this.#connection = connection;
    this.#waitingMax = waitingMax;
    this.#remint = remint;
  }

  /** Resolves with what `wrap` makes of the id once the task is acknowledged. @throws FlotillaError (rejects) */
  add<T>(task: TaskText, wrap: (id: string) => T): Promise<T> {
    const bytes = submitBytes(task);
    return new Promise((resolve, reject) => {
      if (this.#connection.closed) {
        reject(new FlotillaError("closed", "the client is closed"));
        return;
      }
      if (
        this.#waiting.length >= this.#waitingMax ||
        this.#waitingBytes + bytes > WAITING_BYTES_MAX
      ) {
        const message = `${this.#waiting.length} submits wait already: wait for some of them first`;
        reject(new FlotillaError("client-overloaded", message));
        return;
      }
      const addedAt = performance.now();
      const deadline = addedAt + this.#connection.timeoutMs;
      this.#waiting.push({
        task,
        bytes,
        addedAt,
        deadline,
        resolve: (id) => resolve(wrap(id)),
        reject,
        doubtful: false,
        reminted: false,
      });
      this.#waitingBytes += bytes;
      this.#askPump();
    });
  }

  /** Rejects all that wait; what is under way is ended by the connection. */
  close(): void {
    for (const waiting of this.#takeAll()) {
      const options = { outcomeUnknown: waiting.doubtful };
      waiting.reject(new FlotillaError("closed", "the client is closed", options));
    }
    this.#clearTimer();
  }

  /** At the end of the turn: by then every caller that this turn woke has come back. */
  #askPump(): void {
    if (this.#pumpAsked) return;
    this.#pumpAsked = true;
    setImmediate(() => {
      this.#pumpAsked = false;
      this.#pump();
    });
  }

  #pump(): void {
    this.#clearTimer();
    const now = performance.now();
    this.#expire(now);
    for (;;) {
      const [first] = this.#waiting;
      if (first === undefined) return;
      if (this.#inFlight >= IN_FLIGHT_MAX) {
        this.#pumpIn(first.deadline - now);
        return;
      }
      const lingerMs = first.addedAt + LINGER_MS - now;
      if (this.#inFlight > 0 && lingerMs > 0 && this.#waiting.length < WORTH_A_REQUEST) {
        this.#pumpIn(lingerMs);
        return;
      }
      void this.#send(this.#take());
    }
  }

  #pumpIn(ms: number): void {
    this.#timer = setTimeout(() => this.#pump(), Math.max(1, Math.min(ms, 2 ** 31 - 1)));
  }

  #clearTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** While the cluster is away, calls may run out of time before they are sent. */
  #expire(now: number): void {
    if ((this.#waiting[0]?.deadline ?? Infinity) > now) return;
    const all = this.#takeAll();
    for (const waiting of all) {
      if (waiting.deadline > now) this.#putBack(waiting);
      else {
        const message = `the submit could not be sent within ${this.#connection.timeoutMs} ms`;
        const options = { outcomeUnknown: waiting.doubtful };
        waiting.reject(new FlotillaError("timeout", message, options));
      }
    }
  }

  #takeAll(): Waiting[] {
    const all = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    return all;
  }

  #putBack(waiting: Waiting): void {
    this.#waiting.push(waiting);
    this.#waitingBytes += waiting.bytes;
  }

  /** The oldest ones, as many as one request may hold; the same id given twice makes two requests. */
  #take(): Waiting[] {
    const givenIds = new Set<string>();
    let bytes = 0;
    let count = 0;
    for (const waiting of this.#waiting) {
      if (count === BULK_TASKS_MAX || (count > 0 && bytes + waiting.bytes > BULK_BYTES_MAX)) break;
      if (!waiting.task.minted) {
        if (givenIds.has(waiting.task.id)) break;
        givenIds.add(waiting.task.id);
      }
      bytes += waiting.bytes;
      count += 1;
    }
    this.#waitingBytes -= bytes;
    return this.#waiting.splice(0, count);
  }

  async #send(batch: Waiting[]): Promise<void> {
    this.#inFlight += 1;
    const pieces = [batch];
    for (let piece = pieces.pop(); piece !== undefined; piece = pieces.pop()) {
      const doubt: Doubt = { unknown: false };
      try {
        await this.#post(piece, doubt);
        for (const { resolve, task } of piece) resolve(task.id);
      } catch (error) {
        if (doubt.unknown) for (const waiting of piece) waiting.doubtful = true;
        pieces.push(...this.#refused(piece, asFlotillaError(error)));
      }
    }
    this.#inFlight -= 1;
    this.#askPump();
  }

  async #post(piece: readonly Waiting[], doubt: Doubt): Promise<void> {
    let deadline = Infinity;
    for (const waiting of piece) deadline = Math.min(deadline, waiting.deadline);
    const timeoutMs = Math.max(1, deadline - performance.now());
    const options = { timeoutMs, doubt, discard: true, headers: MINIMAL };
    const [only] = piece;
    if (piece.length === 1 && only !== undefined) {
      await this.#connection.call("POST", "/api/tasks", {
        ...options,
        body: submitText(only.task),
      });
      return;
    }
    const body = bulkBody(piece.map(({ task }) => task));
    await this.#connection.call("POST", "/api/tasks/bulk", { ...options, body });
  }

  /** Tells those whom the refusal is about; returns what is to be sent again. */
  #refused(piece: Waiting[], error: FlotillaError): Waiting[][] {
    if (error.code === "timeout") {
      // The oldest one's time was up. The others have some left, if they are much younger.
      const oldest = Math.min(...piece.map(({ deadline }) => deadline));
      const over = Math.max(performance.now(), oldest + SAME_AGE_MS);
      for (const waiting of piece) if (waiting.deadline <= over) rejected(waiting, error);
      const left = piece.filter(({ deadline }) => deadline > over);
      return left.length === 0 ? [] : [left];
    }
    const aboutTasks = error.status === 400 || error.status === 409 || error.status === 413;
    const [only] = piece;
    if (!aboutTasks || only === undefined) {
      for (const waiting of piece) rejected(waiting, error);
      return [];
    }
    if (piece.length === 1) return this.#refusedOne(only, error) ? [[only]] : [];
    const named = refusedItems(error, "tasks");
    if (named.size > 0) {
      const again: Waiting[] = [];
      for (const [index, waiting] of piece.entries()) {
        const errors = named.get(index);
        if (errors === undefined) again.push(waiting);
        else {
          const { code, status, requestId } = error;
          const own = { status, requestId, errors };
          const theirs = new FlotillaError(code, fieldsSummary(errors), own);
          if (this.#refusedOne(waiting, theirs)) again.push(waiting);
        }
      }
      return again.length === 0 ? [] : [again];
    }
    // The refusal does not say which: halving finds it.
    const half = piece.length >> 1;
    return [piece.slice(half), piece.slice(0, half)];
  }

  /** @returns true when it is to be sent again, under a new id. */
  #refusedOne(waiting: Waiting, error: FlotillaError): boolean {
    const { task, doubtful, reminted } = waiting;
    const wrongClock =
      error.status === 400 &&
      error.errors.length > 0 &&
      error.errors.every((e) => e.pointer === "/id");
    if (wrongClock && task.minted && !doubtful && !reminted) {
      waiting.reminted = true;
      waiting.task = { ...task, id: this.#remint() };
      return true;
    }
    rejected(waiting, error);
    return false;
  }
}

/** The error is the last request's; an earlier one may have made the task. */
function rejected({ doubtful, reject }: Waiting, error: FlotillaError): void {
  if (!doubtful || error.outcomeUnknown) {
    reject(error);
    return;
  }
  const { code, message, status, errors, requestId, cause } = error;
  const options = { status, errors, requestId, cause, outcomeUnknown: true };
  reject(new FlotillaError(code, message, options));
}

function asFlotillaError(error: unknown): FlotillaError {
  if (error instanceof FlotillaError) return error;
  return new FlotillaError("unexpected-answer", String(error), { cause: error });
}
