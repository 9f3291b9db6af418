/** What the command line of the simulator takes: numbers in their bounds, and options in place of the drawn ones. */
import type { Millis } from "../../src/replica/ports.ts";
import { FAULT_CODES, type FaultFamily, YOUNG_CODES } from "./options.ts";
import type { Override } from "./shrink.ts";

/** What the generators of random numbers take. */
export const SEED_MAX = 2 ** 32 - 1;

const MEMBERS_MAX = 7;
const SLOTS_MAX = 64;
const ASKING_MAX = 100;
const LENGTH_MAX_MS: Millis = 3_600_000;

/** A sentence for whoever called it. */
export class UsageError extends Error {}

/** @throws UsageError it is none, or out of bounds */
export function whole(text: string, flag: string, min: number, max: number): number {
  // As text: what is larger than a number can tell apart is not silently another one.
  if (/^\d{1,16}$/.test(text) && Number(text) >= min && Number(text) <= max) return Number(text);
  throw new UsageError(`--${flag} takes a whole number from ${min} to ${max}, not "${text}"`);
}

/** @throws UsageError it is none */
export function positive(text: string, flag: string): number {
  if (/^\d+(?:\.\d+)?$/.test(text) && Number(text) > 0) return Number(text);
  throw new UsageError(`--${flag} takes a number greater than 0, not "${text}"`);
}

const FAMILIES: ReadonlySet<string> = new Set(Object.keys({ ...FAULT_CODES, ...YOUNG_CODES }));

function isFamily(value: unknown): value is FaultFamily {
  return typeof value === "string" && FAMILIES.has(value);
}

const isWhole =
  (min: number, max: number) =>
  (value: unknown): boolean =>
    typeof value === "number" && Number.isInteger(value) && value >= min && value <= max;

const isBoolean = (value: unknown): boolean => typeof value === "boolean";

/** Each option that may be overridden: what it may be, for the program and for people. */
const TAKES: Readonly<
  Record<keyof Override, readonly [fits: (value: unknown) => boolean, what: string]>
> = {
  families: [
    (value) => Array.isArray(value) && value.every(isFamily),
    "an array of families of faults (docs/simulator.md names them)",
  ],
  members: [isWhole(1, MEMBERS_MAX), `a whole number from 1 to ${MEMBERS_MAX}`],
  concurrency: [
    (value) =>
      Array.isArray(value) && value.length <= MEMBERS_MAX && value.every(isWhole(0, SLOTS_MAX)),
    `an array of at most ${MEMBERS_MAX} whole numbers from 0 to ${SLOTS_MAX}`,
  ],
  clients: [isWhole(0, ASKING_MAX), `a whole number from 0 to ${ASKING_MAX}`],
  workers: [isWhole(0, ASKING_MAX), `a whole number from 0 to ${ASKING_MAX}`],
  faultsMs: [isWhole(1, LENGTH_MAX_MS), `whole milliseconds from 1 to ${LENGTH_MAX_MS}`],
  thinkMs: [isWhole(1, LENGTH_MAX_MS), `whole milliseconds from 1 to ${LENGTH_MAX_MS}`],
  clears: [isBoolean, "true or false"],
  replay: [isBoolean, "true or false"],
};

function isOverride(value: object): value is Override {
  return Object.entries(value).every(([name, given]) => isOption(name) && TAKES[name][0](given));
}

function isOption(name: string): name is keyof Override {
  return Object.hasOwn(TAKES, name);
}

/** @throws UsageError with what is wrong with it */
export function parseOverride(text: string): Override {
  const given = parsed(text);
  if (typeof given !== "object" || given === null || Array.isArray(given))
    throw new UsageError(`--override takes a JSON object, not ${text}`);
  if (isOverride(given)) return given;
  for (const [name, value] of Object.entries(given)) {
    if (!isOption(name))
      throw new UsageError(`--override: "${name}" is none of ${Object.keys(TAKES).join(", ")}`);
    const unknown =
      name === "families" && Array.isArray(value) ? value.filter((each) => !isFamily(each)) : [];
    if (unknown.length > 0)
      throw new UsageError(
        `--override: there is no family of faults ${unknown.map((each) => JSON.stringify(each)).join(", ")}`,
      );
    const [fits, what] = TAKES[name];
    if (!fits(value))
      throw new UsageError(`--override: ${name} is ${what}, not ${JSON.stringify(value)}`);
  }
  throw new UsageError(`--override ${text} cannot be taken`);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new UsageError(`--override takes a JSON object, not ${text}`);
  }
}
