/** Who is healed for the second phase: a core of members that must be able to go on by themselves, whoever is dead. */
import { decodeConfigurationEntry } from "../../src/raft/configuration.ts";
import type { Configuration, NodeId } from "../../src/raft/types.ts";
import { isBehind } from "./disk.ts";
import { isQuorum, votes } from "./membership.ts";
import type { SimNode } from "./node.ts";
import type { Simulation } from "./simulation.ts";

/** A random quorum, and perhaps some more; before the founding every member is needed. */
export function drawCore(sim: Simulation): readonly SimNode[] {
  const { prng } = sim.world;
  const founders = sim.nodes.slice(0, sim.founders.length);
  if (
    sim.membership === null ||
    founders.some(
      (node) =>
        node.disk.clusterId === null &&
        !node.ended &&
        node.through === null &&
        node.disk.entries.length === 0 &&
        sim.appliedMax <= 1,
    )
  )
    return founders.filter(({ ended }) => !ended);
  // Also of memberships that are not committed yet, or on their way to a disk: one may be in force at whoever leads next.
  const known = [
    sim.membership.configuration,
    ...sim.nodes.flatMap(({ disk, store }) =>
      [disk.entries, store?.handed ?? []]
        .flatMap((log) => log.slice(sim.appliedMax))
        .filter(({ kind }) => kind === "config")
        .map(decodeConfigurationEntry),
    ),
  ];
  const able = sim.nodes
    .filter(({ ended, rolledBack }) => !ended && !rolledBack)
    .filter(({ hasForgottenStarts }) => !hasForgottenStarts)
    // A founder whose disk has taken nothing yet is told of the founding by whoever was there.
    .filter(
      ({ disk, owes, through }) => disk.entries.length > 0 || owes !== null || through === null,
    )
    .filter(({ id, disk }) =>
      known.some(({ members }) => members[id]?.incarnation === disk.incarnation),
    )
    .toSorted(() => prng.float() - 0.5);
  const sound = able.filter(({ owes }) => owes === null);
  const core: SimNode[] = [];
  // Members refuse to remove somebody when the rest could not decide anything.
  const possible = known
    .flatMap((each) => withoutLeaving(sim, each))
    .filter((each) => isQuorum(each, (id) => sound.some((node) => node.id === id)));
  const decides = (): boolean => {
    const voting = voters(core, known);
    return [...known, ...possible].every((each) => isQuorum(each, (id) => voting.has(id)));
  };
  for (const node of able) if (!decides() || prng.chance(0.4)) core.push(node);
  if (!decides()) sim.fail("simulator", "more was lost than a cluster can survive");
  return core;
}

/** As it is, and as it would be without any of those who are to leave, `another` too: each may go, now or never. */
export function withoutLeaving(
  { leaving }: Simulation,
  configuration: Configuration,
  another: NodeId | null = null,
): Configuration[] {
  let all = [configuration];
  for (const id of configuration.voters.filter((each) => leaving.has(each) || each === another))
    all = all.flatMap((each) => {
      const voters = each.voters.filter((voter) => voter !== id);
      return voters.length === 0 ? [each] : [each, { ...each, voters }];
    });
  return all;
}

/**
 * Of `core` those that can elect somebody together. Whoever lost the end of its log stands for nobody and votes for
 * one that holds as much: it counts if the member with the best log of the others, which all others vote for, does.
 */
function voters(core: readonly SimNode[], known: readonly Configuration[]): ReadonlySet<NodeId> {
  const sound = core.filter(({ owes }) => owes === null);
  const standing = sound.filter(({ id }) => known.every((each) => votes(each, id)));
  const [first] = standing;
  const ids = sound.map(({ id }) => id);
  if (first === undefined) return new Set(ids);
  const end = standing
    .map(({ disk }) => disk.end)
    .reduce((best, each) => (isBehind(best, each) ? each : best));
  const covered = ({ owes, disk }: SimNode): boolean =>
    owes !== null && !isBehind(end, owes) && !isBehind(end, disk.end);
  return new Set([...ids, ...core.filter(covered).map(({ id }) => id)]);
}
