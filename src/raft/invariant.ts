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
