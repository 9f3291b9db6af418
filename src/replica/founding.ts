/**
 * The birth of a cluster (docs/architecture.md): how members with empty folders agree, once, on one entry 1.
 *
 * The member with the smallest id founds, and only after EVERY listed member has answered with an empty
 * folder and the same list of ids. Its record names each member with the incarnation of its folder. A
 * member adopts a record that it is sent only while its own log is empty and only if the record names its own
 * incarnation: so a founder that dies half-way is completed later, and a folder that was wiped (another
 * incarnation) never slips back in: it waits to be re-added. Nor does a folder found a second cluster whose log is
 * damaged from its first entry on. Who is let in by a member of a cluster, though, is
 * a member: its incarnation was added meanwhile (admission.ts).
 */
import type { Configuration, NodeId } from "../raft/types.ts";
import type { BootstrapRecord, Identity, Millis, PeerHello } from "./ports.ts";

/** What a member with an empty folder should do now. */
export type FoundingStep =
  | { readonly do: "found" }
  | { readonly do: "adopt"; readonly record: BootstrapRecord }
  | { readonly do: "wait"; readonly reason: string };

/**
 * `peerIds`: sorted ids of `--peers`, own id included; `hellos`: what each peer said of itself that let this
 * member in; `join`: `--join`.
 */
export function foundingStep(
  identity: Identity,
  peerIds: readonly NodeId[],
  hellos: ReadonlyMap<NodeId, PeerHello>,
  join: string | null,
): FoundingStep {
  for (const hello of hellos.values()) {
    if (hello.bootstrap === null) continue;
    const record = JSON.parse(hello.bootstrap) as BootstrapRecord;
    if (identity.clusterId === null || identity.clusterId === record.clusterId)
      return { do: "adopt", record };
  }
  // It held entry 1, and cannot read it any more.
  if (identity.clusterId !== null)
    return {
      do: "wait",
      reason: `the log is lost: waiting for a member of cluster ${identity.clusterId} to send it`,
    };
  if (join !== null) return { do: "wait", reason: `joining the cluster of ${join}` };
  const missing = peerIds.filter((id) => id !== identity.id && !hellos.has(id));
  if (missing.length > 0) {
    return {
      do: "wait",
      reason: `waiting for ${missing.join(", ")} before the first start of the cluster`,
    };
  }
  for (const hello of hellos.values()) {
    if (hello.peerIds.join() !== peerIds.join()) {
      return {
        do: "wait",
        reason: `${hello.id} was started with --peers for ${hello.peerIds.join(", ") || "nobody"}, this member for ${peerIds.join(", ")}: give all the same ids`,
      };
    }
    if (hello.lastIndex !== 0 || hello.clusterId !== null) {
      return { do: "wait", reason: `${hello.id} has a log already: waiting for its word` };
    }
  }
  if (peerIds[0] !== identity.id)
    return { do: "wait", reason: `waiting for ${peerIds[0]} to found the cluster` };
  return { do: "found" };
}

export function names(
  record: BootstrapRecord,
  identity: { id: NodeId; incarnation: string },
): boolean {
  return record.members.some(
    (member) => member.id === identity.id && member.incarnation === identity.incarnation,
  );
}

/** The record of a new cluster. `settings` go into it as they are. */
export function foundingRecord(
  clusterId: string,
  createdAt: Millis,
  founder: {
    readonly id: NodeId;
    readonly incarnation: string;
    readonly url: string;
    readonly machineVersion: number;
  },
  hellos: ReadonlyMap<NodeId, PeerHello>,
  settings: unknown,
): BootstrapRecord {
  const machineVersion = [...hellos.values()].reduce(
    (least, hello) => Math.min(least, hello.machineVersion),
    founder.machineVersion,
  );
  const others = [...hellos.values()].map(({ id, incarnation, advertise }) => ({
    id,
    incarnation,
    url: advertise,
  }));
  const { id: own, incarnation: folder, url: address } = founder;
  const self = { id: own, incarnation: folder, url: address };
  const members = [self, ...others].sort((a, b) => (a.id < b.id ? -1 : 1));
  return { clusterId, createdAt, members, settings, machineVersion };
}

export function firstConfiguration(record: BootstrapRecord): Configuration {
  return {
    voters: record.members.map(({ id }) => id),
    outgoing: [],
    learners: [],
    learnersNext: [],
    members: Object.fromEntries(
      record.members.map(({ id, url, incarnation }) => [id, { url, incarnation }]),
    ),
  };
}
