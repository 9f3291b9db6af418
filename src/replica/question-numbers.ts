/**
 * Numbers under which a process asks other members. Whoever is asked may answer late, when another process of the asking
 * member is there: the answer must be none to what that one asks, or it would be given the read index, or the tasks, of
 * long ago. So no two processes count from the same number.
 */
import type { Identity } from "./ports.ts";

/** Between two first numbers, at least: more than a process asks while an answer may still be under way. */
const NUMBERS = 2 ** 20;

/** 2 ** 32 by the golden ratio: its multiples are spread evenly, and no two of them are alike. */
const STEP = 0x9e3779b1;

/** Where the folder's random name says, and for each start of its process somewhere else: that needs no luck. */
export function firstNumber({ incarnation, boot }: Pick<Identity, "incarnation" | "boot">): number {
  const folder = Number.parseInt(incarnation.slice(-8), 16) || 0;
  return 1 + ((folder + Math.imul(boot, STEP)) >>> 0) * NUMBERS;
}
