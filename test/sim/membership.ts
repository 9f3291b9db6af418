/** Quorums as the simulator counts them: on its own, so that a wrong count of the core does not hide itself. */
import type { Configuration, NodeId } from "../../src/raft/types.ts";

type Voters = readonly NodeId[];

/** More than half of each half of a joint configuration; nobody else is asked. */
export function isQuorum(
  { voters, outgoing }: Configuration,
  has: (id: NodeId) => boolean,
): boolean {
  return voters.length > 0 && isMajority(voters, has) && isMajority(outgoing, has);
}

/** Asked with every answer of every member: it makes nothing. */
function isMajority(half: Voters, has: (id: NodeId) => boolean): boolean {
  let count = 0;
  for (const id of half) if (has(id)) count += 1;
  return half.length === 0 || 2 * count > half.length;
}

/** Whether no two quorums, one of each, can be without a common member. */
export function shareQuorums(a: Configuration, b: Configuration): boolean {
  const needed = (half: Voters): number => Math.floor(half.length / 2) + 1;
  const overlap = (one: Voters, other: Voters): boolean =>
    needed(one) + needed(other) > new Set([...one, ...other]).size;
  const halves = ({ voters, outgoing }: Configuration): readonly Voters[] =>
    outgoing.length === 0 ? [voters] : [voters, outgoing];
  return halves(a).some((one) => halves(b).some((other) => overlap(one, other)));
}

export function votes({ voters, outgoing }: Configuration, id: NodeId): boolean {
  return voters.includes(id) || outgoing.includes(id);
}
