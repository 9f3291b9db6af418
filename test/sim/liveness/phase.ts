/** The second phase, after the healing: the core elects, stays, answers, finishes every task, converges, and is quiet. */
import type { Millis } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import { rotIsFound } from "../rot.ts";
import type { Simulation } from "../simulation.ts";
import { converges } from "./convergence.ts";
import { finishes } from "./ends.ts";
import { elects, follows, standing, stayed } from "./leader.ts";
import { isQuiet } from "./quiet.ts";
import { serves } from "./service.ts";
import { isRaised } from "./version.ts";

/** A change of the membership that was asked for takes so long at most; and so long nothing more is changed. */
const SETTLE_MAX_MS: Millis = 20_000;
const UNCHANGED_MS: Millis = 600;
/** The last news of what was just done. */
const SETTLE_MS: Millis = 500;
/** Workers finish what they hold, and their long polls end. */
const CALM_MS: Millis = 120_000;

export async function checkLiveness(sim: Simulation): Promise<void> {
  if (!(await elects(sim))) return;
  await settles(sim);
  const { families } = sim.options;
  if (families.has("row-rot") || families.has("odd-apply")) await rotIsFound(sim);
  if (sim.failure !== null || !(await follows(sim))) return;
  const stands = standing(sim);
  const { leader } = stands;
  if (leader !== null) handOverToTheDead(sim, leader);
  for (const node of sim.core()) {
    if (sim.failure !== null) return;
    await serves(sim, node);
  }
  if (!(await finishes(sim, leader))) return;
  sim.over = true;
  await sim.until(CALM_MS, () => sim.working === 0);
  await sim.until(SETTLE_MS);
  if (!(await isRaised(sim)) || !(await converges(sim))) return;
  await unchanged(sim);
  await isQuiet(sim);
  stayed(sim, stands);
}

/** Whoever was to take over dies before it does: the leader goes on, and takes writes again (mutant 14). */
function handOverToTheDead(sim: Simulation, leader: SimNode): void {
  const dead = sim.members().filter((node) => !sim.core().includes(node));
  if (dead.length > 0) sim.transfer(leader, sim.world.prng.pick(dead).id);
}

/** What operators had begun ends, and so does what members do by themselves about it. */
async function settles(sim: Simulation): Promise<void> {
  await sim.until(SETTLE_MAX_MS, () => sim.operating === 0);
  await unchanged(sim);
}

async function unchanged(sim: Simulation): Promise<void> {
  let since = sim.world.now;
  let index = sim.membership?.index;
  await sim.until(SETTLE_MAX_MS, () => {
    const { now } = sim.world;
    const { membership } = sim;
    if (membership?.index !== index || (membership?.configuration.outgoing.length ?? 0) > 0) {
      index = membership?.index;
      since = now;
    }
    return now - since >= UNCHANGED_MS;
  });
}
