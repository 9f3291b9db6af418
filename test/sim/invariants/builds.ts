/** P7: a machine version is put in force only where the build of every member applies it. */
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { commandsOf } from "../commands.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class Builds implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  logged(entry: CommittedEntry): void {
    if (!this.#sim.options.families.has("old-build")) return;
    if (!commandsOf(entry).some(({ type }) => type === "raise")) return;
    const old = this.#sim.members().filter(({ hasOldBuild }) => hasOldBuild);
    if (old.length > 0)
      this.#sim.fail(
        "P7",
        `the machine version is raised at ${entry.index}, and the builds of ${old.map(({ id }) => id).join(" ")} do not apply it`,
      );
  }
}
