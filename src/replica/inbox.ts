/** What arrives from the other members, and who is to hear it. */
import type { Message, NodeId } from "../raft/types.ts";
import type { Calls } from "./calls.ts";
import type { Contacts } from "./contacts.ts";
import type { Core } from "./core.ts";
import type { Eligibility } from "./eligibility.ts";
import type { Clock, PeerFrame } from "./ports.ts";
import type { Snapshots } from "./snapshots.ts";
import type { Standing } from "./standing.ts";
import type { Writes } from "./writes.ts";

/** What it needs of the replica around it. */
export interface InboxPort {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly core: Core;
  readonly contacts: Contacts;
  readonly eligibility: Eligibility;
  readonly standing: Standing;
  readonly writes: Writes;
  readonly calls: Calls;
  readonly snapshots: Snapshots;
  /** It takes part in the log: whatever its hello said, it belongs to this cluster. */
  takesPart(peer: NodeId): void;
  isMember(id: NodeId): boolean;
  send(to: NodeId, frame: PeerFrame): boolean;
}

export class Inbox {
  readonly #port: InboxPort;
  /** Frames that were not heard. */
  dropped = 0;

  constructor(port: InboxPort) {
    this.#port = port;
  }

  /** `incarnation`: of the folder that the connection was let in for. */
  frame(from: NodeId, frame: PeerFrame, incarnation: string): void {
    const { contacts, clock, writes, calls, snapshots } = this.#port;
    contacts.heard(from, clock.monotonic());
    if (this.#isOfEarlierFolder(from, frame, incarnation)) {
      this.dropped += 1;
      return;
    }
    switch (frame.kind) {
      case "raft":
        this.#message(from, frame.message);
        return;
      case "propose":
        // Of a removed member nothing may be logged behind its removal: its id may come back with another folder.
        if (this.#port.isMember(from)) writes.proposed(from, frame.proposal);
        return;
      case "refuse":
        writes.refused(from, frame.refusal);
        return;
      case "call":
      case "reply":
      case "error":
        calls.frame(from, frame);
        return;
      case "snapshot":
        snapshots.frame(from, frame.frame);
        return;
    }
  }

  #message(from: NodeId, message: Message): void {
    const { self, core, eligibility, standing } = this.#port;
    this.#port.takesPart(from);
    if (message.from !== from || message.to !== self) return;
    // Handing leadership over skips the election timer, which stands still at such a member (T1).
    if (message.type === "timeout-now" && !eligibility.mayLead) return;
    if (core.isHalted) {
      this.#hearHalted(message);
      return;
    }
    if (message.type === "vote" && eligibility.isOutside) return;
    if (message.type === "timeout-now" && from === core.raft?.leader) standing.expect("transfer");
    const { raft } = core;
    if (raft === null) return;
    raft.step(message);
    // Many an answer changes nothing: the third one for an entry, say.
    if (raft.hasWork) core.schedulePump();
  }

  /**
   * The id was removed and has come back with another folder, or waits for one, and what the earlier one has on its way arrives
   * now: a promise that the new folder does not keep, or a request under a number that it counts anew. What a
   * leader sends is heard all the same: it may be a member by a newer configuration than this member's.
   */
  #isOfEarlierFolder(from: NodeId, frame: PeerFrame, incarnation: string): boolean {
    const { raft } = this.#port.core;
    const known = raft?.configuration.members[from]?.incarnation;
    if (raft === null || known === undefined || known === incarnation) return false;
    if (frame.kind === "propose") return true;
    if (frame.kind !== "raft" || !frame.message.type.endsWith("-reply")) return false;
    // Whose admission was lost with its leader is told of that by what this member's log holds in its place.
    return known !== "" || raft.hasHeld(incarnation);
  }

  /**
   * A heartbeat of the leader that the core follows is answered as the core would, which changes nothing in
   * it: a leader that has only this member for its quorum must not step down because of an install.
   */
  #hearHalted(message: Message): void {
    const { self, core } = this.#port;
    const { from, term } = message;
    if (message.type !== "heartbeat") return;
    if (from !== core.raft?.leader || term !== core.raft.term) return;
    const { round } = message;
    const reply: Message = { from: self, to: from, term, type: "heartbeat-reply", round };
    this.#port.send(from, { kind: "raft", message: reply });
  }
}
