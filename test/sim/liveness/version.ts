/** P7: where every member runs the newest build, its machine version comes into force; else it does not (`Builds`). */
import { MACHINE_VERSIONS } from "../../../src/queue/commands.ts";
import type { Millis } from "../../../src/replica/ports.ts";
import type { Simulation } from "../simulation.ts";

/** Members wait for ten seconds, in which nobody with an older build may come back. */
const RAISE_MS: Millis = 15_000;

/** False: it does not. */
export async function isRaised(sim: Simulation): Promise<boolean> {
  const core = sim.core();
  if (!sim.options.families.has("old-build") || core.some((node) => node.hasOldBuild)) return true;
  const all = sim.members().every((node) => core.includes(node));
  const { newest } = MACHINE_VERSIONS;
  const raised = (): boolean => core.every(({ machine }) => machine?.machineVersion() === newest);
  if ((await sim.until(RAISE_MS, raised)) || !all) return true;
  const versions = core.map(({ id, machine }) => `${id} ${machine?.machineVersion()}`);
  sim.fail("liveness P7", `machine version ${newest} is not in force: ${versions.join(", ")}`);
  return false;
}
