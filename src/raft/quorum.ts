/**
 * Majority arithmetic, for a plain and for a joint configuration. A joint configuration decides only when
 * both of its halves do (Raft dissertation, 4.3), so every function here is a minimum over two halves.
 */
import { must } from "./invariant.ts";
import type { Configuration, NodeId } from "./types.ts";

type Halves = Pick<Configuration, "voters" | "outgoing">;

export type VoteResult = "won" | "lost" | "pending";

/** Voters of either half; the members that are counted, and that may campaign. */
export function isVoter({ voters, outgoing }: Halves, id: NodeId): boolean {
  return voters.includes(id) || outgoing.includes(id);
}

export function isJoint({ outgoing }: Halves): boolean {
  return outgoing.length > 0;
}

/** Everyone whose vote is asked for, each once, in the order of the configuration. */
export function allVoters({ voters, outgoing }: Halves): readonly NodeId[] {
  return outgoing.length === 0 ? voters : [...new Set([...voters, ...outgoing])];
}

/**
 * The highest number that a majority of `voters` has reached. An empty half has no say: Infinity.
 * With n voters, sorted from high to low, position floor(n / 2) is the last one that a majority covers.
 */
export function reachedByMajority(
  voters: readonly NodeId[],
  reached: (id: NodeId) => number,
): number {
  if (voters.length === 0) return Infinity;
  const descending = voters.map(reached).sort((a, b) => b - a);
  return must(descending[Math.floor(voters.length / 2)], "half of them are fewer than all");
}

/** The highest number (log index, heartbeat round) that a quorum has reached; 0 without any voter. */
export function reachedByQuorum(halves: Halves, reached: (id: NodeId) => number): number {
  if (halves.voters.length === 0) return 0;
  return Math.min(
    reachedByMajority(halves.voters, reached),
    reachedByMajority(halves.outgoing, reached),
  );
}

/** Whether the members for which `has` is true form a quorum. */
export function hasQuorum(halves: Halves, has: (id: NodeId) => boolean): boolean {
  return reachedByQuorum(halves, (id) => (has(id) ? 1 : 0)) >= 1;
}

function majorityVote(voters: readonly NodeId[], votes: ReadonlyMap<NodeId, boolean>): VoteResult {
  if (voters.length === 0) return "won";
  const needed = Math.floor(voters.length / 2) + 1;
  let granted = 0;
  let refused = 0;
  for (const id of voters) {
    const vote = votes.get(id);
    if (vote === true) granted += 1;
    else if (vote === false) refused += 1;
  }
  if (granted >= needed) return "won";
  return voters.length - refused < needed ? "lost" : "pending";
}

/** Result of an election by the answers so far; one lost half loses it. Without any voter nobody wins. */
export function voteResult(halves: Halves, votes: ReadonlyMap<NodeId, boolean>): VoteResult {
  if (halves.voters.length === 0) return "lost";
  const incoming = majorityVote(halves.voters, votes);
  const outgoing = majorityVote(halves.outgoing, votes);
  if (incoming === "lost" || outgoing === "lost") return "lost";
  return incoming === "won" && outgoing === "won" ? "won" : "pending";
}
