/** Disks are full, take no writes, or hang; logs are compacted. */
import { anyUp, type Strikes } from "./strike.ts";

export const DISK_STRIKES = {
  "disk-full": (sim, prng) => {
    const node = prng.pick(sim.nodes);
    if (node.diskFull) return false;
    sim.trace.say(node.id, "disk is almost full");
    node.diskFull = true;
    sim.world.at(sim.world.now + prng.pick([500, 3_000, 10_000]), () => {
      node.diskFull = false;
    });
    return true;
  },
  "read-only": (sim, prng) => {
    const node = anyUp(sim, prng);
    if (node === null || node.readOnly) return false;
    sim.trace.say(node.id, "disk is read-only");
    node.readOnly = true;
    sim.world.at(sim.world.now + prng.pick([300, 3_000]), () => {
      node.readOnly = false;
    });
    return true;
  },
  "disk-hang": (sim, prng) => {
    const node = anyUp(sim, prng);
    const store = node?.store ?? null;
    if (node === null || store === null || store.hung) return false;
    sim.trace.say(node.id, "disk hangs");
    store.hang();
    const ms = prng.pick([1_000, 5_000, 1_000_000]);
    sim.world.at(sim.world.now + ms, () => store.recover());
    return true;
  },
  compaction: (sim, prng) => {
    const node = anyUp(sim, prng);
    return node?.compact(Math.max(0, node.applied - prng.pick([0, 0, 3, 30]))) ?? false;
  },
} satisfies Strikes;
