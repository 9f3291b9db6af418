/**
 * What a handler may throw to say more than "it failed". User modules import these; the executor knows
 * them by a brand, not by `instanceof`, so a second copy of this module works as well.
 */

/** Global symbol: the same in every copy of this module and in every Worker of the process. */
const BRAND: unique symbol = Symbol.for("flotilla.handler-error") as never;

/** What a branded error asks for. */
export type HandlerVerdict =
  | { readonly kind: "non-retryable" }
  | { readonly kind: "retry-after"; readonly delayMs: number }
  | { readonly kind: "snooze"; readonly delayMs: number };

/** Longest delay that a handler may ask for: a year. */
const DELAY_MAX_MS = 365 * 86_400_000;

/** The task is Failed at once; no retry would help. */
export class NonRetryableError extends Error {
  override name = "NonRetryableError";
  readonly [BRAND]: HandlerVerdict = { kind: "non-retryable" };
}

/** The attempt failed; try again after `delayMs` instead of what the retry policy says. */
export class RetryAfter extends Error {
  override name = "RetryAfter";
  readonly [BRAND]: HandlerVerdict;

  /** @throws RangeError unless delayMs is in 0 … DELAY_MAX_MS. */
  constructor(
    readonly delayMs: number,
    message = `retry after ${delayMs} ms`,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this[BRAND] = { kind: "retry-after", delayMs: checkedDelay(delayMs) };
  }
}

/** Not a failure: puts the task back for `delayMs`, which costs no retry. */
export class Snooze extends Error {
  override name = "Snooze";
  readonly [BRAND]: HandlerVerdict;

  /** @throws RangeError unless delayMs is in 0 … DELAY_MAX_MS. */
  constructor(readonly delayMs: number) {
    super(`snooze for ${delayMs} ms`);
    this[BRAND] = { kind: "snooze", delayMs: checkedDelay(delayMs) };
  }
}

/** What a thrown value asks for; null for anything without the brand. */
export function verdictOf(thrown: unknown): HandlerVerdict | null {
  if (typeof thrown !== "object" || thrown === null || !(BRAND in thrown)) return null;
  return thrown[BRAND] as HandlerVerdict;
}

function checkedDelay(delayMs: number): number {
  if (Number.isFinite(delayMs) && delayMs >= 0 && delayMs <= DELAY_MAX_MS)
    return Math.round(delayMs);
  throw new RangeError(`delay must be 0 to ${DELAY_MAX_MS} ms, not ${delayMs}`);
}
