/** Leaders are cut off with work, lose their disk, and hand over: what makes logs differ. */
import type { Millis } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Prng } from "../world.ts";
import type { Strikes } from "./strike.ts";

/** How often is looked whether a disk is busy. */
const HANG_LOOK_MS: Millis = 0.5;

export const LEADER_STRIKES = {
  usurp,
  "leader-hang": hangLeader,
  transfer: (sim, prng) => {
    const leader = sim.nodes.find((node) => node.leadership?.role === "leader" && node.up);
    if (leader === undefined) return false;
    sim.transfer(leader, prng.chance(0.5) ? prng.pick(sim.nodes).id : null);
    // Just then there is work for it.
    for (let i = prng.between(0, 3); i > 0; i--)
      sim.world.at(sim.world.now + prng.float() * 10, () => sim.writeAt(leader));
    return true;
  },
} satisfies Strikes;

/**
 * A leader and a minority are cut off while it is given work, so that their logs end in what the others never
 * saw; now and then with a disk that is still busy with it when they come back under the next leader.
 */
function usurp(sim: Simulation, prng: Prng): boolean {
  const leader = sim.leader();
  if (leader === null || sim.nodes.length < 3) return false;
  const others = sim.nodes.filter((node) => node !== leader).toSorted(() => prng.float() - 0.5);
  const most = Math.floor((sim.nodes.length - 1) / 2);
  const side = [leader, ...others.slice(0, prng.between(0, most - 1))];
  const cuts = side.flatMap((a) =>
    sim.nodes.filter((b) => !side.includes(b)).map((b) => [a.id, b.id] as const),
  );
  sim.trace.say("net", `cuts off the leader ${side.map(({ id }) => id).join(" ")}`);
  const set = (cut: boolean): void => {
    for (const [a, b] of cuts) {
      sim.network.setCut(a, b, cut);
      sim.network.setCut(b, a, cut);
    }
  };
  set(true);
  if (prng.chance(0.4)) {
    hurry(sim, prng, leader, side, () => set(false));
    return true;
  }
  // Now and then so much that its log becomes the longest of all.
  for (let i = prng.pick([prng.between(1, 6), 20]); i > 0; i--)
    sim.world.at(sim.world.now + prng.float() * 100, () => sim.writeAt(leader));
  const { electionTimeoutMs } = sim.options;
  const ms = electionTimeoutMs * prng.pick([0.3, 1, 2, 3, 5]) + prng.float() * 500;
  const slow = prng.pick(side);
  if (prng.chance(0.5)) hangWithWork(sim, slow, 200, ms + prng.float() * 4 * electionTimeoutMs);
  const successorDies = prng.chance(0.4);
  sim.world.at(sim.world.now + ms, () => {
    sim.disturbed();
    set(false);
    if (successorDies) dieSoon(sim, prng, side);
  });
  return true;
}

/**
 * The disk of a leader hangs while the others go on, so that it has to give leadership up, now and then by itself: what
 * would hand it over gets lost. Now and then it hears of nobody afterwards, and wants to lead again with a disk that has
 * nothing to show for itself.
 */
function hangLeader(sim: Simulation, prng: Prng): boolean {
  const leader = sim.leader();
  const store = leader?.store ?? null;
  if (leader === null || store === null || store.hung) return false;
  const { electionTimeoutMs } = sim.options;
  sim.trace.say(leader.id, "disk hangs while it leads");
  store.hang();
  const ms = 1_000 + electionTimeoutMs * prng.pick([2, 4, 6]);
  for (let i = 0; i < 4; i++) sim.world.at(sim.world.now + 20 * i, () => sim.writeAt(leader));
  if (prng.chance(0.5))
    for (const { id } of sim.nodes) sim.network.sieve(leader.id, id, "timeout-now", ms);
  sim.world.at(sim.world.now + ms, () => store.recover());
  if (!prng.chance(0.6)) return true;
  const others = sim.nodes.filter((node) => node !== leader);
  const set = (cut: boolean): void => {
    for (const { id } of others) sim.network.setCut(id, leader.id, cut);
  };
  sim.world.at(sim.world.now + ms - electionTimeoutMs, () => {
    if (sim.mood.wild()) set(true);
  });
  sim.world.at(sim.world.now + ms + electionTimeoutMs * prng.pick([1, 3]), () => {
    sim.disturbed();
    set(false);
  });
  return true;
}

/**
 * From the moment in which a write is under way: what comes after it is another write, so that the one is answered and
 * the other is not when the disk comes back.
 */
function hangWithWork(sim: Simulation, node: SimNode, looks: number, ms: Millis): void {
  sim.world.at(sim.world.now + HANG_LOOK_MS, () => {
    const { store } = node;
    if (store === null || store.hung) return;
    if (store.pending === 0 && looks > 0) {
      hangWithWork(sim, node, looks - 1, ms);
      return;
    }
    store.hang();
    sim.world.at(sim.world.now + ms, () => store.recover());
  });
}

/** Whoever came back stands against those who followed its successor, with a log of another kind. */
function dieSoon(sim: Simulation, prng: Prng, side: readonly SimNode[]): void {
  sim.world.at(sim.world.now + prng.float() * 20, () => {
    const leader = sim.leader();
    // Not once all is healed: from there on leaders stay.
    if (sim.mood.wild() && leader !== null && !side.includes(leader)) sim.crashed(leader, "none");
  });
}

/**
 * The next leader forgets its log as soon as it may, and then the cut is over: who comes back gets a snapshot that
 * ends before its own log does, which holds what nobody else ever saw.
 */
function hurry(
  sim: Simulation,
  prng: Prng,
  leader: SimNode,
  side: readonly SimNode[],
  heal: () => void,
): void {
  for (let i = 0; i < 6; i++) sim.world.at(sim.world.now + 8 * i, () => sim.writeAt(leader));
  const deadline = sim.world.now + 6 * sim.options.electionTimeoutMs;
  const look = (): void => {
    const next = sim.nodes.find(
      (node) => !side.includes(node) && node.up && node.leadership?.active === true,
    );
    if (next === undefined && sim.world.now < deadline) {
      sim.world.at(sim.world.now + 2, look);
      return;
    }
    next?.compact(next.applied);
    sim.world.at(sim.world.now + 5, () => {
      sim.disturbed();
      heal();
      if (prng.chance(0.3)) dieSoon(sim, prng, side);
    });
  };
  look();
}
