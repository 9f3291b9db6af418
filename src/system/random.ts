/** Real randomness. */
import type { Random } from "../replica/ports.ts";

/** Drawn at once: an id for each request takes 16 bytes, and a call for them costs more than the bytes. */
const POOL_BYTES = 4_096;

/** The pool as text, two characters a byte, and how much of it was given out: nothing is given out twice. */
let pool = "";
let used = 0;

function hex(bytes: number): string {
  const length = bytes * 2;
  if (used + length > pool.length) {
    pool = crypto.getRandomValues(new Uint8Array(Math.max(POOL_BYTES, bytes))).toHex();
    used = 0;
  }
  used += length;
  return pool.slice(used - length, used);
}

export const systemRandom: Random = {
  float: () => Math.random(),
  uint32: () => crypto.getRandomValues(new Uint32Array(1))[0] ?? 0,
  uuid: (now) => Bun.randomUUIDv7("hex", now),
  hex,
};
