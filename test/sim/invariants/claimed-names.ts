/** Q7: whoever claims gets what it asked for: of its queues, under its names, no more; a star gets only what nobody ever named. */
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { TaskMachine } from "../../../src/queue/machine.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { commandsOf } from "../commands.ts";
import type { Told } from "../history.ts";
import { nameOf } from "../ledger.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class ClaimedNames implements Invariant {
  readonly #sim: Simulation;
  /** By any worker or module, in an earlier entry. */
  readonly #named = new Set<string>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  begins(machine: TaskMachine): void {
    for (const name of machine.namedNames()) this.#named.add(name);
  }

  told(told: Told): void {
    if (told.type !== "claimed") return;
    const { claim, tasks } = told;
    const request = nameOf(claim);
    for (const { id, queue, name } of tasks) {
      const named = claim.names?.includes(name) ?? true;
      if (claim.queues?.includes(queue) === false || (!named && !claim.star))
        this.#fail(`${request} got ${id} of ${queue} and ${name}, which it did not ask for`);
    }
    if (tasks.length > claim.max)
      this.#fail(`${request} got ${tasks.length} of ${claim.max} tasks`);
  }

  logged(entry: CommittedEntry, answers: readonly Answer[], signals: readonly Signal[]): void {
    for (const signal of signals) {
      if (signal.type !== "claimed") continue;
      const { id, name, queue } = signal.task;
      const { worker_id, queues, names, star } = signal.claim;
      const asked = names === null || names.includes(name) || (star && !this.#named.has(name));
      if (!asked || queues?.includes(queue) === false)
        this.#fail(
          `${worker_id} is given ${id}, ${name} of ${queue}, at ${entry.index}: it asks for ${JSON.stringify({ queues, names, star })}, named were ${[...this.#named].join(" ")}`,
        );
    }
    for (const [i, asked] of commandsOf(entry).entries()) {
      if (answers[i]?.ok !== true) continue;
      const names = asked.type === "claim" || asked.type === "boot" ? asked.names : null;
      for (const name of names ?? []) this.#named.add(name);
    }
  }

  #fail(what: string): void {
    this.#sim.fail("Q7", what);
  }
}
