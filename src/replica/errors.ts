/** What the parts of the driver say alike when something fails. */
import { ConsensusError } from "./consensus.ts";

export function notLeader(): ConsensusError {
  return new ConsensusError("not-leader", "this member does not lead");
}

export function stopping(): ConsensusError {
  return new ConsensusError("stopping", "this member is shutting down");
}

export function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
