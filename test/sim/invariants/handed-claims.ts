/**
 * T4: a claim's repeat is told of all that is held for it, no fence is handed to two claims, and what a worker was told of is
 * given back by it alone.
 */
import type { Answer } from "../../../src/queue/commands.ts";
import type { LeaseRef } from "../../../src/queue/types.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { commandsOf } from "../commands.ts";
import type { Told } from "../history.ts";
import type { Simulation } from "../simulation.ts";
import { OUTSIDE } from "../workers.ts";
import { nameOf } from "../ledger.ts";
import type { Invariant } from "./invariant.ts";

export class HandedClaims implements Invariant {
  readonly #sim: Simulation;
  /** The claim whose worker was told of it, by fence. */
  readonly #handed = new Map<number, string>();
  /** Where a lease was given back that nobody had asked for who held it, by fence. */
  readonly #givenBack = new Map<number, number>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  told(told: Told): void {
    if (told.type !== "claimed") return;
    const { claim, tasks, since } = told;
    const request = nameOf(claim);
    for (const { id, fence } of this.#sim.ledger.heldBy(request, since))
      if (!tasks.some(({ lease }) => lease.fence === fence))
        this.#fail(
          `${request} was granted ${id} under fence ${fence} by ${since}, and is told of ${tasks.length} others`,
        );
    for (const { id, lease } of tasks) {
      const known = this.#handed.get(lease.fence);
      if (known !== undefined && known !== request)
        this.#fail(`fence ${lease.fence} of ${id} was handed to ${known} and to ${request}`);
      const backAt = this.#givenBack.get(lease.fence);
      if (backAt !== undefined)
        this.#fail(
          `${request} is told of ${id} under fence ${lease.fence}, which was given back at ${backAt}`,
        );
      this.#handed.set(lease.fence, request);
    }
  }

  logged(entry: CommittedEntry, answers: readonly Answer[]): void {
    for (const [i, asked] of commandsOf(entry).entries()) {
      const answer = answers[i];
      if (asked.type !== "end" || asked.principal !== OUTSIDE) continue;
      if (answer?.ok !== true || answer.value.type !== "ended") continue;
      for (const [at, item] of asked.items.entries())
        if (answer.value.items[at] === "ok" && item.end.kind === "release")
          this.#wasReleased(item, entry.index);
    }
  }

  /** This lease of a worker outside ended by being given back. */
  #wasReleased({ task_id, fence }: LeaseRef, index: number): void {
    if (this.#sim.history.released.has(fence)) return;
    const request = this.#handed.get(fence);
    if (request === undefined) this.#givenBack.set(fence, index);
    else
      this.#fail(
        `${task_id} was given back at ${index} behind the back of ${request}, which holds it under fence ${fence}`,
      );
  }

  #fail(what: string): void {
    this.#sim.fail("T4", what);
  }
}
