/**
 * A leader that is cut off logs more than its successor, which dies just before the cut is over: then a log that is longer
 * stands against those of a later term, and nobody leads who would cut it first.
 */
import type { Simulation } from "./simulation.ts";
import type { Prng } from "./world.ts";

const WRITES = 20;
const LOOK_MS = 5;

/** False: it counts when it happens. */
export function longLog(sim: Simulation, prng: Prng): boolean {
  const { network, nodes, world } = sim;
  const leader = sim.leader();
  if (leader === null || nodes.length < 3) return false;
  const others = nodes.filter((node) => node !== leader);
  const set = (cut: boolean): void => {
    for (const { id } of others) {
      network.setCut(id, leader.id, cut);
      network.setCut(leader.id, id, cut);
    }
  };
  sim.trace.say("net", `cuts off the leader ${leader.id}, whose log grows`);
  set(true);
  for (let i = 0; i < WRITES; i++) world.at(world.now + 2 * i, () => sim.writeAt(leader));
  const deadline = world.now + 6 * sim.options.electionTimeoutMs;
  const healMs = prng.float() * 5;
  const look = (): void => {
    const next = others.find((node) => node.up && node.leadership?.active === true);
    if (next === undefined && world.now < deadline && sim.mood.wild()) {
      world.at(world.now + LOOK_MS, look);
      return;
    }
    sim.disturbed();
    // Not once all is healed: from there on leaders stay.
    if (next !== undefined && sim.mood.wild()) {
      sim.crashed(next, "none");
      sim.faults.count("long-log");
    }
    world.at(world.now + healMs, () => {
      sim.disturbed();
      set(false);
    });
  };
  look();
  return false;
}
