/** Two shapes of load: callers that wait for their answers, and a rate that does not care about answers. */
import { Histogram } from "./histogram.ts";

export interface Load {
  readonly ok: number;
  readonly failed: number;
  readonly seconds: number;
  /** Of the good ones. In an open loop from when each was due, not from when it was sent. */
  readonly latencies: Histogram;
}

/** Callers that failed wait so long, or they would spin. */
const AFTER_FAILURE_MS = 5;

/** Each of `callers` has one request under way at any time. `one` throws, or answers false, when it failed. */
export async function closedLoop(
  callers: number,
  ms: number,
  one: (caller: number) => Promise<boolean>,
): Promise<Load> {
  const latencies = new Histogram();
  let failed = 0;
  const startedAt = performance.now();
  const end = startedAt + ms;
  const run = async (caller: number): Promise<void> => {
    for (let at = performance.now(); at < end; at = performance.now()) {
      const ok = await one(caller).catch(() => false);
      if (ok) latencies.record(performance.now() - at);
      else {
        failed += 1;
        await Bun.sleep(AFTER_FAILURE_MS);
      }
    }
  };
  await Promise.all(Array.from({ length: callers }, (_, caller) => run(caller)));
  return {
    ok: latencies.count,
    failed,
    seconds: (performance.now() - startedAt) / 1_000,
    latencies,
  };
}

export interface OpenLoad extends Load {
  /** Times (monotonic ms) of the good answers, in order, when they were asked for. */
  readonly answeredAt: readonly number[];
  /** Not answered when the waiting for them ended. */
  readonly unanswered: number;
}

/**
 * `rate` requests a second whatever becomes of them. A latency runs from the moment the request was due, so that a
 * pause of the members costs every request that fell into it, and not only the one that met it (coordinated
 * omission).
 */
export async function openLoop(
  rate: number,
  ms: number,
  /** `dueAt`: wall clock, ms. */
  one: (index: number, dueAt: number) => Promise<boolean>,
  { keepTimes = false, settleMs = 10_000 } = {},
): Promise<OpenLoad> {
  const latencies = new Histogram();
  const answeredAt: number[] = [];
  let failed = 0;
  const open = new Set<number>();
  const startedAt = performance.now();
  for (let index = 0; ;) {
    const elapsedMs = performance.now() - startedAt;
    if (elapsedMs >= ms) break;
    for (; index < (elapsedMs / 1_000) * rate; index++) {
      const own = index;
      const dueAt = startedAt + (own / rate) * 1_000;
      open.add(own);
      void one(own, performance.timeOrigin + dueAt)
        .catch(() => false)
        .then((ok) => {
          const at = performance.now();
          open.delete(own);
          if (!ok) failed += 1;
          else {
            latencies.record(at - dueAt);
            if (keepTimes) answeredAt.push(at);
          }
        });
    }
    // A shorter sleep is a turn of the loop: at thousands a second it would take a whole core from the members.
    await Bun.sleep(Math.max(1, (index / rate) * 1_000 - (performance.now() - startedAt)));
  }
  const seconds = (performance.now() - startedAt) / 1_000;
  const giveUpAt = performance.now() + settleMs;
  while (open.size > 0 && performance.now() < giveUpAt) await Bun.sleep(20);
  return { ok: latencies.count, failed, seconds, latencies, answeredAt, unanswered: open.size };
}
