/** T6: a deposed leader must not say `ok` of a lease that is over, and nobody `lost` of one that is held. */
import type { Told } from "../history.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class Heartbeats implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  told(told: Told): void {
    if (told.type !== "heartbeat") return;
    const { worker, refs, verdicts, since } = told;
    const { ledger } = this.#sim;
    for (const [i, { task_id, fence }] of refs.entries()) {
      const endedAt = ledger.endedAt.get(fence);
      const claimedAt = ledger.claimedAt.get(fence);
      if (verdicts[i] === "ok" && endedAt !== undefined && endedAt <= since)
        this.#sim.fail(
          "T6",
          `${worker} was told "ok" of ${task_id}, whose lease ended at ${endedAt}, seen at ${since}`,
        );
      if (verdicts[i] === "lost" && endedAt === undefined && claimedAt !== undefined)
        this.#sim.fail("T6", `${worker} was told "lost" of ${task_id}, which it holds`);
    }
  }
}
