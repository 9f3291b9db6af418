/**
 * Makes a failing run small: fewer kinds of faults, fewer clients and workers, less time, one step after the
 * other, as long as the same rule breaks. What is left is a schedule that somebody can read.
 *
 * A smaller run is another run (what is drawn moves on with each draw), so a step is kept only when it was
 * seen to fail; the result is small, not the smallest.
 */
import { drawOptions, type FaultFamily, type SimOptions } from "./options.ts";
import { type SimResult, Simulation } from "./simulation.ts";

/** What a run is made smaller by; JSON on the command line. */
export interface Override {
  readonly families?: readonly FaultFamily[];
  readonly members?: number;
  readonly concurrency?: readonly number[];
  readonly clients?: number;
  readonly workers?: number;
  readonly faultsMs?: number;
  readonly thinkMs?: number;
  readonly clears?: boolean;
  readonly replay?: boolean;
}

const FAULTS_MS_MIN = 250;

export function asOptions({ families, ...rest }: Override): Partial<SimOptions> {
  return families === undefined ? rest : { ...rest, families: new Set(families) };
}

export async function runWith(seed: number, override: Override): Promise<SimResult> {
  const sim = new Simulation(seed, { override: asOptions(override) });
  try {
    return await sim.run();
  } finally {
    sim.close();
  }
}

/**
 * The smallest override found under which the seed still breaks the same rule as under `given`, or null when it breaks
 * none there. `run` is how a seed is tried; `report` is told of each step that was kept.
 */
export async function shrink(
  seed: number,
  given: Override,
  report: (line: string) => void,
  run: (seed: number, override: Override) => Promise<SimResult> = runWith,
): Promise<{ readonly override: Override; readonly result: SimResult } | null> {
  let override = given;
  let result = await run(seed, override);
  const rule = result.failure?.rule;
  if (rule === undefined) return null;
  for (;;) {
    const before = override;
    for (const smaller of steps(seed, override, result)) {
      const tried = await run(seed, smaller);
      if (tried.failure?.rule !== rule) continue;
      override = smaller;
      result = tried;
      report(
        `still breaks at ${((tried.failure?.atMs ?? 0) / 1_000).toFixed(3)} s, event ${tried.events}: ${JSON.stringify(smaller)}`,
      );
      break;
    }
    if (override === before) return { override, result };
  }
}

/** One step further each; what saves the reader most comes first. */
function* steps(seed: number, override: Override, { failure }: SimResult): Generator<Override> {
  const drawn = drawOptions(seed);
  const families = override.families ?? [...drawn.families];
  if (families.length > 1) {
    const half = Math.ceil(families.length / 2);
    yield { ...override, families: families.slice(0, half) };
    yield { ...override, families: families.slice(half) };
  }
  for (const family of families)
    yield { ...override, families: families.filter((other) => other !== family) };
  const faultsMs = override.faultsMs ?? drawn.faultsMs;
  const atMs = failure?.atMs ?? faultsMs;
  for (const shorter of [faultsMs / 4, faultsMs / 2, Math.min(atMs, faultsMs - FAULTS_MS_MIN)])
    if (shorter >= FAULTS_MS_MIN && shorter < faultsMs)
      yield { ...override, faultsMs: Math.floor(shorter) };
  const members = override.members ?? drawn.members;
  if (members > 1) {
    const concurrency = (override.concurrency ?? drawn.concurrency).slice(0, members - 1);
    yield { ...override, members: members - 1, concurrency };
  }
  const concurrency = override.concurrency ?? drawn.concurrency;
  if (concurrency.some((slots) => slots > 0))
    yield { ...override, concurrency: concurrency.map(() => 0) };
  const clients = override.clients ?? drawn.clients;
  if (clients > 1) yield { ...override, clients: clients - 1 };
  const workers = override.workers ?? drawn.workers;
  if (workers > 0) yield { ...override, workers: workers - 1 };
  if (override.clears ?? drawn.clears) yield { ...override, clears: false };
  if (override.replay ?? drawn.replay) yield { ...override, replay: false };
}
