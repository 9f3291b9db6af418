/**
 * Machine versions of members: who may take part, and what all of them can apply.
 *
 * What an entry does is fixed by the machine version in force when it is applied. Builds keep the code of older
 * versions, so a newer build beside older ones applies like them; and once every member supports a newer version,
 * the leader raises it by an entry. From then on a build that does not know it cannot take part any more.
 */
import type { Configuration, NodeId } from "../raft/types.ts";
import type { PeerHello } from "./ports.ts";

/** Machine versions that a build applies, both ends included. */
export interface MachineVersions {
  readonly oldest: number;
  readonly newest: number;
}

/** A sentence when this member's build cannot apply what the cluster has in force; says what to do. */
export function versionRefusal(hello: PeerHello, inForce: number): string | null {
  const { id, machineVersion: newest, machineVersionOldest: oldest } = hello;
  if (newest < inForce) {
    return (
      `the build of ${id} is too old: it applies machine version ${newest} at most, the cluster runs ${inForce}: ` +
      `start ${id} with the build of the other members`
    );
  }
  if (oldest > inForce) {
    return (
      `the build of ${id} is too new: it applies machine version ${oldest} and later, the cluster still runs ${inForce}: ` +
      `start ${id} with the build of the other members, upgrade all of them to one that applies both, and try again`
    );
  }
  return null;
}

/** Highest machine version that every member applies; null while one of them was not heard of. */
export function supportedVersion(
  { members }: Configuration,
  self: { readonly id: NodeId; readonly newest: number },
  hellos: ReadonlyMap<NodeId, PeerHello>,
): number | null {
  let supported = self.newest;
  for (const id of Object.keys(members)) {
    if (id === self.id) continue;
    const hello = hellos.get(id as NodeId);
    if (hello === undefined) return null;
    supported = Math.min(supported, hello.machineVersion);
  }
  return supported;
}
