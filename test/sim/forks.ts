/**
 * A leader that is cut off logs more than its successor does until the cut is over: its log forks off, and the fork is the longer
 * one. Then the successor dies (`long-log`: a log that is longer stands against those of a later term, and nobody leads who
 * would cut it first), or has forgotten where the fork begins (`forgotten-fork`: a snapshot takes its place).
 */
import { asIndex } from "../../src/raft/types.ts";
import type { Network } from "./network.ts";
import type { SimNode } from "./node.ts";
import type { Simulation } from "./simulation.ts";
import type { Prng } from "./world.ts";

const WRITES = 20;
const LOOK_MS = 5;
/** What a checkpoint and a compaction may take. */
const COMPACTION_MS = 100;

/** False: it counts when it happens. */
export function longLog(sim: Simulation, prng: Prng): boolean {
  fork(sim, prng, (successor, _forked, heal) => {
    sim.crashed(successor, "none");
    sim.faults.count("long-log");
    heal();
  });
  return false;
}

/** One at a time: the end of the one before would bring the next fork back too early. */
const forking = new WeakSet<Simulation>();

/**
 * A fork is some entries long, since a leader has no more under way: for the snapshot to stand before its end, nothing may be
 * committed meanwhile, so the others are cut off in their turn. False: it counts when it happens.
 */
export function forgottenFork(sim: Simulation, prng: Prng): boolean {
  if (forking.has(sim)) return false;
  forking.add(sim);
  const { network, nodes, world } = sim;
  const isForked = fork(sim, prng, (successor, forked, heal) => {
    const { disk } = forked;
    const alone = (on: boolean): void => {
      for (const other of nodes)
        if (other !== successor && other !== forked) cut(network, successor, other, on);
    };
    const applied = asIndex(successor.applied);
    const forks =
      disk.entries.length > applied && disk.termAt(applied) !== successor.disk.termAt(applied);
    const deadline = world.now + COMPACTION_MS;
    const look = (): void => {
      const isForgotten = successor.disk.compacted.index >= applied;
      if (!isForgotten && world.now < deadline) {
        world.at(world.now + 1, look);
        return;
      }
      if (isForgotten && sim.mood.wild()) {
        sim.faults.count("forgotten-fork");
        alone(true);
        world.at(world.now + sim.options.electionTimeoutMs, () => {
          sim.disturbed();
          alone(false);
        });
      }
      heal();
    };
    if (forks && successor.compact(applied)) look();
    else heal();
  });
  if (!isForked) forking.delete(sim);
  return false;
}

/** `ending` is told who succeeded the one that is cut off, and calls `heal`. False: there is nobody to cut off. */
function fork(
  sim: Simulation,
  prng: Prng,
  ending: (successor: SimNode, forked: SimNode, heal: () => void) => void,
): boolean {
  const { network, nodes, world } = sim;
  const leader = sim.leader();
  if (leader === null || nodes.length < 3) return false;
  const others = nodes.filter((node) => node !== leader);
  const set = (on: boolean): void => {
    for (const other of others) cut(network, leader, other, on);
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
    const heal = (): void =>
      world.at(world.now + healMs, () => {
        sim.disturbed();
        set(false);
        forking.delete(sim);
      });
    // Not once all is healed: from there on leaders stay.
    if (next !== undefined && sim.mood.wild()) ending(next, leader, heal);
    else heal();
  };
  look();
  return true;
}

function cut(network: Network, one: SimNode, other: SimNode, on: boolean): void {
  network.setCut(other.id, one.id, on);
  network.setCut(one.id, other.id, on);
}
