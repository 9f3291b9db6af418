/**
 * The real clock, and turns of the event loop that do not end. The runtime asks for ready sockets until fewer than a thousand are
 * ready, and only then runs timers and immediates, and hears other threads: with thousands of busy connections such a turn lasts for
 * seconds, in which no tick comes, nothing that gathers leaves, nothing becomes durable, and others elect another leader. So whoever
 * is called for each request and each answer calls `catchUp`, which does in between what is due.
 */
import type { Clock, Millis, Timer } from "../replica/ports.ts";

/** A turn may take so long: a third of the default election timeout. */
const TURN_MAX_MS: Millis = 100;
/**
 * And so long once it has brought this many requests and answers, which only more connections than anybody could serve bring. Other turns are
 * long by themselves (commits of the state, collections), and cut so short their entries would cost more than they gain: batches at
 * three members lost a fifth of their rate.
 */
const CROWDED_TURN_MAX_MS: Millis = 20;
const CROWD = 1_024;

/** Timers of so much or less can be run in between. */
const SHORT_MS: Millis = 50;
/**
 * Longer ones may be late by a turn, but not by one that lasts: then they are looked at this often. A timer that is late by half a second
 * means that the process stood still, to who watches for that (queue/leases.ts).
 */
const LONG_TURN_MS: Millis = 200;

interface SystemTimer {
  readonly among: Set<SystemTimer>;
  readonly dueAt: Millis;
  readonly run: () => void;
  readonly handle: ReturnType<typeof setTimeout>;
}

const short = new Set<SystemTimer>();
const long = new Set<SystemTimer>();
let waiting: (() => void)[] = [];
const looks = new Set<() => void>();
/** When timers or immediates ran last, and calls of `catchUp` since then. */
let ranAt: Millis = performance.now();
let calls = 0;
/** When a turn ended, or the long timers were looked at. */
let longAt: Millis = ranAt;

export const systemClock: Clock = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
  after(delay: Millis, run: () => void): Timer {
    const timer: SystemTimer = {
      among: delay > SHORT_MS ? long : short,
      dueAt: performance.now() + delay,
      run,
      handle: setTimeout(() => {
        turnEnded();
        timer.among.delete(timer);
        run();
      }, delay),
    };
    timer.among.add(timer);
    return { cancel: () => drop(timer) };
  },
  soon(run: () => void): void {
    if (waiting.push(run) === 1) setImmediate(runAtEnd);
  },
};

/**
 * `look` is called in between, too: for what other threads have done, since their messages wait for the end of a turn. Until what it
 * answers is called.
 */
export function lookInBetween(look: () => void): () => void {
  looks.add(look);
  return () => looks.delete(look);
}

/** Runs what waits for the end of this turn, if it has gone on for long. What that throws ends the process, as everywhere. */
export function catchUp(): void {
  calls += 1;
  const now = performance.now();
  if (now - ranAt < (calls < CROWD ? TURN_MAX_MS : CROWDED_TURN_MAX_MS)) return;
  try {
    for (const look of looks) look();
    runWaiting();
    runDue(short, now);
    if (now - longAt < LONG_TURN_MS) return;
    longAt = now;
    runDue(long, now);
  } catch (error) {
    // Not to whoever happens to be served just now.
    queueMicrotask(() => {
      throw error;
    });
  }
}

function runDue(timers: Set<SystemTimer>, now: Millis): void {
  const due = [...timers]
    .filter(({ dueAt }) => dueAt <= now)
    .toSorted((one, other) => one.dueAt - other.dueAt);
  for (const timer of due) {
    // An earlier one may have cancelled it.
    if (!timers.has(timer)) continue;
    drop(timer);
    timer.run();
  }
}

function drop(timer: SystemTimer): void {
  clearTimeout(timer.handle);
  timer.among.delete(timer);
}

function ran(): void {
  ranAt = performance.now();
  calls = 0;
}

function turnEnded(): void {
  ran();
  longAt = ranAt;
}

function runAtEnd(): void {
  turnEnded();
  runWaiting();
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
      if (rest.length > 0 && waiting.length === 0) setImmediate(runAtEnd);
      waiting = [...rest, ...waiting];
      throw error;
    }
  }
}
