/** Many seeds, in this process or over several: what came of them, told as it happens and counted together. */
import { Jobs, tellEnd, tellSummary } from "./jobs.ts";
import { drawOptions } from "./options.ts";
import { asOptions, type Override } from "./shrink.ts";
import { type SimResult, Simulation } from "./simulation.ts";
import { count as countSeed, merged, nothingRan, print, type Summary } from "./summary.ts";

/** Newest lines of the story that are printed with a failure. */
const LINES_SHOWN = 40;
/** Begins the line that names a seed before it runs. */
export const ANNOUNCEMENT = "next is seed ";
/** How often a batch says on standard error how far it is. */
const PROGRESS_MS = 60_000;
/** Of a batch that is stopped from outside. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;
const SIGNALS = ["SIGINT", "SIGTERM"] as const;

export interface BatchOptions {
  readonly from: number;
  readonly count: number;
  readonly minutes: number;
  readonly jobs: number;
  /** Ends with the first seed that fails. */
  readonly first: boolean;
  /** Names each seed before it runs. */
  readonly announce: boolean;
  readonly override: Override;
}

/** How a batch is run where it is not by a person. */
export interface BatchRun {
  /** Every so many seeds only. */
  readonly step: number;
  /** For another batch, which adds up what this one counts. */
  readonly child: boolean;
  readonly run: typeof runSeed;
}

export async function runSeed(
  seed: number,
  trace: boolean,
  override: Override = {},
): Promise<SimResult> {
  const print = trace ? { print: (line: string) => console.log(line) } : {};
  const sim = new Simulation(seed, { ...print, override: asOptions(override) });
  try {
    return await sim.run();
  } finally {
    sim.close();
  }
}

/** The seed without these families of faults, which it drew nothing else from. */
export function asThen(seed: number, without: readonly string[]): Override {
  if (without.length === 0) return {};
  return {
    families: [...drawOptions(seed).families].filter((family) => !without.includes(family)),
  };
}

function commit(): string {
  const { stdout } = Bun.spawnSync(["git", "describe", "--always", "--dirty"]);
  return stdout.toString().trim();
}

/** The command that runs the seed once more, to the last message. For a shell. */
export function replayLine(seed: number, override: Override): string {
  const line = `bun run sim --seed ${seed} --trace`;
  return Object.keys(override).length === 0
    ? line
    : `${line} --override '${JSON.stringify(override)}'`;
}

/** Prints what failed, if anything did, with the line that replays it. `trace`: its story is printed already. */
export function report(
  { seed, failure, lines }: SimResult,
  trace: boolean,
  override: Override,
): void {
  if (failure === null) return;
  const { rule, detail, atMs, event } = failure;
  if (!trace) console.log(lines.slice(-LINES_SHOWN).join("\n"));
  console.log(`\nseed ${seed} broke ${rule} at ${(atMs / 1_000).toFixed(4)} s, event ${event}`);
  console.log(detail);
  console.log(`commit ${commit()}; replay: ${replayLine(seed, override)}\n`);
}

/**
 * Runs them, prints what was counted, and resolves with the exit code: 1 when a seed failed, or a process that ran some
 * died; 130 and 143 when it was stopped by a signal, which costs nothing of what had run until then.
 */
export async function runBatch(
  options: BatchOptions,
  { step = 1, child = false, run = runSeed }: Partial<BatchRun> = {},
): Promise<number> {
  const startedAt = performance.now();
  const jobs = options.jobs > 1 ? new Jobs(options) : null;
  const alone = nothingRan();
  const soFar = (): Summary => (jobs === null ? alone : merged(jobs.parts));
  const running = jobs === null ? runAlone(options, alone, { step, child, run }) : jobs.run();
  if (child) return ofParent(running, alone);

  const signalled = Promise.withResolvers<(typeof SIGNALS)[number]>();
  for (const signal of SIGNALS) process.on(signal, signalled.resolve);
  const progress = setInterval(() => {
    const { ran, failed } = soFar();
    const next = jobs?.next ?? [options.from + ran * step];
    console.error(`${ran} seeds ran, ${failed} failed; next: ${next.join(" ")}`);
  }, PROGRESS_MS);
  try {
    const end = await Promise.race([running, signalled.promise]);
    jobs?.stop();
    print(soFar(), options.from, (performance.now() - startedAt) / 60_000);
    if (typeof end === "string") {
      console.error(`${end}: ${soFar().ran} of ${options.count} seeds had run`);
      return EXIT_CODES[end];
    }
    return soFar().failed === 0 && end === 0 ? 0 : 1;
  } finally {
    clearInterval(progress);
    for (const signal of SIGNALS) process.off(signal, signalled.resolve);
  }
}

/** A signal to all of a terminal's processes is for the parent, which ends this one. */
async function ofParent(running: Promise<unknown>, summary: Summary): Promise<number> {
  for (const signal of SIGNALS) process.on(signal, () => undefined);
  await running;
  tellEnd();
  return summary.failed === 0 ? 0 : 1;
}

/** One seed after the other, counted in `summary`. Resolves with how many processes died: none. */
async function runAlone(
  { from, count, minutes, first, announce, override }: BatchOptions,
  summary: Summary,
  { step, child, run }: BatchRun,
): Promise<number> {
  const deadline = performance.now() + minutes * 60_000;
  for (let i = 0; i < count && performance.now() < deadline; i++) {
    // Seeds that are over at once would leave no moment in which a signal is heard.
    await Bun.sleep(0);
    const seed = from + i * step;
    if (announce) console.log(`${ANNOUNCEMENT}${seed}`);
    const since = { cpu: process.cpuUsage(), at: performance.now() };
    let result: SimResult;
    try {
      result = await run(seed, false, override);
    } catch (error) {
      // Not even the simulator went on: the others have their turn all the same.
      summary.ran += 1;
      summary.failed += 1;
      console.log(`\nseed ${seed} ended with an error: ${String(error)}`);
      console.log(`commit ${commit()}; replay: ${replayLine(seed, override)}\n`);
      if (child) tellSummary(summary);
      if (first) break;
      continue;
    }
    const { user, system } = process.cpuUsage(since.cpu);
    const taken = {
      simulatedMs: result.simulatedMs,
      cpuMs: (user + system) / 1_000,
      wallMs: performance.now() - since.at,
    };
    countSeed(summary, result, taken, 2 * i >= count);
    report(result, false, override);
    if (child) tellSummary(summary);
    if (result.failure !== null && first) break;
  }
  return 0;
}
