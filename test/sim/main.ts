/**
 * Runs the simulator: `--seed N [--trace] [--override JSON]` for one, `--seed N --shrink` for the smallest run in
 * which it still fails, `--seeds N [--from N] [--minutes M] [--jobs J]` for many, `--mutants [NAME…]` for known
 * bugs in a copy of the sources, `--coverage --seeds N` for what of the core they reach.
 * The first failure of a seed is printed with the line that replays it; the exit code is 1 if there was one.
 */
import { parseArgs } from "node:util";
import { reportCoverage } from "./coverage.ts";
import { runMutants } from "./mutants.ts";
import { ACTIONS } from "./faults.ts";
import { FAULT_CODES } from "./options.ts";
import { asOptions, type Override, shrink } from "./shrink.ts";
import { type SimResult, Simulation } from "./simulation.ts";

const LINES_SHOWN = 40;

async function runSeed(seed: number, trace: boolean, override: Override = {}): Promise<SimResult> {
  const print = trace ? { print: (line: string) => console.log(line) } : {};
  const sim = new Simulation(seed, { ...print, override: asOptions(override) });
  try {
    return await sim.run();
  } finally {
    sim.close();
  }
}

function commit(): string {
  const { stdout } = Bun.spawnSync(["git", "describe", "--always", "--dirty"]);
  return stdout.toString().trim();
}

function report({ seed, failure, lines }: SimResult, trace: boolean): void {
  if (failure === null) return;
  const { rule, detail, atMs, event } = failure;
  if (!trace) console.log(lines.slice(-LINES_SHOWN).join("\n"));
  console.log(`\nseed ${seed} broke ${rule} at ${(atMs / 1_000).toFixed(4)} s, event ${event}`);
  console.log(detail);
  console.log(`commit ${commit()}; replay: bun run sim --seed ${seed} --trace\n`);
}

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

async function many(from: number, count: number, minutes: number, first: boolean): Promise<number> {
  const startedAt = performance.now();
  const codes: Readonly<Record<string, string>> = { ...FAULT_CODES, ...ACTIONS };
  const struck = new Map(Object.keys(codes).map((what) => [what, 0]));
  let failed = 0;
  let ran = 0;
  let simulatedMs = 0;
  let events = 0;
  for (let seed = from; seed < from + count; seed++) {
    if (performance.now() - startedAt > minutes * 60_000) break;
    const result = await runSeed(seed, false);
    ran += 1;
    simulatedMs += result.simulatedMs;
    events += result.events;
    for (const family of result.struck.keys()) struck.set(family, (struck.get(family) ?? 0) + 1);
    if (result.failure !== null) failed += 1;
    report(result, false);
    if (first && failed > 0) break;
  }
  const realMinutes = (performance.now() - startedAt) / 60_000;
  const hours = simulatedMs / 3_600_000;
  console.log(
    `${ran} seeds from ${from}, ${failed} failed; ${events} events, ${hours.toFixed(2)} simulated hours in ${realMinutes.toFixed(2)} minutes (${(hours / realMinutes).toFixed(2)} h/min)`,
  );
  for (const [family, seeds] of struck)
    console.log(
      `  ${(codes[family] ?? "").padEnd(7)} ${family.padEnd(24)} ${((100 * seeds) / ran).toFixed(0).padStart(3)} % of seeds`,
    );
  return failed === 0 ? 0 : 1;
}

/** Splits the seeds over processes; each prints for itself. */
async function split(from: number, count: number, minutes: number, jobs: number): Promise<number> {
  const share = Math.ceil(count / jobs);
  const children = Array.from({ length: jobs }, (_, i) =>
    Bun.spawn(
      [
        process.execPath,
        "run",
        import.meta.path,
        "--seeds",
        String(Math.max(0, Math.min(share, count - i * share))),
        "--from",
        String(from + i * share),
        "--minutes",
        String(minutes),
      ],
      { stdout: "inherit", stderr: "inherit" },
    ),
  );
  const codes = await Promise.all(children.map(({ exited }) => exited));
  return codes.some((code) => code !== 0) ? 1 : 0;
}

function whole(text: string, flag: string): number {
  const value = Number(text);
  if (Number.isFinite(value) && value >= 0) return value;
  console.error(`--${flag} takes a number, not "${text}"`);
  process.exit(2);
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
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
    mutants: { type: "boolean", default: false },
    coverage: { type: "boolean", default: false },
  },
});
if (values.mutants) {
  const seeds = whole(values.seeds ?? "200", "seeds");
  const survived = await runMutants(seeds, whole(values.from ?? "1", "from"), positionals);
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
  const jobs = Math.max(1, whole(values.jobs, "jobs"));
  const seeds = whole(values.seeds, "seeds");
  const minutes = whole(values.minutes, "minutes");
  process.exit(
    await (jobs === 1
      ? many(from, seeds, minutes, values.first)
      : split(from, seeds, minutes, jobs)),
  );
} else {
  console.error(
    "give --seed N [--trace | --shrink], or --seeds N [--from N] [--minutes M] [--jobs J], or --mutants [NAME…]",
  );
  process.exit(2);
}
