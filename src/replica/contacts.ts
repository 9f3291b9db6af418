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
    const { voters, outgoing } = configuration;
    const worst = Math.max(this.#majorityMs(voters, now), this.#majorityMs(outgoing, now));
    return Number.isFinite(worst) ? worst : null;
  }

  /** The least age that a majority of these is not older than; 0 of nobody. Asked on every tick: it makes nothing. */
  #majorityMs(half: readonly NodeId[], now: Millis): Millis {
    const needed = Math.floor(half.length / 2) + 1;
    let least = Number.POSITIVE_INFINITY;
    for (const candidate of half) {
      const age = this.sinceMs(candidate, now) ?? Number.POSITIVE_INFINITY;
      if (age >= least) continue;
      let younger = 0;
      for (const id of half)
        if ((this.sinceMs(id, now) ?? Number.POSITIVE_INFINITY) <= age) younger += 1;
      if (younger >= needed) least = age;
    }
    return half.length === 0 ? 0 : least;
  }

  forgetAllBut(ids: ReadonlySet<string>): void {
    for (const id of this.#heardAt.keys()) if (!ids.has(id)) this.#heardAt.delete(id);
  }
}
