/**
 * A claim of a worker outside that is asked again, under the same request, at another member than before: after a wait
 * that ended with nothing, one that was cut, and an answer that nobody heard. What the first one was granted is its
 * own (`History.claimed`), whatever the members asked before make of it.
 */
import type { FlotillaQueue } from "../../src/queue/queue.ts";
import type { Claim, ClaimedTask } from "../../src/queue/types.ts";
import type { Millis } from "../../src/replica/ports.ts";
import type { SimNode } from "./node.ts";
import type { Simulation } from "./simulation.ts";
import type { Prng } from "./world.ts";

const TRIES_MAX = 6;

/** How a try ends, if not with an answer that is heard. */
type Ending = "patient" | "cut" | "unheard";

/** What the request got, as far as anybody heard of it. */
export async function claimAgain(
  sim: Simulation,
  prng: Prng,
  claim: Claim,
): Promise<readonly ClaimedTask[]> {
  let before: SimNode | null = null;
  for (let attempt = 1; attempt <= TRIES_MAX; attempt++) {
    const node: SimNode = another(sim, prng, before);
    if (attempt > 1) sim.faults.count("claim-again");
    before = node;
    const since = sim.history.begin();
    const waitMs = prng.pick([0, 5, 50, 500, 3_000]);
    const ending = sim.mood.wild() ? prng.pick(ENDINGS) : "patient";
    const who = claim.worker_id;
    sim.trace.say(who, `claims ${claim.request_id} at ${node.id}, waits ${waitMs} ms, ${ending}`);
    const answer = await ask(sim, prng, node, claim, waitMs, ending);
    const told = answer?.tasks.map(({ lease }) => lease.fence).join(" ");
    sim.trace.say(who, `${claim.request_id}: ${told === undefined ? "no answer" : `[${told}]`}`);
    if (answer !== null) {
      sim.history.claimed(claim, answer.tasks, since);
      if (answer.tasks.length > 0 || prng.chance(0.3)) return answer.tasks;
    }
    await sim.sleep(prng.pick([0, 0, 3, 50, 400]) * prng.float());
  }
  return [];
}

const ENDINGS: readonly Ending[] = ["patient", "patient", "patient", "cut", "cut", "unheard"];

/** Null: nothing was heard. */
async function ask(
  sim: Simulation,
  prng: Prng,
  node: SimNode,
  claim: Claim,
  waitMs: Millis,
  ending: Ending,
): Promise<Awaited<ReturnType<FlotillaQueue["claim"]>> | null> {
  const gone = new AbortController();
  const call = sim
    .call(node, (queue) => queue.claim(claim, waitMs, gone.signal), waitMs)
    .catch(() => null);
  if (ending === "patient") return call;
  await Promise.race([call, sim.sleep(prng.between(0, 600))]);
  // A member hears that the connection closed; of one that is half-open it does not.
  if (ending === "cut") {
    const { clock } = node;
    sim.world.at(sim.world.now + sim.network.delay(), () => clock.enter(() => gone.abort()));
  }
  return null;
}

/** Not the one asked before, where there is a choice. */
export function another(sim: Simulation, prng: Prng, before: SimNode | null): SimNode {
  const all = sim.addressable();
  const others = all.filter((node) => node !== before);
  return prng.pick(others.length === 0 ? all : others);
}
