/** Processes die, lose their power or their state, and stand still. */
import { anyUp, type Strikes } from "./strike.ts";

export const PROCESS_STRIKES = {
  crash: (sim, prng) => {
    const node = anyUp(sim, prng);
    if (node === null) return false;
    sim.crashed(node, "none");
    return true;
  },
  "crash-at-effect": (sim, prng) => {
    const node = anyUp(sim, prng);
    node?.killAfterEffects(prng.between(0, 25));
    return node !== null;
  },
  "power-loss": (sim, prng) => {
    for (const node of sim.nodes) if (prng.chance(0.5)) node.checkpoint();
    if (prng.chance(0.5)) return false;
    const all = prng.chance(0.3);
    const struck = all ? sim.nodes.filter((node) => node.up) : [anyUp(sim, prng)];
    for (const node of struck) if (node !== null) sim.crashed(node, "to-checkpoint");
    return true;
  },
  "state-loss": (sim, prng) => {
    const node = anyUp(sim, prng);
    if (node === null) return false;
    sim.crashed(node, "all");
    return true;
  },
  pause: (sim, prng) => {
    const node = anyUp(sim, prng);
    if (node === null) return false;
    const ms = prng.pick([50, 50, 300, 300, 1_500, 6_000, 20_000, 40_000]) * (0.5 + prng.float());
    sim.trace.say(node.id, `stands still for ${Math.round(ms)} ms`);
    node.clock.pause(ms);
    sim.world.at(sim.world.now + ms, () => sim.disturbed());
    return true;
  },
  "old-build": (sim, prng) => {
    const old = sim.nodes.filter((node) => node.hasOldBuild && !node.ended);
    if (old.length === 0) return false;
    const node = prng.pick(old);
    node.kill("none");
    node.upgrade();
    node.start();
    return true;
  },
  "all-pause": (sim, prng) => {
    const up = sim.nodes.filter((node) => node.up && !node.clock.still);
    const ms = prng.pick([2_000, 4_000, 8_000]) * (0.8 + 0.4 * prng.float());
    sim.trace.say("sim", `all members stand still for ${Math.round(ms)} ms`);
    for (const node of up) node.clock.pause(ms);
    sim.world.at(sim.world.now + ms, () => sim.disturbed());
    return up.length > 0;
  },
} satisfies Strikes;
