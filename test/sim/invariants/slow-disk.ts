/**
 * A leader whose own disk hangs, while a quorum of the others holds more than it does, gives leadership up: it could
 * commit for ever what it could not even read back. It has the stall's limit, and a transfer's time, to notice.
 */
import { STALL_MS } from "../../../src/replica/core.ts";
import type { Millis } from "../../../src/replica/ports.ts";
import { isQuorum } from "../membership.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** Ticks of clocks that are a tenth too slow, and what is looked at only now and then. */
const SLACK_MS: Millis = 500;

interface Stall {
  readonly since: Millis;
  readonly term: number;
  readonly pauses: number;
  /** What is on the disk: none of its writes was answered since. */
  readonly durable: number;
}

export class SlowDisk implements Invariant {
  readonly #sim: Simulation;
  readonly #stalls = new Map<SimNode, Stall>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  often(): void {
    const { electionTimeoutMs } = this.#sim.options;
    const most = Math.max(STALL_MS, 2 * electionTimeoutMs) + 2 * electionTimeoutMs + SLACK_MS;
    for (const node of this.#sim.nodes) {
      const { term = 0 } = node.leadership ?? {};
      const core = node.replica?.core ?? null;
      // One that stands still cannot notice, and has its time anew when it goes on.
      if (!node.up || node.clock.still || core?.role !== "leader" || !this.#othersAreFaster(node)) {
        this.#stalls.delete(node);
        continue;
      }
      const { clock } = node;
      const since = clock.monotonic();
      const known = this.#stalls.get(node);
      const { durable } = core;
      if (
        known === undefined ||
        known.term !== term ||
        known.pauses !== clock.pauses ||
        known.durable !== durable
      )
        this.#stalls.set(node, { since, term, pauses: clock.pauses, durable });
      else if (since - known.since > most)
        this.#sim.fail(
          "D2",
          `${node.id} leads term ${term}, its disk wrote nothing for ${Math.round(since - known.since)} ms, and others are faster`,
        );
    }
  }

  /** As it knows by their answers. */
  #othersAreFaster({ id, store, replica }: SimNode): boolean {
    const core = replica?.core ?? null;
    if (core === null || store?.hung !== true || store.pending === 0) return false;
    const progress = core.progress();
    return isQuorum(
      core.configuration,
      (each) => each !== id && (progress.get(each)?.match ?? 0) > core.durable,
    );
  }
}
