/** The cluster as people see it, out of what consensus says of itself. */
import type { Alarm, ConsensusStatus } from "../replica/consensus.ts";
import type { Millis } from "../replica/ports.ts";
import type { Health } from "./service.ts";
import type { ClusterMemberView, ClusterView } from "./types.ts";

/** Entries that a ready member may be behind what it knows to be committed. */
const LAG_MAX = 1_000;
/** An election is no alarm. */
const LOST_QUORUM_MS: Millis = 2_000;

/** Every member as `status` shows it; only a leader's own status knows how far the others are. */
export function memberViews(
  status: ConsensusStatus,
  contactTimeoutMs: Millis,
): ClusterMemberView[] {
  const { configuration, leader } = status;
  const voters = new Set<string>([...configuration.voters, ...configuration.outgoing]);
  const leads = status.role === "leader";
  const peers = new Map<string, ConsensusStatus["peers"][number]>(
    status.peers.map((peer) => [peer.id, peer]),
  );
  return Object.keys(configuration.members)
    .sort()
    .map((id) => {
      const url = configuration.members[id]?.url ?? "";
      const voter = voters.has(id);
      const replaces = configuration.members[id]?.replaces ?? null;
      const role = id === leader ? "leader" : voter ? "follower" : "learner";
      if (id === status.id) {
        return {
          id: status.id,
          url,
          role,
          voter,
          match_index: status.lastIndex,
          lag: leads ? 0 : Math.max(0, status.commit - status.applied),
          reachable: true,
          last_contact_ms: 0,
          waiting: null,
          replaces,
          round_trip_ms: null,
          replication: null,
        };
      }
      const peer = peers.get(id);
      const contactMs = peer?.lastContactMs ?? null;
      return {
        id: peer?.id ?? (id as ClusterMemberView["id"]),
        url,
        role,
        voter,
        match_index: leads && peer !== undefined ? peer.match : null,
        lag: leads && peer !== undefined ? Math.max(0, status.lastIndex - peer.match) : null,
        reachable: peer?.connected === true && contactMs !== null && contactMs <= contactTimeoutMs,
        last_contact_ms: contactMs === null ? null : Math.round(contactMs),
        waiting: status.learners.get(id as ClusterMemberView["id"]) ?? null,
        replaces,
        round_trip_ms: rounded(peer?.roundTripMs ?? null),
        replication: leads && peer !== undefined ? peer.state : null,
      };
    });
}

/** Milliseconds to a thousandth: on one machine a round trip is far below one. */
function rounded(ms: Millis | null): Millis | null {
  return ms === null ? null : Math.round(ms * 1_000) / 1_000;
}

export function clusterView(
  status: ConsensusStatus,
  members: readonly ClusterMemberView[],
  alarms: readonly Alarm[],
): ClusterView {
  const { inForce, own, supported } = status.machineVersions;
  const { receiving } = status;
  return {
    cluster_id: status.clusterId,
    node_id: status.id,
    role: status.role === "follower" && isLearner(status) ? "learner" : status.role,
    term: status.term,
    leader_id: status.leader,
    commit_index: status.commit,
    applied_index: status.applied,
    last_index: status.lastIndex,
    machine_version: { in_force: inForce, newest: own, supported },
    snapshot:
      receiving === null ? null : { received_bytes: receiving.bytes, size_bytes: receiving.of },
    alarms,
    members,
  };
}

function isLearner({ id, configuration }: ConsensusStatus): boolean {
  return configuration.learners.includes(id);
}

/** What needs an operator, as far as this member knows: what consensus says, and what shows here alone. */
export function alarmsOf(
  status: ConsensusStatus,
  contactTimeoutMs: Millis,
  lowDisk: string | null,
  stuckExecutors: number,
): readonly Alarm[] {
  const alarms = [...status.alarms];
  const member = status.id;
  if (lowDisk !== null) alarms.push({ kind: "low-disk", member, sentence: lowDisk });
  if (stuckExecutors > 0)
    alarms.push({
      kind: "stuck-executors",
      member,
      sentence: `${stuckExecutors} executors of ${member} do not end: a handler blocks in native code. Their slots take no tasks; restart the member`,
    });
  const { contactMs, configuration, waiting } = status;
  const lost = contactMs === null || contactMs > Math.max(LOST_QUORUM_MS, contactTimeoutMs);
  if (lost && waiting === null && configuration.voters.length > 0)
    alarms.push({
      kind: "no-quorum",
      member: null,
      sentence: `${member} has no contact with a leader and a majority of the ${configuration.voters.length} voters: nothing can be written until they are back`,
    });
  return alarms;
}

/** `diskFault`: a sentence when this member's disk does not work. */
export function healthOf(
  status: ConsensusStatus,
  contactTimeoutMs: Millis,
  diskFault: string | null,
  draining: boolean,
  alarms: readonly Alarm[],
): Health {
  const unhealthy = (reason: string): Health => ({
    status: "unhealthy",
    ready: false,
    reason,
    alarms,
  });
  if (diskFault !== null) return unhealthy(diskFault);
  if (status.condemned !== null) return unhealthy(status.condemned);
  if (status.waiting !== null) return unhealthy(status.waiting);
  if (status.leader === null) return unhealthy("no leader is known");
  if (status.contactMs === null || status.contactMs > contactTimeoutMs) {
    return unhealthy(
      status.role === "leader"
        ? "this leader has no contact with a majority"
        : `no contact with the leader ${status.leader}`,
    );
  }
  const lag = status.commit - status.applied;
  const notReady = draining
    ? "this member is draining"
    : lag >= LAG_MAX
      ? `this member is ${lag} entries behind`
      : status.catchingUp;
  return { status: "healthy", ready: notReady === null, notReady, alarms };
}
