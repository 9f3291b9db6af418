/**
 * T2, M3: behind the entry that removes a member nothing is logged that was asked for by it. Its id may come back with
 * another folder, which counts its starts and commands from one again.
 */
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class MembersAsk implements Invariant {
  readonly #sim: Simulation;
  /** By the newest entry that says so; null: none has been seen. */
  #members: ReadonlySet<string> | null = null;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  logged({ index, requests, members }: CommittedEntry): void {
    if (members !== undefined) this.#members = new Set(members);
    for (const { member, boot, seq } of requests)
      if (this.#members?.has(member) === false)
        this.#sim.fail(
          "T2",
          `command ${boot}/${seq} of ${member} is logged at ${index}, and it is no member any more`,
        );
  }
}
