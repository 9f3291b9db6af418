/** What came of many seeds: counted as they run, added up over processes, and printed. */
import { ACTIONS } from "./faults.ts";
import { FAULT_CODES, YOUNG_CODES } from "./options.ts";
import type { SimResult } from "./simulation.ts";

/** What a part of a batch took. Processor time is of the whole process: compiling and collecting garbage count. */
export interface Taken {
  simulatedMs: number;
  cpuMs: number;
  /** By the clock; of several processes together. */
  wallMs: number;
}

export interface Summary extends Taken {
  ran: number;
  failed: number;
  events: number;
  /** Of the second half of the seeds, when most of the code is compiled. */
  warm: Taken;
  /** Seeds in which each kind of fault really struck. */
  struck: Record<string, number>;
}

export function nothingRan(): Summary {
  const nothing: Taken = { simulatedMs: 0, cpuMs: 0, wallMs: 0 };
  return { ran: 0, failed: 0, events: 0, ...nothing, warm: { ...nothing }, struck: {} };
}

/** One more seed has run to its end. */
export function count(
  summary: Summary,
  { failure, events, struck }: SimResult,
  taken: Taken,
  isWarm: boolean,
): void {
  add(summary, taken);
  if (isWarm) add(summary.warm, taken);
  summary.ran += 1;
  if (failure !== null) summary.failed += 1;
  summary.events += events;
  for (const what of struck.keys()) summary.struck[what] = (summary.struck[what] ?? 0) + 1;
}

export function merged(parts: readonly Summary[]): Summary {
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

function add(sum: Taken, part: Taken): void {
  sum.simulatedMs += part.simulatedMs;
  sum.cpuMs += part.cpuMs;
  sum.wallMs += part.wallMs;
}

/** How often real time: by processor time, and by the clock of a process. */
function speed({ simulatedMs, cpuMs, wallMs }: Taken): string {
  const times = (ms: number): string => (simulatedMs / Math.max(1, ms)).toFixed(0);
  return `${times(cpuMs)} x real time by processor time, ${times(wallMs)} x by the clock of a process`;
}

export function print(summary: Summary, from: number, minutes: number): void {
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
