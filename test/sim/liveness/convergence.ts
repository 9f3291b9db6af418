/** L3: logs, applied indexes and states of the core converge. */
import type { Millis } from "../../../src/replica/ports.ts";
import type { Simulation } from "../simulation.ts";
import { describeCore } from "./core.ts";

const CONVERGE_MS: Millis = 10_000;

/** False: they do not. */
export async function converges(sim: Simulation): Promise<boolean> {
  const same = (): boolean =>
    sim
      .core()
      .every(({ applied, store }) => applied === sim.appliedMax && (store?.pending ?? 0) === 0);
  if (!(await sim.until(CONVERGE_MS, same))) {
    sim.fail("liveness L3", `the core does not converge: ${describeCore(sim)}`);
    return false;
  }
  // Where nobody can be judged, rot stays; the members tell of it.
  const sound = sim.core().filter((node) => !node.isWrong);
  const hashes = new Map(sound.map((node) => [node.id, node.machine?.hash()]));
  if (new Set(hashes.values()).size > 1)
    sim.fail("liveness L3", `equal indexes, unequal states: ${JSON.stringify([...hashes])}`);
  return true;
}
