/** Q3: one idempotency key, one set of tasks, and the first answer again, whatever was asked for under it. */
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { commandsOf } from "../commands.ts";
import { keeps } from "../kept.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class OneKeyOneTask implements Invariant {
  readonly #sim: Simulation;
  readonly #values = new Map<string, unknown>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  logged(
    entry: CommittedEntry,
    answers: readonly Answer[],
    _signals: readonly Signal[],
    node: SimNode,
  ): void {
    // Out of a state with a row that rotted; the rot itself has to be found.
    if (node.isSuspect) return;
    for (const [i, { idem }] of commandsOf(entry).entries()) {
      const answer = answers[i];
      if (idem === undefined || answer === undefined) continue;
      const key = `${idem.principal} ${idem.route} ${idem.key}`;
      // What did nothing is judged anew each time.
      if (answer.ok && answer.replayed === true && !keeps(answer))
        this.#sim.fail("Q3", `the key ${key} keeps ${JSON.stringify(answer.value)}`);
      if (!answer.ok || !keeps(answer)) continue;
      const first = this.#values.get(key);
      if (first === undefined) this.#values.set(key, answer.value);
      else if (!Bun.deepEquals(first, answer.value))
        this.#sim.fail(
          "Q3",
          `the key ${key} stands for ${JSON.stringify(first)} and for ${JSON.stringify(answer.value)}`,
        );
    }
  }
}
