/**
 * Picking tasks for a claim: over all its queues and names in the order (priority, becoming ready), the
 * same on every member. Each queue and name is a sorted run of the ready index; a claim merges them.
 */
import { before, type ReadyPair } from "./ready.ts";
import type { TaskRow } from "./rows.ts";
import type { TaskStore } from "./store.ts";
import { type Claim, LIMITS } from "./types.ts";

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
  const taken: TaskRow[] = [];
  let text = 0;
  let turn = nextTurn(store, pairs);
  while (turn !== null && taken.length < max && text < CLAIM_TEXT_MAX) {
    const row = store.ready.first(turn.pair);
    // The pair is used up, or another one's first task is served before its next.
    if (row === null || (turn.rival !== null && before(turn.rival, row))) {
      turn = nextTurn(store, pairs);
      continue;
    }
    store.claim(row, claim);
    taken.push(row);
    text += row.payload?.length ?? 0;
  }
  return taken;
}

function accepts(claim: Claim, named: ReadonlySet<string>): ((name: string) => boolean) | null {
  const { names } = claim;
  if (names === null || !claim.star) return null;
  const own = new Set(names);
  return (name) => own.has(name) || !named.has(name);
}

/** A pair to take from as long as `rival`, the first task of the next best pair, is not served before its own. */
interface Turn {
  readonly pair: ReadyPair;
  readonly rival: TaskRow | null;
}

function nextTurn(store: TaskStore, pairs: readonly ReadyPair[]): Turn | null {
  let best: ReadyPair | null = null;
  let head: TaskRow | null = null;
  let rival: TaskRow | null = null;
  for (const pair of pairs) {
    const row = store.ready.first(pair);
    if (row === null) continue;
    if (head === null || before(row, head)) {
      rival = head;
      head = row;
      best = pair;
    } else if (rival === null || before(row, rival)) {
      rival = row;
    }
  }
  return best === null ? null : { pair: best, rival };
}
