/** The real clock. */
import type { Clock, Millis, Timer } from "../replica/ports.ts";

export const systemClock: Clock = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
  after(delay: Millis, run: () => void): Timer {
    const handle = setTimeout(run, delay);
    return { cancel: () => clearTimeout(handle) };
  },
  soon(run: () => void): void {
    setImmediate(run);
  },
};
