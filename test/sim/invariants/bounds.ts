/** I14: what waits in a member stays far below what would fill its memory. */
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** Nothing in a simulated workload comes near the real limits; what passes this leaks. */
const WAITING_MAX = 5_000;

export class Bounds implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  marked(): void {
    for (const { id, queue, replica, store } of this.#sim.nodes) {
      const waiting = { ...queue?.waiting(), ...replica?.waiting, writes: store?.pending ?? 0 };
      for (const [what, count] of Object.entries(waiting)) {
        if (count > WAITING_MAX) this.#sim.fail("I14", `${id} holds ${count} ${what}`);
      }
    }
  }

  /** L6: with nothing under way, nothing is held but the long polls of the pools. */
  ended(): void {
    for (const node of this.#sim.core()) {
      const { claims, finals, reports, leases, offers } = node.queue?.waiting() ?? {
        claims: 0,
        finals: 0,
        reports: 0,
        leases: 0,
        offers: 0,
      };
      const { own, proposals, applies } = node.replica?.waiting ?? {
        own: 0,
        proposals: 0,
        applies: 0,
      };
      // Eight executors at most, and what they claim ahead of a free slot.
      const most = this.#sim.nodes.length * 24;
      if (claims > most || offers > most || finals > 0 || reports > 0 || leases > 0)
        this.#sim.fail(
          "L6",
          `${node.id} still holds ${claims} claims, ${offers} offers, ${finals} waits, ${reports} reports, ${leases} leases`,
        );
      // Claims of the pools are renewed now and then.
      if (own > most || proposals > most || applies > 1)
        this.#sim.fail(
          "L6",
          `${node.id} still holds ${own} commands of its own, ${proposals} proposals, ${applies} entries to apply`,
        );
    }
  }
}
