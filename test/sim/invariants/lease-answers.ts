/** Q4, Q6: a completion that was accepted has happened, and who holds a task under its newest fence is not called stale. */
import type { Answer } from "../../../src/queue/commands.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { commandsOf } from "../commands.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class LeaseAnswers implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  logged(entry: CommittedEntry, answers: readonly Answer[]): void {
    const { completed, tasks } = this.#sim.ledger;
    for (const [i, asked] of commandsOf(entry).entries()) {
      const answer = answers[i];
      if (asked.type !== "end" || answer?.ok !== true || answer.value.type !== "ended") continue;
      for (const [at, { task_id, fence, attempt, end }] of asked.items.entries()) {
        const said = answer.value.items[at];
        if (said === "ok" && end.kind === "complete" && !completed.has(fence))
          this.#sim.fail(
            "Q6",
            `the completion of ${task_id} under fence ${fence} was accepted and not applied`,
          );
        const task = tasks.get(task_id);
        const holds = task?.status === "Running" && task.fence === fence;
        if (said === "stale-lease" && holds && task.attempt === attempt)
          this.#sim.fail("Q4", `the valid fence ${fence} of ${task_id} was called stale`);
      }
    }
  }
}
