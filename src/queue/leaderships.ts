/**
 * Which leases no leadership has heard of for too long (T6). Every election gives each lease a full
 * period; without a rule of its own, a cluster that elects often enough would never expire a dead
 * worker's lease.
 */

/** Leaderships that may pass without a sign of a lease. */
const LEADERSHIPS_MAX = 3;
/** Lease periods of log time, from the first leadership that did not hear of it. */
const PERIODS_MAX = 4;
/** A lease expires when it was not heard of for this many periods; its worker stops itself after one. */
export const EXPIRY_PERIODS = 1.2;

/** A leadership's number and the log time at which it began. */
export type Takeover = readonly [leadership: number, at: number];

/** The newest takeovers, as many as a lease may outlive; oldest first. */
export function rememberTakeover(known: readonly Takeover[], next: Takeover): Takeover[] {
  return [...known, next].slice(-(LEADERSHIPS_MAX + 1));
}

/** `confirmed`: the last leadership that granted or confirmed the lease; `now` and takeovers in log time. */
export function isUnconfirmed(
  takeovers: readonly Takeover[],
  leadership: number,
  confirmed: number,
  now: number,
  leaseMs: number,
): boolean {
  if (confirmed >= leadership) return false;
  const first = takeovers.find(([number]) => number > confirmed);
  if (first === undefined) return false;
  const silentMs = now - first[1];
  if (silentMs >= PERIODS_MAX * leaseMs) return true;
  return leadership - confirmed > LEADERSHIPS_MAX && silentMs >= EXPIRY_PERIODS * leaseMs;
}
