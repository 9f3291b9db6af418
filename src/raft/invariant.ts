/**
 * An assertion that stays on in production: a broken invariant must stop the member, not spread.
 * @public
 */
export class InvariantViolation extends Error {
  override name = "InvariantViolation";
}

/** @throws InvariantViolation when `condition` is false. */
export function invariant(condition: boolean, what: string): asserts condition {
  if (!condition) throw new InvariantViolation(what);
}

/** What must be there. @throws InvariantViolation when it is not. */
export function must<T>(value: T | null | undefined, what: string): T {
  if (value === null || value === undefined) throw new InvariantViolation(what);
  return value;
}
