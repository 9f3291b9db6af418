/**
 * The real clock, and turns of the event loop that do not end. The runtime asks for ready sockets until fewer than a thousand are
 * ready, and only then runs timers and immediates: with thousands of busy connections such a turn takes half a second, in which
 * no tick comes, nothing that gathers leaves, and others elect another leader. So whoever is called once for each request calls
 * `catchUp`, which runs in between what is due.
 */
import type { Clock, Millis, Timer } from "../replica/ports.ts";

/** A turn may take so long: a third of the default election timeout. */
const TURN_MAX_MS: Millis = 100;
/**
 * And so long once it has brought this many requests, which only more connections than anybody could serve bring. Other turns are
 * long by themselves (commits of the state, collections), and cut so short their entries would cost more than they gain: batches at
 * three members lost a fifth of their rate.
 */
const CROWDED_TURN_MAX_MS: Millis = 20;
const CROWD = 512;

/** Timers of so much or less can be run in between. Longer ones may as well be late by a turn. */
const SHORT_MS: Millis = 50;

interface ShortTimer {
  readonly dueAt: Millis;
  readonly run: () => void;
  readonly handle: ReturnType<typeof setTimeout>;
}

const short = new Set<ShortTimer>();
let waiting: (() => void)[] = [];
const looks: (() => void)[] = [];
/** When timers or immediates ran last, and calls of `catchUp` since then. */
let ranAt: Millis = performance.now();
let calls = 0;

export const systemClock: Clock = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
  after(delay: Millis, run: () => void): Timer {
    if (delay > SHORT_MS) {
      const handle = setTimeout(run, delay);
      return { cancel: () => clearTimeout(handle) };
    }
    const timer: ShortTimer = {
      dueAt: performance.now() + delay,
      run,
      handle: setTimeout(() => {
        ran();
        short.delete(timer);
        run();
      }, delay),
    };
    short.add(timer);
    return { cancel: () => drop(timer) };
  },
  soon(run: () => void): void {
    if (waiting.push(run) === 1) setImmediate(runWaiting);
  },
};

/** `look` is called in between, too: for what other threads have done, since their messages wait for the end of a turn. */
export function lookInBetween(look: () => void): void {
  looks.push(look);
}

/** Runs what waits for the end of this turn, if it has gone on for long. What that throws ends the process, as everywhere. */
export function catchUp(): void {
  calls += 1;
  const now = performance.now();
  if (now - ranAt < (calls < CROWD ? TURN_MAX_MS : CROWDED_TURN_MAX_MS)) return;
  try {
    for (const look of looks) look();
    runWaiting();
    for (const timer of dueBy(now)) {
      // An earlier one may have cancelled it.
      if (!short.has(timer)) continue;
      drop(timer);
      timer.run();
    }
  } catch (error) {
    // Not to whoever happens to be served just now.
    queueMicrotask(() => {
      throw error;
    });
  }
}

function dueBy(now: Millis): ShortTimer[] {
  return [...short]
    .filter(({ dueAt }) => dueAt <= now)
    .toSorted((one, other) => one.dueAt - other.dueAt);
}

function ran(): void {
  ranAt = performance.now();
  calls = 0;
}

function drop(timer: ShortTimer): void {
  clearTimeout(timer.handle);
  short.delete(timer);
}

/** In their order; what they add waits for another time. */
function runWaiting(): void {
  ran();
  const batch = waiting;
  waiting = [];
  for (const [i, run] of batch.entries()) {
    try {
      run();
    } catch (error) {
      const rest = batch.slice(i + 1);
      if (rest.length > 0 && waiting.length === 0) setImmediate(runWaiting);
      waiting = [...rest, ...waiting];
      throw error;
    }
  }
}
