/**
 * Runs the simulator: `--seed N [--trace] [--override JSON]` for one, `--seed N --shrink` for the smallest run in
 * which it still fails, `--seeds N [--from N] [--minutes M] [--jobs J]` for many, `--mutants [NAME…]` for known
 * bugs in a copy of the sources, `--coverage --seeds N` for what of the core they reach.
 * The first failure of a seed is printed with the line that replays it; the exit code is 1 if there was one.
 */
import "./engine.ts";
import { parseArgs } from "node:util";
import { report, runBatch, runSeed } from "./batch.ts";
import { reportCoverage } from "./coverage.ts";
import { MUTANTS } from "./mutant-list.ts";
import { runMutants } from "./mutants.ts";
import { type Override, shrink } from "./shrink.ts";

async function one(seed: number, trace: boolean, override: Override): Promise<number> {
  const startedAt = performance.now();
  const result = await runSeed(seed, trace, override);
  report(result, trace);
  const seconds = (performance.now() - startedAt) / 1_000;
  console.log(
    `seed ${seed}: hash ${result.hash}, ${result.events} events, ${result.entries} entries, ${result.tasks} tasks, ${(result.simulatedMs / 1_000).toFixed(1)} s simulated in ${seconds.toFixed(2)} s`,
  );
  console.log(JSON.stringify(result.counts));
  return result.failure === null ? 0 : 1;
}

async function shrunk(seed: number): Promise<number> {
  const found = await shrink(seed, (line) => console.log(line));
  if (found === null) {
    console.log(`seed ${seed} breaks nothing`);
    return 0;
  }
  report(found.result, false);
  console.log(`bun run sim --seed ${seed} --trace --override '${JSON.stringify(found.override)}'`);
  return 1;
}

function whole(text: string, flag: string): number {
  const value = Number(text);
  if (Number.isFinite(value) && value >= 0) return value;
  console.error(`--${flag} takes a number, not "${text}"`);
  process.exit(2);
}

const HELP = `usage: bun run sim COMMAND

  --seed N [--trace] [--override JSON]   one run, the same each time: with every event, with other options
  --seed N --shrink                      the smallest run in which the seed still fails
  --seeds N [--from N] [--minutes M] [--jobs J] [--first]
                                         many runs: from a random seed or --from, for M minutes at most,
                                         in J processes, only up to the first that fails
  --mutants [NAME…] [--seeds N] [--from N] [--seeds-only]
                                         known bugs in a copy of the sources: which of them N seeds find, and
                                         which of the others the tests do
  --coverage [--seeds N] [--from N]      what of the core they reach

The first failure of a seed is printed with the line that replays it. Exit code 1: something failed; 2: a bad flag.`;

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
if (values.help) {
  console.log(HELP);
} else if (values.mutants) {
  const seeds = whole(values.seeds ?? "200", "seeds");
  const unknown = positionals.filter((name) => !MUTANTS.some((mutant) => mutant.name === name));
  if (unknown.length > 0) {
    console.error(`there is no mutant ${unknown.join(", ")}`);
    process.exit(2);
  }
  const survived = await runMutants(
    seeds,
    whole(values.from ?? "1", "from"),
    positionals,
    values["seeds-only"],
  );
  process.exit(survived === 0 ? 0 : 1);
} else if (values.coverage) {
  await reportCoverage(whole(values.from ?? "1", "from"), whole(values.seeds ?? "100", "seeds"));
} else if (values.seed !== undefined) {
  const seed = whole(values.seed, "seed");
  const override = JSON.parse(values.override) as Override;
  process.exit(await (values.shrink ? shrunk(seed) : one(seed, values.trace, override)));
} else if (values.seeds !== undefined) {
  const from =
    values.from === undefined
      ? (crypto.getRandomValues(new Uint32Array(1))[0] ?? 1)
      : whole(values.from, "from");
  const failed = await runBatch(
    {
      from,
      count: whole(values.seeds, "seeds"),
      minutes: whole(values.minutes, "minutes"),
      jobs: Math.max(1, whole(values.jobs, "jobs")),
      first: values.first,
      announce: values.announce,
      override: values.override,
    },
    whole(values.step, "step"),
    values.child,
  );
  process.exit(failed === 0 ? 0 : 1);
} else {
  console.error(HELP);
  process.exit(2);
}
