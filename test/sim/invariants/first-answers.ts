/** Q3: under one idempotency key everybody is told the same, and its one body is never taken for another one. */
import type { Told } from "../history.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class FirstAnswers implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  told(told: Told): void {
    if (told.type === "mismatched")
      this.#sim.fail("Q3", `the key ${told.key} is said to have been used with another body`);
    if (told.type !== "under-key" && told.type !== "refused-under-key") return;
    const { key } = told;
    const first = this.#sim.history.firstUnder.get(key);
    if (first === undefined) return;
    if (told.type === "refused-under-key")
      this.#fail(key, first, `and then refused: ${told.reason}`);
    else if (!Bun.deepEquals(first, told.answer))
      this.#fail(key, first, `and then ${JSON.stringify(told.answer)}`);
  }

  #fail(key: string, first: unknown, then: string): void {
    this.#sim.fail("Q3", `the key ${key} was answered ${JSON.stringify(first)} ${then}`);
  }
}
