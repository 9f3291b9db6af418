/**
 * Picking tasks for a claim: over all its queues and names in the order (priority, becoming ready), the
 * same on every member. Each queue and name is a sorted run of the ready index; a claim merges them.
 */
import { before, type ReadyPair, type ReadyPosition } from "./ready.ts";
import type { TaskRow } from "./rows.ts";
import type { TaskStore } from "./store.ts";
import { type Claim, LIMITS } from "./types.ts";

/** Rows read ahead from one pair while several are merged; those not taken were read for nothing. */
const READ_AHEAD_MAX = 16;
/**
 * Characters of payload in one claim, in which the last task may go beyond it: every member holds them while
 * it applies the claim, and a thousand tasks of the largest size would be a quarter of a gigabyte (T3).
 */
const CLAIM_TEXT_MAX = 8 * 1024 * 1024;

/**
 * Takes up to `max` ready tasks and leases them, fewer when their payloads are large; the rows as they are
 * now, in the order of service.
 */
export function takeReady(
  store: TaskStore,
  claim: Claim,
  named: ReadonlySet<string>,
): readonly TaskRow[] {
  const max = Math.max(0, Math.min(LIMITS.claimMax, Math.trunc(claim.max) || 0));
  const pairs = store.ready.matching(claim.queues, claim.names, accepts(claim, named));
  if (max === 0 || pairs.length === 0) return [];
  const only = pairs[0];
  if (pairs.length === 1 && only !== undefined) {
    return takeFrom(store, claim, only, max);
  }
  return merge(store, claim, pairs, max);
}

function takeFrom(
  store: TaskStore,
  claim: Claim,
  pair: ReadyPair,
  max: number,
): readonly TaskRow[] {
  const taken: TaskRow[] = [];
  let text = 0;
  while (taken.length < max && text < CLAIM_TEXT_MAX) {
    const rows = store.heads(pair, Math.min(max - taken.length, READ_AHEAD_MAX));
    if (rows.length === 0) break;
    for (const row of rows) {
      if (text >= CLAIM_TEXT_MAX) break;
      taken.push(store.claim(row, claim));
      text += row.payload?.length ?? 0;
    }
  }
  return taken;
}

function accepts(claim: Claim, named: ReadonlySet<string>): ((name: string) => boolean) | null {
  const { names } = claim;
  if (names === null || !claim.star) return null;
  const own = new Set(names);
  return (name) => own.has(name) || !named.has(name);
}

function merge(
  store: TaskStore,
  claim: Claim,
  pairs: readonly ReadyPair[],
  max: number,
): readonly TaskRow[] {
  const taken: TaskRow[] = [];
  let text = 0;
  while (taken.length < max && text < CLAIM_TEXT_MAX) {
    const [best, rival] = firstTwo(store, pairs);
    if (best === null) break;
    const rows = store.heads(best, Math.min(max - taken.length, READ_AHEAD_MAX));
    for (const row of rows) {
      const position = positionOf(row);
      if (rival !== null && before(rival, position)) {
        best.head = position;
        break;
      }
      if (text >= CLAIM_TEXT_MAX) break;
      taken.push(store.claim(row, claim));
      text += row.payload?.length ?? 0;
    }
  }
  return taken;
}

/** The pair whose first task is served next, and the first task of the next best pair. */
function firstTwo(
  store: TaskStore,
  pairs: readonly ReadyPair[],
): [best: ReadyPair | null, rival: ReadyPosition | null] {
  let best: ReadyPair | null = null;
  let rival: ReadyPosition | null = null;
  for (const pair of pairs) {
    const head = headOf(store, pair);
    if (head === null) continue;
    if (best === null || best.head === null || before(head, best.head)) {
      rival = best?.head ?? null;
      best = pair;
    } else if (rival === null || before(head, rival)) {
      rival = head;
    }
  }
  return [best, rival];
}

function headOf(store: TaskStore, pair: ReadyPair): ReadyPosition | null {
  if (pair.count === 0) return null;
  if (pair.head !== null) return pair.head;
  const first = store.heads(pair, 1)[0];
  pair.head = first === undefined ? null : positionOf(first);
  return pair.head;
}

function positionOf(row: TaskRow): ReadyPosition {
  return { priority: row.priority, ready_seq: row.ready_seq ?? 0 };
}
