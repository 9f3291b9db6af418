/**
 * A fault atlas keeps data from being destroyed beyond what the cluster promises to survive: a folder or a log is lost, or goes
 * back in time, only while all that it holds is on a quorum of the others (`mayLose`). Nor is anybody asked to leave in the
 * moment after such a loss, in which the members do not know yet that the rest could not decide anything (`mayLeave`).
 */
import { asIndex, type NodeId } from "../../src/raft/types.ts";
import { withoutLeaving } from "./core.ts";
import { isQuorum, votes } from "./membership.ts";
import type { SimNode } from "./node.ts";
import type { Simulation } from "./simulation.ts";
import type { Prng } from "./world.ts";

/** The end of a log, or all of it, cannot be read any more when its member starts anew: the others repair it. */
export function rot(sim: Simulation, prng: Prng, node: SimNode): boolean {
  if (node.owes !== null || !mayLose(sim, node)) return false;
  const { compacted, entries, installing } = node.disk;
  if (installing !== null || entries.length <= compacted.index + 1) return false;
  const last = entries.length;
  const first = Math.max(compacted.index + 1, prng.chance(0.7) ? last - 5 : 1);
  sim.crashed(node, "none");
  // What was on its way to the disk may be there now.
  if (node.disk.entries.length !== last) return false;
  // From its first entry on it does not even know who its members are.
  node.rot(asIndex(prng.chance(0.2) ? first : prng.between(first, last)));
  return true;
}

/**
 * Whether the members see to it that the others can decide whatever comes of asking `node` to leave: they refuse it while
 * those that they cannot reach are too many, and for a moment count whose folder was lost just now.
 */
export function mayLeave(sim: Simulation, node: SimNode): boolean {
  const { nodes, membership } = sim;
  if (membership === null) return false;
  const alive = nodes.filter((other) => other.owes !== null || isSound(sim, other));
  // Who is up is believed in a moment, and what is asked now may wait for a leader until then.
  const believed = new Set(nodes.flatMap((each) => (each.up ? [each.id, ...reachable(each)] : [])));
  const lost = membership.configuration.voters.filter((id) =>
    alive.every((other) => other.id !== id),
  );
  return withoutLeaving(sim, membership.configuration, node.id).every(
    (each) =>
      isQuorum(each, (id) => alive.some((other) => other.id === id)) ||
      !each.voters.some((id) => lost.includes(id) && believed.has(id)),
  );
}

/** Whom it would count if it led. */
function reachable({ replica }: SimNode): readonly NodeId[] {
  if (replica === null) return [];
  return replica
    .status()
    .peers.filter(({ connected, lastContactMs }) => connected && lastContactMs !== null)
    .map(({ id }) => id);
}

/** It can go on: its folder is that of a member, and was neither lost nor put back. */
function isSound(sim: Simulation, node: SimNode): boolean {
  const { ended, rolledBack, hasForgottenStarts, owes } = node;
  return !ended && !rolledBack && !hasForgottenStarts && owes === null && sim.isMember(node);
}

/** Its vote may be on its way to one whom it makes the leader; not once somebody leads that term, or it gave none. */
function isVoteOver(sim: Simulation, { disk }: SimNode): boolean {
  const { term, vote } = disk.hardState;
  const leads = sim.nodes.some(
    ({ leadership }) => leadership?.role === "leader" && leadership.term >= term,
  );
  return leads || (vote === null && disk.entries.length === 0);
}

/** Whether every promise that this member's disk keeps is kept by a quorum of the others as well. */
export function mayLose(sim: Simulation, node: SimNode): boolean {
  const { nodes, membership } = sim;
  if (membership === null) return false;
  const last = node.disk.entries.at(-1);
  const sound = nodes.filter((other) => other !== node && isSound(sim, other));
  // Whoever is asked to go may be gone before anybody notices that this folder is: then the others are to decide.
  const later = withoutLeaving(sim, membership.configuration);
  const decide = (some: readonly SimNode[]): boolean =>
    later.every((each) => isQuorum(each, (id) => some.some((other) => other.id === id)));
  // It promised no entry; but of a founder the others' record names this very folder, and waits for it.
  if (last === undefined)
    return (
      !sim.isMember(node) ||
      !votes(membership.configuration, node.id) ||
      (isVoteOver(sim, node) && decide(sound))
    );
  // A change of the membership is under way, or one is not known to be over: nobody knows whom to count.
  const settled = nodes.every(
    ({ disk, store, ended }) =>
      (store?.membership?.index ?? 0) <= membership.index &&
      disk.installing === null &&
      // Of who is down just now nobody but its disk tells.
      (ended || !disk.entries.slice(membership.index).some(({ kind }) => kind === "config")),
  );
  if (!settled) return false;
  if (!votes(membership.configuration, node.id)) return true;
  if (!isVoteOver(sim, node)) return false;
  return decide(sound.filter(({ disk }) => disk.termAt(last.index) === last.term));
}
