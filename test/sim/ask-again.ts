/**
 * A follower's process ends while its reads wait at the leader, which hears no heartbeat answered; the next process asks
 * as soon as it follows, and what the earlier one asked is answered just then, too.
 */
import type { Millis } from "../../src/replica/ports.ts";
import type { SimNode } from "./node.ts";
import type { Simulation } from "./simulation.ts";
import type { Prng } from "./world.ts";

const LOOK_MS: Millis = 2;

/** False: it counts when it happens. */
export function askAgain(sim: Simulation, prng: Prng): boolean {
  const { network, nodes, world, options } = sim;
  const leader = sim.leader();
  const followers = nodes.filter(({ up, leadership }) => up && leadership?.leader === leader?.id);
  const others = followers.filter((node) => node !== leader);
  if (leader === null || others.length < 2) return false;
  const node = prng.pick(others);
  const { electionTimeoutMs } = options;
  const hold = (some: readonly SimNode[], ms: Millis): void => {
    for (const { id } of some) network.sieve(id, leader.id, "heartbeat-reply", ms);
  };
  sim.trace.say(
    node.id,
    `asks, ends, and asks again, while no heartbeat-reply reaches ${leader.id}`,
  );
  // For longer the leader would not lead on, but where entries are acknowledged.
  const deadline = world.now + 2 * electionTimeoutMs;
  hold(nodes, deadline - world.now);
  const asks = prng.between(1, 3);
  for (let i = 0; i < asks; i++) sim.readAt(node);
  world.at(world.now + prng.pick([1, 5, 20]) * (0.5 + prng.float()), () => {
    if (!sim.mood.wild()) return;
    node.kill("none");
    for (let i = prng.between(1, 3); i > 0; i--) sim.writeAt(leader);
    world.at(world.now + prng.pick([1, 20, 100]) * (0.5 + prng.float()), () => {
      if (sim.mood.wild()) node.start();
    });
  });
  const look = (): void => {
    if (!sim.mood.wild() || world.now > deadline) return;
    if (!node.up || node.leadership?.leader !== leader.id) {
      world.at(world.now + LOOK_MS, look);
      return;
    }
    for (let i = 0; i < asks; i++) sim.readAt(node);
    sim.faults.count("ask-again");
    hold([node], prng.float() * 20);
  };
  world.at(world.now + electionTimeoutMs / 8, look);
  sim.disturbed();
  world.at(deadline, () => sim.disturbed());
  return false;
}
