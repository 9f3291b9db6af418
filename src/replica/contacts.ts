/** When this member last heard of each other one, and what follows for the quorum. Monotonic times. */
import type { Configuration, NodeId } from "../raft/types.ts";
import type { Millis } from "./ports.ts";

export class Contacts {
  readonly #self: NodeId;
  readonly #heardAt = new Map<NodeId, Millis>();

  constructor(self: NodeId) {
    this.#self = self;
  }

  heard(peer: NodeId, now: Millis): void {
    this.#heardAt.set(peer, now);
  }

  /** Since the newest frame of `peer`, or null when none ever came. */
  sinceMs(peer: NodeId, now: Millis): Millis | null {
    if (peer === this.#self) return 0;
    const at = this.#heardAt.get(peer);
    return at === undefined ? null : now - at;
  }

  /** Since a quorum of the configuration (of both halves, when joint) was heard; null: never. */
  quorumMs(configuration: Configuration, now: Millis): Millis | null {
    const halves = [configuration.voters, configuration.outgoing].filter((half) => half.length > 0);
    let worst: Millis = 0;
    for (const half of halves) {
      const ages = half
        .map((id) => this.sinceMs(id, now) ?? Number.POSITIVE_INFINITY)
        .sort((a, b) => a - b);
      worst = Math.max(worst, ages[Math.floor(half.length / 2)] ?? Number.POSITIVE_INFINITY);
    }
    return Number.isFinite(worst) ? worst : null;
  }

  forgetAllBut(ids: ReadonlySet<string>): void {
    for (const id of this.#heardAt.keys()) if (!ids.has(id)) this.#heardAt.delete(id);
  }
}
