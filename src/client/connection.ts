/**
 * One request to the cluster, whichever member answers it: repeated elsewhere when a member is gone, silent
 * or refuses for now, until it is answered for good or the time is up. Whoever calls makes sure that a repeat
 * does no harm: client-made ids, request ids, fences and idempotency keys are what does.
 */
import { errorOfAnswer, FlotillaError } from "./error.ts";
import type { Member, Members } from "./members.ts";

/** A member answers 503 after its --request-timeout of 5 s; who says nothing for longer is not there. */
const ATTEMPT_TIMEOUT_MS = 6_000;
/** A later try that is cut off sooner would only leave in doubt whether it was done. */
const TRY_MIN_MS = 20;
const BACKOFF_MIN_MS = 50;
const BACKOFF_MAX_MS = 2_000;
/** The longest delay that a timer takes. */
const TIMER_MAX_MS = 2 ** 31 - 1;

export interface ConnectionOptions {
  readonly members: Members;
  readonly token: string | null;
  /** Of one whole call, repeats included. */
  readonly timeoutMs: number;
  readonly attemptTimeoutMs?: number | undefined;
}

export interface CallOptions {
  /** JSON text. */
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Instead of the client's; may be Infinity. */
  readonly timeoutMs?: number;
  /** How long the member may hold the request before it answers (long polls). */
  readonly heldMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** How long one member may stay silent, instead of the client's. */
  readonly attemptMs?: number;
  /** The body of a good answer is not needed. */
  readonly discard?: boolean;
  /** Set when a try ended without its outcome being known, so that the request may have been carried out. */
  readonly doubt?: Doubt;
}

export interface Doubt {
  unknown: boolean;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** Empty when it was to be discarded. */
  readonly text: string;
}

/** What became of one try. */
type Try =
  | { readonly kind: "answered"; readonly answer: Answer }
  | {
      readonly kind: "again";
      readonly error: FlotillaError;
      /** By whom and how long it asked us to wait; null: the member was not reached. */
      readonly wait: { readonly who: "member" | "everybody"; readonly ms: number } | null;
    };

export class Connection {
  readonly members: Members;
  readonly timeoutMs: number;
  readonly #attemptTimeoutMs: number;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #open = new Set<AbortController>();
  #closed = false;

  /** @throws TypeError for a token that no header can hold. */
  constructor({ members, token, timeoutMs, attemptTimeoutMs }: ConnectionOptions) {
    this.members = members;
    this.timeoutMs = positive("timeoutMs", timeoutMs);
    this.#attemptTimeoutMs = positive("attemptTimeoutMs", attemptTimeoutMs ?? ATTEMPT_TIMEOUT_MS);
    if (token !== null && !/^[\x21-\x7e]+$/.test(token))
      throw new TypeError("token: must be visible ASCII characters");
    this.#headers = token === null ? {} : { authorization: `Bearer ${token}` };
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Ends every request that is under way; further ones are refused. */
  close(): void {
    this.#closed = true;
    for (const controller of this.#open) controller.abort();
  }

  /** The answer's body as JSON. @throws FlotillaError */
  async json<T>(method: string, path: string, options: CallOptions = {}): Promise<T> {
    const { status, text } = await this.call(method, path, options);
    try {
      return JSON.parse(text) as T;
    } catch (cause) {
      const message = `${method} ${path}: HTTP ${status} without JSON`;
      throw new FlotillaError("unexpected-answer", message, { status, cause });
    }
  }

  /** `path` begins with a slash and holds the query. @throws FlotillaError for whatever is not 2xx in the end. */
  async call(method: string, path: string, options: CallOptions = {}): Promise<Answer> {
    const timeoutMs = options.timeoutMs ?? this.timeoutMs;
    const deadline = performance.now() + timeoutMs;
    const doubt = options.doubt ?? { unknown: false };
    const notBefore = new Map<Member, number>();
    let last: FlotillaError | null = null;
    const outOfTime = (): FlotillaError => {
      const why = last === null ? "" : `; last: ${last.message}`;
      return new FlotillaError(
        "timeout",
        `${method} ${path}: no answer within ${Math.round(timeoutMs)} ms${why}`,
        {
          status: last?.status ?? null,
          errors: last?.errors ?? [],
          requestId: last?.requestId ?? null,
          outcomeUnknown: doubt.unknown,
          cause: last ?? undefined,
        },
      );
    };
    for (let tries = 0; ; tries++) {
      this.#refuseIfOver(options.signal, doubt);
      const now = performance.now();
      if (now >= deadline || (last !== null && deadline - now < TRY_MIN_MS)) throw outOfTime();
      const { member, waitMs } = this.members.pick(now, notBefore);
      if (waitMs > 0) {
        // Nobody may be asked before the time is up: the caller learns it now.
        if (now + waitMs >= deadline) throw outOfTime();
        await this.#sleep(waitMs, options.signal);
        continue;
      }
      const outcome = await this.#try(member, method, path, options, deadline - now, doubt);
      if (outcome.kind === "answered") {
        this.members.answered(member);
        if (tries > 0) this.members.prefer(member);
        return outcome.answer;
      }
      last = outcome.error;
      const at = performance.now();
      if (outcome.wait === null) {
        this.members.unreachable(member, at);
        continue;
      }
      this.members.answered(member);
      this.members.leave(member);
      const backoffMs = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(tries, 10));
      const until = at + Math.max(outcome.wait.ms * (1 + Math.random() / 4), jittered(backoffMs));
      for (const told of outcome.wait.who === "member" ? [member] : this.members.all)
        notBefore.set(told, Math.max(until, notBefore.get(told) ?? 0));
    }
  }

  async #try(
    member: Member,
    method: string,
    path: string,
    options: CallOptions,
    leftMs: number,
    doubt: Doubt,
  ): Promise<Try> {
    const controller = new AbortController();
    this.#open.add(controller);
    const patienceMs = (options.attemptMs ?? this.#attemptTimeoutMs) + (options.heldMs ?? 0);
    const attemptMs = Math.min(leftMs, patienceMs, TIMER_MAX_MS);
    let silent = false;
    const timer = setTimeout(() => {
      silent = true;
      controller.abort();
    }, attemptMs);
    const abort = (): void => controller.abort();
    options.signal?.addEventListener("abort", abort);
    try {
      const response = await fetch(member.url + path, {
        method,
        headers: {
          ...this.#headers,
          ...(options.body === undefined ? {} : { "content-type": "application/json" }),
          ...options.headers,
        },
        ...(options.body === undefined ? {} : { body: options.body }),
        // A token goes to the members that were named, and to nobody else.
        redirect: "error",
        signal: controller.signal,
      });
      const { status, headers } = response;
      if (response.ok && options.discard === true) {
        await response.arrayBuffer();
        this.members.learnClock(headers.get("date"));
        return { kind: "answered", answer: { status, headers, text: "" } };
      }
      const text = await response.text();
      this.members.learnClock(headers.get("date"));
      if (response.ok) return { kind: "answered", answer: { status, headers, text } };
      return refusal(errorOfAnswer(status, text), headers, doubt);
    } catch (error) {
      if (error instanceof FlotillaError) throw error;
      if (!isRefusedConnection(error)) doubt.unknown = true;
      this.#refuseIfOver(options.signal, doubt);
      const what = silent ? `no answer within ${Math.round(attemptMs)} ms` : messageOf(error);
      return {
        kind: "again",
        error: new FlotillaError("unreachable", `${member.url}: ${what}`, { cause: error }),
        wait: null,
      };
    } finally {
      clearTimeout(timer);
      options.signal?.removeEventListener("abort", abort);
      this.#open.delete(controller);
    }
  }

  #refuseIfOver(signal: AbortSignal | undefined, doubt: Doubt): void {
    const options = { outcomeUnknown: doubt.unknown };
    if (this.#closed) throw new FlotillaError("closed", "the client is closed", options);
    if (signal?.aborted === true)
      throw new FlotillaError("aborted", "the call was aborted", {
        ...options,
        cause: signal.reason,
      });
  }

  /** Ends early when the caller aborts or the client closes. */
  async #sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
    const controller = new AbortController();
    this.#open.add(controller);
    const abort = (): void => controller.abort();
    signal?.addEventListener("abort", abort);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, Math.min(Math.ceil(ms), TIMER_MAX_MS));
      controller.signal.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve();
      });
    });
    signal?.removeEventListener("abort", abort);
    this.#open.delete(controller);
  }
}

/** Whether to ask again after a refusal. @throws FlotillaError when a repeat would be refused as well */
function refusal(error: FlotillaError, headers: Headers, doubt: Doubt): Try {
  const { status, code } = error;
  const ms = retryAfterMs(headers);
  if (status === 429) {
    // The one limit that waiting does not lift.
    if (code === "names-full") throw error;
    return { kind: "again", error, wait: { who: "everybody", ms } };
  }
  if (status === 502 || status === 503 || status === 504) {
    // Whatever is no member's own word is a proxy's, which may have passed the request on.
    if (error.outcomeUnknown || code === "unexpected-answer") doubt.unknown = true;
    return { kind: "again", error, wait: { who: "member", ms } };
  }
  if (status !== 500) throw error;
  const { requestId } = error;
  throw new FlotillaError(code, error.message, { status, requestId, outcomeUnknown: true });
}

/** Seconds or a date (RFC 9110, 10.2.3); 0 without one. */
function retryAfterMs(headers: Headers): number {
  const header = headers.get("retry-after");
  if (header === null) return 0;
  const seconds = Number(header);
  const ms = Number.isFinite(seconds) ? seconds * 1_000 : Date.parse(header) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : 0;
}

/** Nobody listens: the request was not sent at all. Bun puts the code on the error, Node on its cause. */
function isRefusedConnection(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code, cause } = error as { code?: unknown; cause?: { code?: unknown } | undefined };
  return [code, cause?.code].some((c) => c === "ECONNREFUSED" || c === "ConnectionRefused");
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}

function jittered(ms: number): number {
  return ms * (0.5 + Math.random() / 2);
}

function positive(name: string, ms: number): number {
  if (ms > 0 && !Number.isNaN(ms)) return ms;
  throw new TypeError(`${name}: must be a number of milliseconds above 0, not ${ms}`);
}
