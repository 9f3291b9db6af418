/**
 * The consensus core, for whoever drives it from outside: the driver in `replica/`, tests, a simulator, or a
 * scenario played by hand. docs/raft.md shows how; nothing beyond this file is needed for it.
 *
 * - {@link Raft}: one member. Inputs (`tick`, `step`, `campaign`, `propose`, `proposeChange`, `transfer`,
 *   `readIndex`, `persisted`, `applied`, `compacted`, `snapshotInstalled`) change it; `takeEffects` says what to do about it.
 * - {@link recoveredState}, {@link foundingEntry}: what a core begins with.
 * - {@link ackOf}: what the disk answers to a write.
 * - Quorums as plain functions: {@link reachedByQuorum} (the committed index), {@link voteResult}, both for
 *   plain and joint configurations.
 */
export {
  applyChanges,
  decodeConfigurationEntry,
  encodeConfiguration,
  leaveJoint,
} from "./configuration.ts";
export { InvariantViolation } from "./invariant.ts";
export type { RecoveredState } from "./log.ts";
export {
  DEFAULT_LIMITS,
  type PeerProgress,
  type ProposalItem,
  type ProposeResult,
  type RaftOptions,
} from "./options.ts";
export { ackOf } from "./pending-writes.ts";
export {
  hasQuorum,
  reachedByMajority,
  reachedByQuorum,
  type VoteResult,
  voteResult,
} from "./quorum.ts";
export { Raft } from "./raft.ts";
export { foundingEntry, type GivenLog, plainConfiguration, recoveredState } from "./recovered.ts";
export * from "./types.ts";
