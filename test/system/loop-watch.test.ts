import { existsSync } from "node:fs";
import { expect, test } from "bun:test";
import { systemClock } from "../../src/system/clock.ts";
import { LoopWatch } from "../../src/system/loop-watch.ts";

const known = existsSync(`/proc/self/task/${process.pid}/schedstat`);

/** Runs the loop for `ms`, busy for `share` of each 20 ms. */
async function turn(ms: number, share: number): Promise<void> {
  const end = performance.now() + ms;
  while (performance.now() < end) {
    const until = performance.now() + 20 * share;
    while (performance.now() < until);
    await Bun.sleep(Math.max(0, 20 * (1 - share)));
  }
}

test.skipIf(!known)(
  "a busy loop has a greater share than an idle one",
  async () => {
    const delays: number[] = [];
    const watch = new LoopWatch(systemClock, (ms) => delays.push(ms), 200);
    try {
      await turn(500, 0);
      const idle = watch.busyShare ?? 1;
      await turn(500, 1);
      const busy = watch.busyShare ?? 0;
      expect(busy).toBeGreaterThan(idle);
      expect(busy).toBeGreaterThan(0.5);
      expect(busy).toBeLessThanOrEqual(1);
      expect(delays.length).toBeGreaterThan(5);
      expect(Math.min(...delays)).toBeGreaterThanOrEqual(0);
    } finally {
      watch.stop();
    }
  },
  30_000,
);
