/** One fault that strikes at a moment drawn from the seed. */
import type { SimNode } from "../node.ts";
import type { FaultFamily } from "../options.ts";
import type { Simulation } from "../simulation.ts";
import type { Prng } from "../world.ts";

/** False: there was nothing to strike, or it counts itself. */
export type Strike = (sim: Simulation, prng: Prng) => boolean;
export type Strikes = Partial<Record<FaultFamily, Strike>>;

/** Null: nobody is. */
export function anyUp(sim: Simulation, prng: Prng): SimNode | null {
  const up = sim.nodes.filter((node) => node.up);
  return up.length === 0 ? null : prng.pick(up);
}
