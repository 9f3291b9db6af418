/** One member, for a harness of other systems: see peers-system.ts. */
import { createSystem } from "./peers-system.ts";

// Without killLeader: there is nobody to take over.
const { killLeader: _, ...system } = createSystem(1);
export default system;
export const { name, settings, nodes, queue, start, attach, submit, submitBatch } = system;
export const { read, runWorkers, purge, pids, stop } = system;
