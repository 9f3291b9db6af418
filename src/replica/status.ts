/** What operators see of one member: its state, what it knows of the others, what is wrong. */
import { EMPTY_CONFIGURATION } from "../raft/configuration.ts";
import { asIndex, type NodeId } from "../raft/types.ts";
import type { Alarm, ConsensusStatus } from "./consensus.ts";
import { STALL_MS, TICK_MS } from "./core.ts";
import type { Parts } from "./parts.ts";
import type { Millis } from "./ports.ts";
import type { ReplicaOptions } from "./replica-options.ts";
import { supportedVersion } from "./versions.ts";

export function statusOf(parts: Parts, options: ReplicaOptions): ConsensusStatus {
  const { quorum, standing, hellos } = parts;
  const { machine, machineVersions } = options;
  const self = parts.identity.id;
  const raft = parts.core.raft;
  const now = options.clock.monotonic();
  const configuration = raft?.configuration ?? EMPTY_CONFIGURATION;
  const contactMs = quorum.contactMs(now);
  return {
    ...standing.leadership,
    id: self,
    clusterId: parts.founder.clusterId,
    commit: raft?.commit ?? asIndex(0),
    applied: machine.applied().index,
    lastIndex: raft?.lastIndex ?? asIndex(0),
    configuration,
    peers: peersOf(parts, options, Object.keys(configuration.members), now),
    contactMs,
    stalenessMs: standing.leadership.role === "leader" ? contactMs : parts.staleness.ageMs(now),
    waiting: parts.peers.waiting(now),
    retired: parts.admission.retired !== null,
    learners: parts.membership.waiting,
    receiving: parts.snapshots.receiving,
    catchingUp: parts.catchingUp.why(machine.applied().index, parts.snapshots.receiving),
    condemned: parts.consistency.condemned,
    alarms: alarmsOf(parts),
    machineVersions: {
      inForce: machine.machineVersion(),
      own: machineVersions.newest,
      supported: supportedVersion(
        configuration,
        { id: self, newest: machineVersions.newest },
        hellos,
      ),
    },
  };
}

function peersOf(
  { identity, core, contacts }: Parts,
  { transport }: ReplicaOptions,
  members: readonly string[],
  now: Millis,
): ConsensusStatus["peers"] {
  const progress = core.raft?.role === "leader" ? core.raft.progress() : null;
  return members
    .filter((id) => id !== identity.id)
    .map((id) => {
      const peer = id as NodeId;
      const known = progress?.get(peer);
      return {
        id: peer,
        match: known?.match ?? asIndex(0),
        state: known?.state ?? "unknown",
        lastContactMs: contacts.sinceMs(peer, now),
        roundTripMs: transport.roundTripMs(peer),
        connected: transport.isConnected(peer),
      };
    });
}

function alarmsOf({ identity, consistency, clockWatch }: Parts): Alarm[] {
  const alarms: Alarm[] = consistency
    .alarms()
    .map(({ member, sentence }) => ({ kind: "inconsistent", member, sentence }));
  const skewed = clockWatch.skewed();
  if (skewed !== null) alarms.push({ kind: "clock-skew", member: identity.id, sentence: skewed });
  return alarms;
}

/** A sentence while this member's log cannot be written. */
export function diskFaultOf({ room, core }: Parts): string | null {
  if (room.isStuck) return "the disk is full";
  const waitMs = (core.raft?.diskWaitTicks ?? 0) * TICK_MS;
  if (waitMs < STALL_MS) return null;
  return `the disk has not answered a write for ${Math.floor(waitMs / 1_000)} s`;
}
