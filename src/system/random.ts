/** Real randomness. */
import type { Random } from "../replica/ports.ts";

export const systemRandom: Random = {
  float: () => Math.random(),
  uint32: () => crypto.getRandomValues(new Uint32Array(1))[0] ?? 0,
  uuid: (now) => Bun.randomUUIDv7("hex", now),
  hex: (bytes) => crypto.getRandomValues(new Uint8Array(bytes)).toHex(),
};
