/**
 * How long a failed task waits before it is ready again. Part of apply: the same on every member, so only
 * additions and multiplications of IEEE doubles (no Math.pow, whose last bit an engine may choose) and
 * integer hashing.
 */
import type { RetryPolicy } from "./types.ts";

/** An exponential delay with a factor near 1 that has not met its cap after this many steps stays there. */
const STEPS_MAX = 1_000;

/**
 * 32-bit hash of an entry's seed, a task's sequence and its attempt: the murmur3 finaliser over
 * `seed ^ low(seq)·0x9e3779b1 ^ high(seq)·0xc2b2ae3d ^ attempt·0x85ebca6b`, all modulo 2^32.
 */
export function jitterHash(seed: number, seq: number, attempt: number): number {
  let h =
    seed ^
    Math.imul(seq >>> 0, 0x9e3779b1) ^
    Math.imul(Math.floor(seq / 2 ** 32), 0xc2b2ae3d) ^
    Math.imul(attempt >>> 0, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/**
 * Delay in ms before try `n` (1 for the first retry). Without jitter: `initial` (fixed), `initial·n`
 * (linear), `initial·factor^(n-1)` (exponential), never above `max_ms`. With it: half of that, and a part
 * of the other half that `hash` / 2^32 gives ("equal jitter"), so that a retry is never immediate.
 */
export function backoffMs(policy: RetryPolicy, n: number, hash: number): number {
  const plain = Math.max(0, Math.min(policy.max_ms, curve(policy, Math.max(1, n))));
  if (!policy.jitter) return Math.floor(plain);
  return Math.floor(plain / 2 + (plain / 2) * (hash / 2 ** 32));
}

function curve(policy: RetryPolicy, n: number): number {
  switch (policy.kind) {
    case "none":
      return 0;
    case "fixed":
      return policy.initial_ms;
    case "linear":
      return policy.initial_ms * n;
    case "exponential": {
      let delay = policy.initial_ms;
      for (let step = 1; step < n && step < STEPS_MAX && delay < policy.max_ms; step++) {
        delay *= policy.factor;
      }
      return delay;
    }
  }
}
