/** What comes after a run: a backup that was taken in it, or what a rescue leaves, begins a cluster of its own. */
import { drawOptions, type FaultFamily, type SimOptions, streamOf } from "./options.ts";
import type { Reborn } from "./beginning.ts";
import { type Backup, backUp, strangerStays } from "./reborn.ts";
import type { Simulation } from "./simulation.ts";

/** Somewhere in the middle of everything, if this seed restores one. */
export function backUpLater(sim: Simulation): { taken: Backup | null } {
  const backup: { taken: Backup | null } = { taken: null };
  const { options, world } = sim;
  if (!options.families.has("restore")) return backup;
  const prng = streamOf(options.seed, "backup");
  world.at(world.now + (0.3 + 0.7 * prng.float()) * options.faultsMs, () => {
    void backUp(sim, prng).then((taken) => (backup.taken = taken));
  });
  return backup;
}

/** The cluster that begins out of this one's state: a simulation of its own, whose failure is this one's. */
export async function goOn(
  sim: Simulation,
  reborn: Reborn | null,
  begin: (reborn: Reborn, seed: number, override: Partial<SimOptions>) => Simulation,
): Promise<void> {
  if (reborn === null || sim.failure !== null) return;
  sim.faults.count(reborn.kind);
  const { leaseMs, maxCrashes, seed } = sim.options;
  const prng = streamOf(seed, `what comes after a ${reborn.kind}`);
  const drawn = drawOptions(prng.uint32());
  const without: readonly FaultFamily[] = ["restore", "rescue", "skew"];
  const next = begin(reborn, drawn.seed, {
    leaseMs,
    maxCrashes,
    members: prng.pick([1, 1, 3, 3, 5]),
    faultsMs: prng.pick([2_000, 5_000]),
    families: new Set([...drawn.families].filter((family) => !without.includes(family))),
  });
  try {
    const { failure, hash, events, lines } = await next.run();
    sim.sequel = { events, simulatedMs: next.world.now - sim.world.now };
    for (const line of lines) sim.trace.note("next", line);
    sim.trace.mark(hash);
    if (next.faults.struck.has("return of the old")) sim.faults.count("return of the old");
    if (failure === null) strangerStays(next, reborn);
    if (next.failure !== null && failure === null) sim.fail(next.failure.rule, next.failure.detail);
    if (failure !== null) sim.fail(`${failure.rule} (after a ${reborn.kind})`, failure.detail);
  } finally {
    next.close();
  }
}
