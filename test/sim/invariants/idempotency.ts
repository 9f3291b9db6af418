/** Q3: one idempotency key, one set of tasks. */
import type { Answer, Command } from "../../../src/queue/commands.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class OneKeyOneTask implements Invariant {
  readonly #sim: Simulation;
  readonly #ids = new Map<string, string>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  logged({ requests }: CommittedEntry, answers: readonly Answer[]): void {
    for (const [i, { command }] of requests.entries()) {
      const { idem, type } = command as Command;
      const answer = answers[i];
      if (idem === undefined || type !== "submit" || answer?.ok !== true) continue;
      const ids = JSON.stringify(answer.value);
      const key = `${idem.principal} ${idem.route} ${idem.key}`;
      const known = this.#ids.get(key);
      if (known !== undefined && known !== ids)
        this.#sim.fail("Q3", `the key ${key} stands for ${known} and for ${ids}`);
      this.#ids.set(key, ids);
    }
  }
}
