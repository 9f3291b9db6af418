/**
 * The version of what members say to each other on a connection: the handshake, the layout of frames, and the
 * messages in them. Each side says in its first message which versions it speaks; both use the newest one that
 * they have in common, so that builds of neighbouring versions run beside each other while a cluster is upgraded.
 *
 * A field that an older build may ignore needs no new version: readers pass over what they do not know.
 */
import type { NodeId } from "../raft/types.ts";

/** What a build speaks, both ends included. */
export interface ProtocolRange {
  readonly oldest: number;
  readonly newest: number;
}

/** This build. `newest` grows when an older member would misunderstand; `oldest` when a version is given up. */
export const PROTOCOL: ProtocolRange = { oldest: 2, newest: 2 };

/** The newest version in common, or null. */
export function agreedVersion(ours: ProtocolRange, theirs: ProtocolRange): number | null {
  const version = Math.min(ours.newest, theirs.newest);
  return version >= Math.max(ours.oldest, theirs.oldest) ? version : null;
}

/** For both logs when two members have no version in common: which one is to be replaced. */
export function protocolRefusal(
  self: NodeId,
  ours: ProtocolRange,
  peer: NodeId,
  theirs: ProtocolRange,
): string {
  const older = ours.newest < theirs.newest ? self : peer;
  return (
    `${self} speaks ${words(ours)} of the peers' protocol, ${peer} ${words(theirs)}: ` +
    `start ${older} with a newer build, one that speaks a version of the other's`
  );
}

function words({ oldest, newest }: ProtocolRange): string {
  return oldest === newest ? `version ${newest}` : `versions ${oldest} to ${newest}`;
}
