/** Many seeds, in this process or over several: what came of them, counted together. */
import { ACTIONS } from "./faults.ts";
import { drawOptions, FAULT_CODES, YOUNG_CODES } from "./options.ts";
import { asOptions, type Override } from "./shrink.ts";
import { type SimResult, Simulation } from "./simulation.ts";

/** Newest lines of the story that are printed with a failure. */
const LINES_SHOWN = 40;
/** Begins the line in which a process tells its parent what it counted. */
const SUMMARY = "summary ";
/** Begins the line that names a seed before it runs. */
export const ANNOUNCEMENT = "next is seed ";

export interface BatchOptions {
  readonly from: number;
  readonly count: number;
  readonly minutes: number;
  readonly jobs: number;
  /** Ends with the first seed that fails. */
  readonly first: boolean;
  /** Names each seed before it runs. */
  readonly announce: boolean;
  readonly override: string;
}

/** What a part of a batch took. Processor time is of the whole process: compiling and collecting garbage count. */
interface Taken {
  simulatedMs: number;
  cpuMs: number;
  /** By the clock; of several processes together. */
  wallMs: number;
}

interface Summary extends Taken {
  ran: number;
  failed: number;
  events: number;
  /** Of the second half of the seeds, when most of the code is compiled. */
  warm: Taken;
  /** Seeds in which each kind of fault really struck. */
  struck: Record<string, number>;
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

export function report({ seed, failure, lines }: SimResult, trace: boolean): void {
  if (failure === null) return;
  const { rule, detail, atMs, event } = failure;
  if (!trace) console.log(lines.slice(-LINES_SHOWN).join("\n"));
  console.log(`\nseed ${seed} broke ${rule} at ${(atMs / 1_000).toFixed(4)} s, event ${event}`);
  console.log(detail);
  console.log(`commit ${commit()}; replay: bun run sim --seed ${seed} --trace\n`);
}

/** Prints what was counted, and answers how many seeds failed. `child`: prints it for the parent. */
export async function runBatch(options: BatchOptions, step = 1, child = false): Promise<number> {
  const startedAt = performance.now();
  const summary = options.jobs > 1 ? await overJobs(options) : await alone(options, step);
  if (child) console.log(SUMMARY + JSON.stringify(summary));
  else print(summary, options.from, (performance.now() - startedAt) / 60_000);
  return summary.failed;
}

async function alone(options: BatchOptions, step: number): Promise<Summary> {
  const { from, count, minutes, first, announce } = options;
  const override = JSON.parse(options.override) as Override;
  const deadline = performance.now() + minutes * 60_000;
  const summary = nothingRan();
  for (let i = 0; i < count && performance.now() < deadline; i++) {
    if (announce) console.log(`${ANNOUNCEMENT}${from + i * step}`);
    const since = { cpu: process.cpuUsage(), at: performance.now() };
    const result = await runSeed(from + i * step, false, override);
    const { user, system } = process.cpuUsage(since.cpu);
    const taken: Taken = {
      simulatedMs: result.simulatedMs,
      cpuMs: (user + system) / 1_000,
      wallMs: performance.now() - since.at,
    };
    add(summary, taken);
    if (2 * i >= count) add(summary.warm, taken);
    summary.ran += 1;
    summary.events += result.events;
    for (const what of result.struck.keys()) summary.struck[what] = (summary.struck[what] ?? 0) + 1;
    if (result.failure === null) continue;
    summary.failed += 1;
    report(result, false);
    if (first) break;
  }
  return summary;
}

function nothingRan(): Summary {
  const nothing: Taken = { simulatedMs: 0, cpuMs: 0, wallMs: 0 };
  return { ran: 0, failed: 0, events: 0, ...nothing, warm: { ...nothing }, struck: {} };
}

function add(sum: Taken, part: Taken): void {
  sum.simulatedMs += part.simulatedMs;
  sum.cpuMs += part.cpuMs;
  sum.wallMs += part.wallMs;
}

/** Each process takes every jobs-th seed, so that they are even whenever the time is up. */
async function overJobs(options: BatchOptions): Promise<Summary> {
  const { from, count, minutes, jobs, override } = options;
  const parts = await Promise.all(
    Array.from({ length: Math.min(jobs, count) }, async (_, i) => {
      const flags = {
        seeds: Math.ceil((count - i) / jobs),
        from: from + i,
        step: jobs,
        minutes,
        override,
      };
      const args = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, String(value)]);
      const command = [
        process.execPath,
        "--no-orphans",
        "run",
        new URL("main.ts", import.meta.url).pathname,
      ];
      const running = Bun.spawn([...command, ...args, "--child"], {
        stdout: "pipe",
        stderr: "inherit",
      });
      const text = await new Response(running.stdout).text();
      const at = text.lastIndexOf(SUMMARY);
      console.log(at < 0 ? text : text.slice(0, at).trimEnd());
      await running.exited;
      if (at < 0) throw new Error(`a process with every ${jobs}th seed from ${from + i} died`);
      return JSON.parse(text.slice(at + SUMMARY.length)) as Summary;
    }),
  );
  const sum = nothingRan();
  for (const part of parts) {
    sum.ran += part.ran;
    sum.failed += part.failed;
    sum.events += part.events;
    add(sum, part);
    add(sum.warm, part.warm);
    for (const [what, seeds] of Object.entries(part.struck))
      sum.struck[what] = (sum.struck[what] ?? 0) + seeds;
  }
  return sum;
}

/** How often real time: by processor time, and by the clock of a process. */
function speed({ simulatedMs, cpuMs, wallMs }: Taken): string {
  const times = (ms: number): string => (simulatedMs / Math.max(1, ms)).toFixed(0);
  return `${times(cpuMs)} x real time by processor time, ${times(wallMs)} x by the clock of a process`;
}

function print(summary: Summary, from: number, minutes: number): void {
  const { ran, failed, events, simulatedMs, struck, warm } = summary;
  const hours = simulatedMs / 3_600_000;
  for (const [what, code] of Object.entries({ ...FAULT_CODES, ...YOUNG_CODES, ...ACTIONS })) {
    const share = ((100 * (struck[what] ?? 0)) / Math.max(1, ran)).toFixed(1);
    console.log(`  ${code.padEnd(8)} ${what.padEnd(24)} ${share.padStart(5)} % of seeds`);
  }
  console.log(
    `${ran} seeds from ${from}: ${ran - failed} passed, ${failed} failed; ${events} events, ${hours.toFixed(2)} simulated hours in ${minutes.toFixed(2)} minutes (${(hours / minutes).toFixed(2)} simulated hours per minute)`,
  );
  const later = warm.simulatedMs === 0 ? "" : `; the second half: ${speed(warm)}`;
  console.log(`${speed(summary)}${later}`);
}
