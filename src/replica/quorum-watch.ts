/** How long ago this member was in touch with a quorum, by way of its leader or as one; and what is refused without. */
import type { Raft } from "../raft/raft.ts";
import type { NodeId } from "../raft/types.ts";
import { ConsensusError } from "./consensus.ts";
import type { Contacts } from "./contacts.ts";
import type { Millis } from "./ports.ts";

/** Without a quorum for this long, writes and reads are refused at once (the contract says 2 s, answer included). */
const NO_QUORUM_MS: Millis = 1_700;

/** What it needs of the replica around it. */
export interface QuorumWatchPort {
  readonly contacts: Contacts;
  raft(): Raft | null;
  /** As it was told last. */
  leader(): NodeId | null;
  /** Why this member does not take part, for people. */
  waiting(): string | null;
}

export class QuorumWatch {
  readonly #port: QuorumWatchPort;
  #lastAt: Millis;
  /** As of the newest look: while requests by the thousand keep the loop busy, the peers' words wait unread. */
  #lost = false;

  constructor(port: QuorumWatchPort, now: Millis) {
    this.#port = port;
    this.#lastAt = now;
  }

  get isLost(): boolean {
    return this.#lost;
  }

  /** This member did not run for so long, and could hear nobody. */
  away(now: Millis, ms: Millis): void {
    this.#lastAt = Math.min(now, this.#lastAt + ms);
  }

  /** On every tick. */
  look(now: Millis): void {
    const contact = this.contactMs(now);
    if (contact !== null && this.#port.leader() !== null) {
      this.#lastAt = Math.max(this.#lastAt, now - contact);
    }
    this.#lost = now - this.#lastAt >= NO_QUORUM_MS;
  }

  /** Since a leader heard of a quorum, or a follower of its leader; null: never. */
  contactMs(now: Millis): Millis | null {
    const raft = this.#port.raft();
    if (raft === null) return null;
    const { contacts } = this.#port;
    if (raft.role === "leader") return contacts.quorumMs(raft.configuration, now);
    return raft.leader === null ? null : contacts.sinceMs(raft.leader, now);
  }

  noQuorum(): ConsensusError {
    const waiting = this.#port.waiting();
    if (waiting !== null) return new ConsensusError("no-leader", waiting);
    return new ConsensusError("no-quorum", "no leader is in touch with a majority of the members");
  }

  late(): ConsensusError {
    return this.#port.leader() === null
      ? new ConsensusError("no-leader", "no leader was found within the time limit")
      : new ConsensusError("no-quorum", "no quorum answered within the time limit");
  }
}
