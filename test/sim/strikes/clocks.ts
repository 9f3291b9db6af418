/** Clocks drift, jump, and stand still with their machine. */
import type { Millis } from "../../../src/replica/ports.ts";
import { anyUp, type Strikes } from "./strike.ts";

const HOUR_MS: Millis = 3_600_000;

export const CLOCK_STRIKES = {
  suspend: (sim, prng) => {
    const node = anyUp(sim, prng);
    if (node === null || node.clock.still) return false;
    const ms = prng.pick([300, 3_000, 15_000]) * (0.5 + prng.float());
    sim.trace.say(node.id, `its machine stands still for ${Math.round(ms)} ms`);
    node.clock.suspend(ms);
    node.suspendedMs += ms;
    sim.world.at(sim.world.now + ms, () => sim.disturbed());
    return true;
  },
  drift: (sim, prng) => {
    const node = prng.pick(sim.nodes);
    node.rate = 0.9 + prng.float() * 0.2;
    node.clock.setRate(node.rate);
    return true;
  },
  "wall-jump": (sim, prng) => {
    const wrong = sim.nodes.filter((node) => Math.abs(node.wallOffset) > 1_000);
    const node = prng.pick(sim.nodes);
    const back = wrong.length > 0 && prng.chance(0.5) ? prng.pick(wrong) : null;
    // A minority at most is wrong: the rest is what "right" means.
    if (back === null && 2 * (wrong.length + 1) >= sim.nodes.length && !wrong.includes(node))
      return false;
    const offset = back === null ? prng.pick([-1, 1]) * prng.pick([3_000, 60_000, HOUR_MS]) : 0;
    sim.setWall(back ?? node, offset * (0.5 + prng.float() / 2));
    return true;
  },
} satisfies Strikes;
