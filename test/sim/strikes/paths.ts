/** Paths between members are cut, clogged or choosy; connections break, or are half-open. */
import type { Simulation } from "../simulation.ts";
import type { Prng } from "../world.ts";
import { anyUp, type Strikes } from "./strike.ts";

/** Each kind of Raft's messages. */
const SIEVED = [
  "vote",
  "vote-reply",
  "append",
  "commit",
  "append-reply",
  "heartbeat",
  "heartbeat-reply",
  "read-index",
  "read-index-reply",
  "timeout-now",
  "snapshot",
  "snapshot-reply",
] as const;

export const PATH_STRIKES = {
  partition: (sim, prng) => {
    partition(sim, prng);
    return true;
  },
  clog: (sim, prng) => {
    const from = prng.pick(sim.nodes);
    const to = prng.pick(sim.nodes);
    sim.network.clog(from.id, to.id, prng.float() * prng.pick([50, 500, 5_000]));
    return true;
  },
  break: (sim, prng) => anyUp(sim, prng)?.transport?.break(prng.pick(sim.nodes).id) ?? false,
  "old-frames": (sim, prng) =>
    anyUp(sim, prng)?.transport?.break(prng.pick(sim.nodes).id, true) ?? false,
  "half-open": (sim, prng) =>
    anyUp(sim, prng)?.transport?.halfOpen(prng.pick(sim.nodes).id) ?? false,
  echo: (sim, prng) => {
    for (let i = prng.between(3, 12); i > 0; i--)
      sim.world.at(sim.world.now + 1_000 * prng.float(), () => {
        if (sim.mood.wild()) sim.network.echoes?.again(prng.pick(sim.nodes).id);
      });
    return false;
  },
  sieve: (sim, prng) => {
    const to = prng.pick(sim.nodes);
    const type = prng.pick(SIEVED);
    const ms = prng.pick([100, 800, 4_000]) * (0.5 + prng.float());
    const froms = prng.chance(0.6) ? sim.nodes : [prng.pick(sim.nodes)];
    sim.trace.say("net", `no ${type} reaches ${to.id} for ${Math.round(ms)} ms`);
    for (const from of froms) sim.network.sieve(from.id, to.id, type, ms);
    sim.disturbed();
    sim.world.at(sim.world.now + ms, () => sim.disturbed());
    return false;
  },
} satisfies Strikes;

function partition(sim: Simulation, prng: Prng): void {
  const { network, nodes, world } = sim;
  const ids = nodes.map(({ id }) => id);
  const cuts: [(typeof ids)[number], (typeof ids)[number]][] = [];
  const between = (some: readonly (typeof ids)[number][], oneWay: boolean): void => {
    for (const a of some) {
      for (const b of ids) {
        if (some.includes(b)) continue;
        cuts.push([a, b]);
        if (!oneWay) cuts.push([b, a]);
      }
    }
  };
  const kind = prng.pick(["side", "one-way", "isolate", "bridge"] as const);
  switch (kind) {
    case "side":
    case "one-way":
      between(
        ids.filter(() => prng.chance(0.5)),
        kind === "one-way",
      );
      break;
    case "isolate": {
      const leader = nodes.find((node) => node.leadership?.role === "leader");
      between([prng.chance(0.5) && leader !== undefined ? leader.id : prng.pick(ids)], false);
      break;
    }
    case "bridge": {
      // Two sides that overlap in one member.
      const bridge = prng.pick(ids);
      const left = ids.filter((id) => id !== bridge && prng.chance(0.5));
      for (const a of left)
        for (const b of ids) if (b !== bridge && !left.includes(b)) cuts.push([a, b], [b, a]);
      break;
    }
  }
  const ms = prng.pick([100, 800, 4_000, 12_000]) * (0.5 + prng.float());
  sim.trace.say(
    "net",
    `${kind}: ${cuts.map(([a, b]) => `${a}>${b}`).join(" ")} for ${Math.round(ms)} ms`,
  );
  for (const [a, b] of cuts) network.setCut(a, b, true, true);
  world.at(world.now + ms, () => {
    sim.disturbed();
    for (const [a, b] of cuts) network.setCut(a, b, false);
  });
}
