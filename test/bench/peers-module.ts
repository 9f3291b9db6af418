/** Three members, for a harness of other systems: see peers-system.ts. */
import { createSystem } from "./peers-system.ts";

const system = createSystem(3);
export default system;
export const { name, settings, nodes, queue, start, attach, submit, submitBatch } = system;
export const { read, runWorkers, killLeader, purge, pids, stop } = system;
