/**
 * A log is damaged just when its leader dies, and somebody asks its member for a vote whose log ends a few entries before
 * the one that was lost: of the same term, and as long as what is left. Only the promise that was kept tells them apart.
 */
import { asIndex } from "../../src/raft/types.ts";
import { votes } from "./membership.ts";
import type { SimNode } from "./node.ts";
import { mayLose } from "./atlas.ts";
import type { Simulation } from "./simulation.ts";
import type { Prng } from "./world.ts";

/** From five voters on: a quorum of the others must hold what is lost, and one of them lags behind. False: it counts when it happens. */
export function rotAndLag(sim: Simulation, prng: Prng): boolean {
  const { membership, network, world } = sim;
  const leader = sim.leader();
  if (membership === null || leader === null || membership.configuration.voters.length < 5)
    return false;
  const able = sim.nodes
    .filter((node) => node !== leader && node.up && Math.abs(node.wallOffset) < 1_000)
    .filter(({ id }) => votes(membership.configuration, id))
    .toSorted(() => prng.float() - 0.5);
  const [lagging, damaged] = able;
  if (lagging === undefined || damaged === undefined) return false;
  const set = (cut: boolean): void => {
    for (const { id } of sim.nodes) {
      if (id === lagging.id) continue;
      network.setCut(id, lagging.id, cut);
      network.setCut(lagging.id, id, cut);
    }
  };
  sim.trace.say("net", `${lagging.id} is cut off, and will lag behind`);
  set(true);
  for (let i = 0; i < 6; i++) world.at(world.now + 20 * i, () => sim.writeAt(leader));
  // Not before a quorum of the others holds all of it.
  const look = (looks: number): void => {
    const done = sim.mood.wild() && loses(sim, damaged, lagging);
    if (!done && looks > 0) {
      world.at(world.now + 50, () => look(looks - 1));
      return;
    }
    sim.disturbed();
    set(false);
    const leads = sim.leader();
    if (done && leads !== null) sim.crashed(leads, "none");
  };
  world.at(world.now + 120 + 200 * prng.float(), () => look(40));
  return false;
}

/** False: it may not lose so much, or it held no more than the other one. */
function loses(sim: Simulation, node: SimNode, lagging: SimNode): boolean {
  const { disk } = node;
  const { end } = lagging.disk;
  const from = asIndex(end.index + 1);
  const last = disk.entries.length;
  if (!node.up || node.owes !== null || disk.installing !== null || !mayLose(sim, node))
    return false;
  if (from > last || from <= disk.compacted.index || end.term !== disk.hardState.term) return false;
  node.kill("none");
  // What was on its way to the disk may be there now.
  if (disk.entries.length === last) {
    node.rot(from);
    sim.faults.count("rot-and-lag");
    // Whoever else could lead asks later.
    const { electionTimeoutMs } = sim.options;
    for (const other of sim.nodes)
      for (const to of sim.nodes)
        if (other !== lagging) sim.network.sieve(other.id, to.id, "vote", 4 * electionTimeoutMs);
  }
  sim.world.at(sim.world.now + 5, () => node.start());
  return true;
}
