/**
 * Q1, Q2: every step of a task leads from the status that it had to one that may follow it. A task that has ended waits again
 * only if somebody retried it, and one that is being cancelled comes to no other end.
 */
import type { Status } from "../../../src/queue/types.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { commandsOf } from "../commands.ts";
import type { Changed, LedgerTask } from "../ledger.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** Null: gone for everyone. */
const LEGAL: Readonly<Record<Status, readonly (Status | null)[]>> = {
  Pending: ["Pending", "Running", "Cancelled", null],
  Running: ["Running", "Pending", "Completed", "Failed", "Cancelled", null],
  Completed: ["Pending", null],
  Failed: ["Pending", null],
  Cancelled: ["Pending", null],
};

export class LegalSteps implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  changing(task: LedgerTask | undefined, { id, from, to }: Changed, entry: CommittedEntry): void {
    if (from === null) {
      if (task !== undefined) this.#sim.fail("Q2", `${id} was made twice`);
      return;
    }
    if (task === undefined || task.status !== from) {
      this.#sim.fail(
        "Q1",
        `${id} goes from ${from} to ${to}, and was ${task?.status ?? "unknown"}`,
      );
      return;
    }
    if (!LEGAL[from].includes(to)) this.#sim.fail("Q1", `${id} goes from ${from} to ${to}`);
    const again = from === "Completed" || from === "Failed" || from === "Cancelled";
    if (again && to === "Pending" && !isRetried(id, entry))
      this.#sim.fail("Q2", `${id} goes from ${from} to Pending and nobody retried it`);
    if (task.cancelling && to !== "Cancelled" && to !== "Running" && to !== null)
      this.#sim.fail("Q1", `${id} was being cancelled and becomes ${to}`);
  }
}

/** Whether this entry asks for it. */
export function isRetried(id: string, entry: CommittedEntry): boolean {
  return commandsOf(entry).some((asked) => asked.type === "retry" && asked.id === id);
}
