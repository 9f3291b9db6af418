/** The client: submits, reads and waits, at any member of a cluster. */
import { Connection } from "./connection.ts";
import { FlotillaError, PartlyEnqueuedError, TaskEndedError } from "./error.ts";
import { FinalWaits } from "./final-waits.ts";
import { Gatherer, MINIMAL, WAITING_MAX } from "./gatherer.ts";
import { LeaseCalls } from "./lease-calls.ts";
import { Members } from "./members.ts";
import {
  BULK_BYTES_MAX,
  BULK_TASKS_MAX,
  bulkBody,
  submitBytes,
  taskText,
  type TaskText,
} from "./task-text.ts";
import type { ClusterView, EnqueueOptions, ListFilter, Stats, Task, TaskSpec } from "./types.ts";
import { IdMinter } from "./uuid.ts";

const TIMEOUT_MS = 30_000;
/** Requests of one `enqueueMany` under way at once. */
const MANY_IN_FLIGHT = 4;

export interface FlotillaClientOptions {
  /** Members, or a comma-separated list of them. The first one that answers is asked first from then on. */
  readonly urls: string | readonly string[];
  readonly token?: string;
  /** How long a call may take, every repeat included; default 30,000. */
  readonly timeoutMs?: number;
  /** How long one member may stay silent before the next one is asked; default 6,000. */
  readonly attemptTimeoutMs?: number;
  /** Submits that may wait in this client, before `client-overloaded`; default 100,000. */
  readonly maxWaiting?: number;
}

export interface ResultOptions {
  /** Without it: until the task is final, however long the members are away. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** One task that was acknowledged. */
export class TaskHandle<Result = unknown> {
  readonly #client: FlotillaClient;

  constructor(
    client: FlotillaClient,
    readonly id: string,
  ) {
    this.#client = client;
  }

  /**
   * The result, once the task is Completed.
   * @throws TaskEndedError when it is Failed or Cancelled; FlotillaError `timeout`, `not-found`
   */
  result(options: ResultOptions = {}): Promise<Result> {
    return this.#client.result<Result>(this.id, options);
  }

  /** As it is now; null when it is not there any more. */
  task(): Promise<Task | null> {
    return this.#client.get(this.id);
  }

  cancel(): Promise<void> {
    return this.#client.cancel(this.id);
  }
}

export class FlotillaClient {
  /** The lease protocol, for workers (`FlotillaWorker` speaks it). */
  readonly leases: LeaseCalls;
  readonly #connection: Connection;
  readonly #gatherer: Gatherer;
  readonly #waits: FinalWaits;
  readonly #ids = new IdMinter();
  readonly #mintNow = (): string => this.#mint();

  /** Connects to nobody yet. @throws TypeError naming the bad option */
  constructor(options: FlotillaClientOptions) {
    const { urls, token, timeoutMs = TIMEOUT_MS, attemptTimeoutMs } = options;
    const { maxWaiting = WAITING_MAX } = options;
    if (!(maxWaiting >= 1)) throw new TypeError(`maxWaiting: must be 1 or more, not ${maxWaiting}`);
    const members = new Members(urls);
    this.#connection = new Connection({
      members,
      token: token ?? null,
      timeoutMs,
      attemptTimeoutMs,
    });
    this.leases = new LeaseCalls(this.#connection);
    this.#waits = new FinalWaits(this.#connection);
    this.#gatherer = new Gatherer(this.#connection, maxWaiting, () => {
      this.#ids.rewind();
      return this.#mint();
    });
  }

  /**
   * Submits a task; resolves when it is on disk on a majority. Concurrent calls share requests, yet each fails
   * alone. A repeat after a lost answer never doubles the task, for its id is made here.
   * @throws FlotillaError (rejects)
   */
  enqueue<Result = unknown>(
    name: string,
    payload?: unknown,
    options?: EnqueueOptions,
  ): Promise<TaskHandle<Result>> {
    try {
      const task = taskText(name, payload, options, this.#mintNow);
      // One promise a call: the gatherer makes the handle of the id.
      return this.#gatherer.add(task, (id) => new TaskHandle<Result>(this, id));
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)));
    }
  }

  /**
   * Submits tasks as requests of up to 1,000, each of them all or nothing. Handles in the order given.
   * @throws FlotillaError (rejects) whose pointers are `/tasks/INDEX/…`; PartlyEnqueuedError when some requests
   * had been acknowledged
   */
  async enqueueMany<Result = unknown>(tasks: readonly TaskSpec[]): Promise<TaskHandle<Result>[]> {
    const texts = tasks.map(({ name, payload, ...options }) =>
      taskText(name, payload, options, this.#mintNow),
    );
    const pieces = cutIntoRequests(texts);
    const accepted: string[] = [];
    let failure: FlotillaError | null = null;
    let next = 0;
    const sendInTurn = async (): Promise<void> => {
      for (let piece = pieces[next++]; piece !== undefined; piece = pieces[next++]) {
        if (failure !== null) return;
        try {
          const body = bulkBody(piece.tasks);
          const options = { body, discard: true, headers: MINIMAL };
          await this.#connection.call("POST", "/api/tasks/bulk", options);
          for (const { id } of piece.tasks) accepted.push(id);
        } catch (error) {
          failure ??= atIndex(error, piece.from);
        }
      }
    };
    await Promise.all(Array.from({ length: MANY_IN_FLIGHT }, sendInTurn));
    failure = failure as FlotillaError | null;
    if (failure !== null)
      throw accepted.length === 0 ? failure : new PartlyEnqueuedError(failure, accepted);
    return texts.map(({ id }) => new TaskHandle<Result>(this, id));
  }

  /** A handle of a task that is known by its id; nothing is asked. */
  handle<Result = unknown>(id: string): TaskHandle<Result> {
    return new TaskHandle<Result>(this, id);
  }

  /** As it is now, linearizable; null when there is no such task. */
  async get(id: string): Promise<Task | null> {
    try {
      return await this.#connection.json<Task>("GET", taskPath(id));
    } catch (error) {
      if (error instanceof FlotillaError && error.status === 404) return null;
      throw error;
    }
  }

  /** See `TaskHandle.result`. */
  async result<Result = unknown>(id: string, options: ResultOptions = {}): Promise<Result> {
    const { timeoutMs = Infinity, signal } = options;
    const task = await this.#waits.until(id, { timeoutMs, signal });
    if (task.status !== "Completed") throw new TaskEndedError(task);
    return task.result as Result;
  }

  /** Tasks, newest first, page by page as they are consumed. */
  async *list(filter: ListFilter = {}): AsyncGenerator<Task, void, undefined> {
    let path: string | null = `/api/tasks?${listQuery(filter)}`;
    while (path !== null) {
      const answer = await this.#connection.call("GET", path);
      yield* JSON.parse(answer.text) as Task[];
      path = nextPage(answer.headers.get("link"));
    }
  }

  /** At once while Pending; a Running task is told to stop. @throws FlotillaError 404, 409 `already-final` */
  async cancel(id: string): Promise<void> {
    await this.#connection.call("DELETE", taskPath(id));
  }

  /**
   * Runs a final task again.
   * @throws FlotillaError 404, 409 `not-final`, 412 when its version is another than `ifVersion`
   */
  retry(id: string, options: { readonly ifVersion?: number } = {}): Promise<Task> {
    const { ifVersion } = options;
    const headers = {
      "idempotency-key": this.#mint(),
      ...(ifVersion === undefined ? {} : { "if-match": `"${ifVersion}"` }),
    };
    return this.#connection.json<Task>("POST", `${taskPath(id)}/retry`, { body: "{}", headers });
  }

  /** Tasks by status. */
  stats(): Promise<Stats> {
    return this.#connection.json<Stats>("GET", "/api/stats");
  }

  /** Members and the state of the log, as one member sees them. */
  cluster(): Promise<ClusterView> {
    return this.#connection.json<ClusterView>("GET", "/api/cluster");
  }

  /** Ends what is under way (`closed`); await what must be acknowledged before. */
  close(): void {
    this.#connection.close();
    this.#gatherer.close();
  }

  #mint(): string {
    return this.#ids.mint(this.#connection.members.clusterNow());
  }
}

function taskPath(id: string): string {
  return `/api/tasks/${encodeURIComponent(id)}`;
}

interface Piece {
  /** Index of its first task. */
  readonly from: number;
  readonly tasks: TaskText[];
}

function cutIntoRequests(texts: readonly TaskText[]): Piece[] {
  const pieces: Piece[] = [];
  let bytes = 0;
  for (const [index, task] of texts.entries()) {
    const size = submitBytes(task);
    const last = pieces.at(-1);
    if (
      last === undefined ||
      last.tasks.length === BULK_TASKS_MAX ||
      bytes + size > BULK_BYTES_MAX
    ) {
      pieces.push({ from: index, tasks: [task] });
      bytes = size;
    } else {
      last.tasks.push(task);
      bytes += size;
    }
  }
  return pieces;
}

/** The refusal of a piece, with the indices of the whole. */
function atIndex(error: unknown, from: number): FlotillaError {
  if (!(error instanceof FlotillaError)) {
    return new FlotillaError("unexpected-answer", String(error), { cause: error });
  }
  const { code, message, status, requestId, outcomeUnknown } = error;
  if (from === 0 || error.errors.length === 0) return error;
  const moved = (text: string): string =>
    text.replace(/^\/tasks\/(\d+)/, (_, index) => `/tasks/${Number(index) + from}`);
  const errors = error.errors.map(({ pointer, detail }) => ({ pointer: moved(pointer), detail }));
  const options = { status, errors, requestId, outcomeUnknown, cause: error };
  return new FlotillaError(code, moved(message), options);
}

function listQuery(filter: ListFilter): URLSearchParams {
  const query = new URLSearchParams();
  const { payload = {}, page_size, ...plain } = filter;
  for (const [name, value] of Object.entries(plain)) {
    if (value === undefined) continue;
    const text = Array.isArray(value)
      ? value.join(",")
      : value instanceof Date
        ? value.toISOString()
        : value;
    query.set(name, text);
  }
  for (const [path, value] of Object.entries(payload)) query.set(`payload.${path}`, String(value));
  if (page_size !== undefined) query.set("limit", String(page_size));
  return query;
}

/** The path of the next page, of `<PATH>; rel="next"`. */
function nextPage(link: string | null): string | null {
  return /<(\/[^>]*)>;\s*rel="next"/.exec(link ?? "")?.[1] ?? null;
}
