/**
 * Q5: failures and time-outs are charged to one budget, crashes to the other, once for each attempt and within their limits;
 * nothing else is charged. A start gives leases back for free, so often; then it counts as a crash.
 */
import type { Answer } from "../../../src/queue/commands.ts";
import type { Task } from "../../../src/queue/types.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { commandsOf } from "../commands.ts";
import type { LedgerTask } from "../ledger.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";
import { isRetried } from "./legal-steps.ts";

export class Budgets implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  became(
    known: LedgerTask,
    task: Task | null,
    entry: CommittedEntry,
    answers: readonly Answer[],
  ): void {
    if (task === null) return;
    const { id } = known;
    const { retries, crashes, max_retries, attempt } = task;
    const { maxCrashes } = this.#sim.options;
    if (retries > max_retries) this.#fail(`${id} was charged ${retries} of ${max_retries} retries`);
    if (crashes > maxCrashes) this.#fail(`${id} was charged ${crashes} crashes`);
    if (retries + crashes > attempt) this.#fail(`${id} was charged more often than it was claimed`);
    const more = retries + crashes - known.retries - known.crashes;
    // Who is retried begins anew.
    if (more <= 0 || isRetried(id, entry)) return;
    if (more > 1) this.#fail(`${id} was charged twice for one attempt`);
    if (!isDue(id, entry, answers))
      this.#fail(`${id} was charged for what is free: neither failed, timed out, nor crashed`);
  }

  #fail(what: string): void {
    this.#sim.fail("Q5", what);
  }
}

/** Whether this entry says that an attempt at the task failed, ran too long, crashed, or was given up. */
function isDue(id: string, entry: CommittedEntry, answers: readonly Answer[]): boolean {
  return commandsOf(entry).some((asked, i) => {
    if (asked.type === "boot") return true;
    if (answers[i]?.ok !== true) return false;
    if (asked.type === "end")
      return asked.items.some(({ task_id, end }) => task_id === id && end.kind === "fail");
    if (asked.type !== "expire" && asked.type !== "timeout") return false;
    return asked.items.some(({ task_id }) => task_id === id);
  });
}
