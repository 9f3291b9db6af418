/** L1, L2: a leader within ten election timeouts, whom all follow, and who stays. */
import type { Millis } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import { describeCore } from "./core.ts";

/** Half-open connections are found by pings, and redialled: that comes before any election. */
const RECONNECT_MS: Millis = 6_000;

/** Who leads, in which term. */
export interface Standing {
  readonly leader: SimNode | null;
  readonly term: number | null;
  /** The index from which the leader's state goes on since a start or a snapshot. */
  readonly since: number | null;
}

export function standing(sim: Simulation): Standing {
  const leader = sim.leader();
  return { leader, term: leader?.leadership?.term ?? null, since: leader?.startedAt ?? null };
}

/** False: it broke. */
export async function elects(sim: Simulation): Promise<boolean> {
  const leads = (): boolean => {
    const leader = sim.leader();
    return leader !== null && sim.core().includes(leader);
  };
  const limitMs = RECONNECT_MS + 10 * sim.options.electionTimeoutMs;
  if (await sim.until(limitMs, leads)) return true;
  sim.fail("liveness L1", `no leader within ${limitMs} ms: ${describeCore(sim)}`);
  return false;
}

/** False: it broke. */
export async function follows(sim: Simulation): Promise<boolean> {
  const { electionTimeoutMs } = sim.options;
  // What was handed over in the last moment ends, well or badly, before anybody is expected to stay.
  await sim.until(2 * electionTimeoutMs);
  if (await sim.until(RECONNECT_MS + 10 * electionTimeoutMs, () => isFollowed(sim))) return true;
  sim.fail("liveness L1", `not everyone hears of the leader: ${describeCore(sim)}`);
  return false;
}

/** Nobody in the core believes in anybody else, or in a later term. */
function isFollowed(sim: Simulation): boolean {
  const leader = sim.leader();
  if (leader === null) return false;
  return sim
    .core()
    .every(
      ({ leadership }) =>
        leadership?.leader === leader.id && leadership.term === leader.leadership?.term,
    );
}

/**
 * Who was removed, or gave its place away, has handed over: its learner may have caught up late. And so has one that was found
 * wrong by how its rows had been: what rotted may be written anew, or gone, before the others' rows of that index are compared.
 */
export function stayed(sim: Simulation, { leader, term, since }: Standing): void {
  const now = standing(sim);
  if (leader === null || !sim.isMember(leader)) return;
  const isFound = leader.startedAt !== since || (leader.replica?.condemned() ?? null) !== null;
  if (leader.wasRotten && isFound) return;
  if (now.leader !== leader || now.term !== term)
    sim.fail(
      "liveness L2",
      `${leader.id} led in term ${term}, now ${now.leader?.id} in term ${now.term}`,
    );
}
