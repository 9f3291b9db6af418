/**
 * Runs the simulator: `--seed N [--trace] [--override JSON]` for one, `--seed N --shrink` for the smallest run in
 * which it still fails, `--seeds N [--from N] [--minutes M] [--jobs J]` for many, `--mutants [NAME…]` for known
 * bugs in a copy of the sources, `--coverage --seeds N` for what of the core they reach.
 * The first failure of a seed is printed with the line that replays it; the exit code is 1 if there was one.
 */
import "./engine.ts";
import { parseArgs } from "node:util";
import { parseOverride, positive, SEED_MAX, UsageError, whole } from "./arguments.ts";
import { report, runBatch, runSeed } from "./batch.ts";
import { reportCoverage } from "./coverage.ts";
import { MUTANTS } from "./mutant-list.ts";
import { runMutants } from "./mutants.ts";
import { type Override, shrink } from "./shrink.ts";

async function one(seed: number, trace: boolean, override: Override): Promise<number> {
  const startedAt = performance.now();
  const result = await runSeed(seed, trace, override);
  report(result, trace, override);
  const seconds = (performance.now() - startedAt) / 1_000;
  console.log(
    `seed ${seed}: hash ${result.hash}, ${result.events} events, ${result.entries} entries, ${result.tasks} tasks, ${(result.simulatedMs / 1_000).toFixed(1)} s simulated in ${seconds.toFixed(2)} s`,
  );
  console.log(JSON.stringify(result.counts));
  return result.failure === null ? 0 : 1;
}

async function shrunk(seed: number, override: Override): Promise<number> {
  const found = await shrink(seed, override, (line) => console.log(line));
  if (found === null) {
    console.log(`seed ${seed} breaks nothing`);
    return 0;
  }
  report(found.result, false, found.override);
  return 1;
}

const JOBS_MAX = 256;

const HELP = `usage: bun run sim COMMAND

  --seed N [--trace] [--override JSON]   one run, the same each time: with every event, with other options
  --seed N --shrink [--override JSON]    the smallest run in which the seed still fails
  --seeds N [--from N] [--minutes M] [--jobs J] [--first] [--override JSON]
                                         many runs: from a random seed or --from, for M minutes at most,
                                         in J processes, only up to the first that fails
  --mutants [NAME…] [--seeds N] [--from N] [--seeds-only]
                                         known bugs in a copy of the sources: which of them N seeds find, and
                                         which of the others the tests do
  --coverage [--seeds N] [--from N]      what of the core they reach

The first failure of a seed is printed with the line that replays it. Exit code 1: something failed; 2: a bad flag;
130 and 143: stopped by Ctrl-C or SIGTERM, with the summary of what had run.`;

const OPTIONS = {
  help: { type: "boolean", short: "h", default: false },
  seed: { type: "string" },
  trace: { type: "boolean", default: false },
  override: { type: "string", default: "{}" },
  shrink: { type: "boolean", default: false },
  seeds: { type: "string" },
  from: { type: "string" },
  minutes: { type: "string", default: "1000000" },
  jobs: { type: "string", default: "1" },
  /** Ends with the first seed that fails. */
  first: { type: "boolean", default: false },
  /** Names each seed before it runs. */
  announce: { type: "boolean", default: false },
  mutants: { type: "boolean", default: false },
  /** Mutants that no seed finds are not given to the tests. */
  "seeds-only": { type: "boolean", default: false },
  coverage: { type: "boolean", default: false },
  /** Of another such process: every so many seeds, and what was counted as one line. */
  step: { type: "string", default: "1" },
  child: { type: "boolean", default: false },
} as const;

/** Ends the process with a sentence where there is no such flag. */
function flags() {
  try {
    return parseArgs({ allowPositionals: true, options: OPTIONS });
  } catch (error) {
    console.error(`${String(error).split(". ")[0]}\n\n${HELP}`);
    return process.exit(2);
  }
}

const { values, positionals } = flags();
// Refusals are by the thousand, and where each was made nobody reads: who looks into one seed does.
Error.stackTraceLimit = values.seed === undefined ? 0 : 12;

/** How many seeds, from which on: no more than there are. */
function seedsOf(count: string, from: string): { readonly from: number; readonly count: number } {
  const first = whole(from, "from", 0, SEED_MAX);
  return { from: first, count: whole(count, "seeds", 1, SEED_MAX - first + 1) };
}

async function batch(seeds: string): Promise<number> {
  const step = whole(values.step, "step", 1, JOBS_MAX);
  const count = whole(seeds, "seeds", 1, SEED_MAX);
  // So far before the end that they are all seeds.
  const fresh = (): number => Math.floor((SEED_MAX - count) * Math.random());
  const { from } = seedsOf(seeds, values.from ?? String(fresh()));
  return runBatch(
    {
      from,
      count,
      minutes: positive(values.minutes, "minutes"),
      jobs: whole(values.jobs, "jobs", 1, JOBS_MAX),
      first: values.first,
      announce: values.announce,
      override: parseOverride(values.override),
    },
    { step, child: values.child },
  );
}

async function mutants(): Promise<number> {
  const unknown = positionals.filter((name) => !MUTANTS.some((mutant) => mutant.name === name));
  if (unknown.length > 0) throw new UsageError(`there is no mutant ${unknown.join(", ")}`);
  const { from, count } = seedsOf(values.seeds ?? "200", values.from ?? "1");
  const survived = await runMutants(count, from, positionals, values["seeds-only"]);
  return survived === 0 ? 0 : 1;
}

/** Resolves with the exit code. @throws UsageError */
async function main(): Promise<number> {
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  if (values.mutants) return mutants();
  if (positionals.length > 0)
    throw new UsageError(`only --mutants takes names: ${positionals.join(" ")}`);
  if (values.coverage) {
    const { from, count } = seedsOf(values.seeds ?? "100", values.from ?? "1");
    await reportCoverage(from, count);
    return 0;
  }
  if (values.seed !== undefined) {
    const seed = whole(values.seed, "seed", 0, SEED_MAX);
    const override = parseOverride(values.override);
    return values.shrink ? shrunk(seed, override) : one(seed, values.trace, override);
  }
  if (values.shrink || values.trace) throw new UsageError("--shrink and --trace take a --seed");
  if (values.seeds !== undefined) return batch(values.seeds);
  console.error(HELP);
  return 2;
}

try {
  process.exit(await main());
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  console.error(error.message);
  process.exit(2);
}
