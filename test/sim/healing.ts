/** The end of all faults: what happens just then, and what each member is afterwards. */
import type { Network } from "./network.ts";
import type { SimNode } from "./node.ts";
import { rot } from "./atlas.ts";
import { streamOf } from "./options.ts";
import type { Simulation } from "./simulation.ts";
import { Prng } from "./world.ts";

/** Frames arrive from now on, soon and in order. */
export function calm(network: Network): void {
  network.heal();
  Object.assign(network.options, {
    loss: 0,
    duplicate: 0,
    reorder: 0,
    late: 0,
    cut: 0,
    garbage: 0,
    corrupt: 0,
    sendLimit: 100_000,
  });
  network.options.delayMax = Math.min(network.options.delayMax, 5);
}

/** A log that is found damaged just then: those that are left must repair it, and may need its vote. */
export function rotAtLast(sim: Simulation): void {
  const prng = new Prng(sim.options.seed ^ 0xd15c);
  if (!sim.options.families.has("log-rot") || !prng.chance(0.6)) return;
  const members = sim.members();
  if (members.length > 1 && rot(sim, prng, prng.pick(members))) sim.faults.count("log-rot");
}

/** What an operator began is no reason to stand still, whatever becomes of the target, and though it is dead now. */
export function handOverAtLast(sim: Simulation, core: readonly SimNode[]): void {
  const { prng } = sim.world;
  const leader = sim.leader();
  if (leader === null || !core.includes(leader) || !prng.chance(0.4)) return;
  const dead = sim.members().filter((node) => !core.includes(node));
  const among = dead.length > 0 && prng.chance(0.7) ? dead : sim.nodes;
  sim.transfer(leader, prng.pick(among).id);
}

/** Its disk and its clock are sound; who is not in the core is dead for good. */
export function settle(sim: Simulation, node: SimNode, inCore: boolean): void {
  const { world } = sim;
  node.diskFull = false;
  node.readOnly = false;
  if (!inCore) {
    node.kill("none");
    return;
  }
  node.killAfterEffects(Number.POSITIVE_INFINITY);
  if (node.hasOldBuild && streamOf(sim.options.seed, `heals ${node.id}`).chance(0.7)) {
    node.kill("none");
    node.upgrade();
  }
  node.store?.recover();
  node.clock.resume();
  sim.setWall(node, world.prng.float() * 100);
  if (!node.up) world.at(world.now + world.prng.float() * 500, () => node.start());
}
