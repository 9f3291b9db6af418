/** Q1: what a member's machine says of a task is what the log made of it, after each entry and when the run is over. */
import type { Answer } from "../../../src/queue/commands.ts";
import type { Status, Task } from "../../../src/queue/types.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import type { LedgerTask } from "../ledger.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class AsLogged implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  became(
    { id, status }: LedgerTask,
    task: Task | null,
    _entry: CommittedEntry,
    _answers: readonly Answer[],
    on: SimNode,
  ): void {
    this.#check(id, status, task, on);
  }

  /** What was acknowledged is there, in one status, or was cleared. */
  ended(): void {
    const { appliedMax, ledger } = this.#sim;
    for (const node of this.#sim.core()) {
      if (node.applied !== appliedMax) continue;
      for (const { id, status } of ledger.tasks.values())
        this.#check(id, status, node.machine?.task(id) ?? null, node);
    }
  }

  #check(id: string, status: Status | null, task: Task | null, on: SimNode): void {
    if ((task?.status ?? null) !== status)
      this.#sim.fail(
        "Q1",
        `${id} is ${task?.status ?? "gone"} on ${on.id}, by the log it is ${status}`,
      );
  }
}
