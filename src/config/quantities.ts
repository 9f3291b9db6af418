/** Numbers with a unit or a range, and words of a list: texts in, values or a `ConfigError` out. */
import { ConfigError } from "./error.ts";
import type { FlagName } from "./flags.ts";

/** Both included: milliseconds, or bytes. */
export interface Bounds {
  readonly min: number;
  readonly max: number;
}

/**
 * Of what a member is told for itself. They keep a mistyped unit from becoming a timer of weeks; each is far
 * beyond any sensible value. (Settings of the cluster have the limits that requests have, too.)
 */
export const MEMBER_BOUNDS = {
  heartbeat: { min: 1, max: 10_000 },
  "election-timeout": { min: 10, max: 60_000 },
  "request-timeout": { min: 10, max: 600_000 },
  drain: { min: 0, max: 3_600_000 },
} as const satisfies Partial<Record<FlagName, Bounds>>;

const MILLIS_OF: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

const BYTES_OF: Readonly<Record<string, number>> = {
  "": 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** @throws ConfigError */
export function integerFlag(flag: FlagName, text: string, min: number, max: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new ConfigError(
    `--${flag} ${JSON.stringify(text)} is not usable: give a whole number from ${min} to ${max}.`,
  );
}

/** @throws ConfigError */
export function oneOf<T extends string>(flag: FlagName, text: string, choices: readonly T[]): T {
  const choice = choices.find((candidate) => candidate === text);
  if (choice !== undefined) return choice;
  throw new ConfigError(
    `--${flag} ${JSON.stringify(text)} is not known: choose ${choices.join(", ")}.`,
  );
}

/** Milliseconds, within `bounds`. @throws ConfigError */
export function boundedDuration(flag: FlagName, text: string, { min, max }: Bounds): number {
  const milliseconds = durationMs(text);
  if (milliseconds === null) {
    throw new ConfigError(
      `--${flag} ${JSON.stringify(text)} is not a duration: write a number with ms, s, m, h or d.`,
    );
  }
  if (milliseconds >= min && milliseconds <= max) return milliseconds;
  throw new ConfigError(
    `--${flag} ${text} is out of range: give ${durationText(min)} to ${durationText(max)}.`,
  );
}

/** Bytes, within `bounds`. @throws ConfigError */
export function boundedSize(flag: FlagName, text: string, { min, max }: Bounds): number {
  const bytes = parseSize(flag, text);
  if (bytes >= min && bytes <= max) return bytes;
  throw new ConfigError(
    `--${flag} ${text} is out of range: give ${sizeText(min)} to ${sizeText(max)}.`,
  );
}

/** Bytes. @throws ConfigError */
export function parseSize(flag: FlagName, text: string): number {
  const match = /^(\d{1,15}(?:\.\d{1,6})?)([A-Za-z]*)$/.exec(text);
  const unit = BYTES_OF[match?.[2] ?? "?"];
  const bytes = match === null || unit === undefined ? -1 : Math.round(Number(match[1]) * unit);
  if (bytes >= 0 && Number.isSafeInteger(bytes)) return bytes;
  throw new ConfigError(
    `--${flag} ${JSON.stringify(text)} is not a size: write bytes, or a number with KiB, MiB, GiB, ` +
      "KB, MB or GB.",
  );
}

/** Milliseconds of `50ms`, `1.5s`, `10m`, `24h`, `7d`, or null. */
function durationMs(text: string): number | null {
  const match = /^(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)$/.exec(text);
  const unit = MILLIS_OF[match?.[2] ?? ""];
  if (match === null || unit === undefined) return null;
  const milliseconds = Math.round(Number(match[1]) * unit);
  return Number.isSafeInteger(milliseconds) ? milliseconds : null;
}

/** In the largest unit that holds it whole, as a flag takes it. */
function durationText(milliseconds: number): string {
  return inUnits(milliseconds, MILLIS_OF) ?? "0s";
}

function sizeText(bytes: number): string {
  const { KiB = 1, MiB = 1, GiB = 1 } = BYTES_OF;
  return inUnits(bytes, { B: 1, KiB, MiB, GiB }) ?? "0";
}

/** `units` from the smallest to the largest. */
function inUnits(amount: number, units: Readonly<Record<string, number>>): string | null {
  const whole = Object.entries(units).findLast(([, unit]) => amount >= unit && amount % unit === 0);
  return whole === undefined ? null : `${amount / whole[1]}${whole[0]}`;
}
