/** L5: every task that was not cancelled becomes final. */
import type { Millis } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";

/** The longest time-out of a task, its lease, its retries. */
const FINISH_MS: Millis = 180_000;

/** False: some do not. */
export async function finishes(sim: Simulation, leader: SimNode | null): Promise<boolean> {
  const { counts, tasks } = sim.ledger;
  const done = (): boolean => sim.asking === 0 && counts.Pending + counts.Running === 0;
  if (await sim.until(FINISH_MS, done)) return true;
  const open = [...tasks.values()]
    .filter(({ status }) => status === "Pending" || status === "Running")
    .slice(0, 5)
    .map(({ id }) => JSON.stringify(leader?.machine?.task(id)));
  sim.fail("liveness L5", `tasks are not final after ${FINISH_MS} ms: ${open.join("\n")}`);
  return false;
}
