/** L7: with nothing to do the log stays as it is, and members say no more than their heartbeats. */
import type { Millis } from "../../../src/replica/ports.ts";
import type { Simulation } from "../simulation.ts";

/** Most seeds watch an idle cluster for a short time, a few for a long one (K6). */
const QUIET_MS: readonly Millis[] = [1_500, 1_500, 1_500, 1_500, 1_500, 1_500, 1_500, 15_000];

export async function isQuiet(sim: Simulation): Promise<void> {
  const { heartbeatMs, leaseMs } = sim.options;
  const index = sim.appliedMax;
  const { sent } = sim.network.counts;
  const quietMs = sim.world.prng.pick(QUIET_MS);
  await sim.until(quietMs);
  // Retention and kept claims go on their own clock.
  const grown = sim.appliedMax - index;
  if (grown > 2) sim.fail("liveness L7", `the idle log grew by ${grown} entries`);
  const n = sim.core().length;
  const beats = (1_000 / heartbeatMs) * 2 * (sim.nodes.length - 1);
  const words = 30 * n + 4 * n * n;
  const pools = n * (3_000 / leaseMs) * (2 + 2 * n);
  const most = 1.5 * (beats + words + pools) * (quietMs / 1_000);
  if (sim.network.counts.sent - sent > most)
    sim.fail(
      "liveness L7",
      `idle members sent ${sim.network.counts.sent - sent} frames, at most ${most} are due`,
    );
}
