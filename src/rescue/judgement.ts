/** Whether a cluster may be given up, and with which of its survivors to go on. Knows no file and no network. */
import { allVoters } from "../raft/quorum.ts";
import type { Configuration, LogIndex, NodeId, Term } from "../raft/types.ts";

/** Where a log ends. */
export interface Position {
  readonly index: LogIndex;
  readonly term: Term;
}

/** Whether `a` may hold what `b` does not: by Raft's own order (5.4.1). */
export function isFurther(a: Position, b: Position): boolean {
  return a.term > b.term || (a.term === b.term && a.index > b.index);
}

/** Which log to go on with; the first of equal ones. */
export function furthest<T>(survivors: readonly T[], last: (survivor: T) => Position): T | null {
  return survivors.reduce<T | null>(
    (best, each) => (best === null || isFurther(last(each), last(best)) ? each : best),
    null,
  );
}

/** All whose log ends where the furthest one's does: any of them holds what the others hold. */
export function allFurthest<T>(
  survivors: readonly T[],
  last: (survivor: T) => Position,
): readonly T[] {
  const best = furthest(survivors, last);
  return best === null ? [] : survivors.filter((each) => !isFurther(last(best), last(each)));
}

/** Another member, as far as it answers. */
export interface Answering {
  readonly id: NodeId;
  readonly url: string;
  /** Null: nobody answers there, or somebody else. */
  readonly live: { readonly healthy: boolean } | null;
}

/** Why `self` must not be made a cluster of its own: a sentence. Null: the others can decide nothing any more. */
export function aliveBecause(
  self: NodeId,
  configuration: Configuration,
  others: readonly Answering[],
): string | null {
  const healthy = others.find(({ live }) => live?.healthy === true);
  if (healthy !== undefined)
    return `${healthy.id} at ${healthy.url} is in touch with a leader: the cluster lives. Start this member as before, or remove it (DELETE /api/cluster/members/${self}).`;
  const alive = new Set(others.flatMap(({ id, live }) => (live === null ? [] : [id])));
  const running = [...alive].join(", ");
  alive.add(self);
  for (const half of [configuration.voters, configuration.outgoing]) {
    if (half.length === 0) continue;
    const count = half.filter((id) => alive.has(id)).length;
    if (count <= half.length / 2) return null;
  }
  if (allVoters(configuration).length === 1 && alive.size === 1)
    return `${self} is the only voter: start it as before, it needs nobody.`;
  return `${running} run, which is a majority with this member: start it as before, and they elect a leader.`;
}
