/**
 * Counts and durations of requests. A scrape comes every few seconds and a request every few microseconds, so that
 * what prom-client does at each observation (labels checked, sorted and hashed, twice) is done here at the scrape.
 */
import type { MetricObjectWithValues, MetricValue } from "prom-client";
import { Counter, Histogram } from "./prometheus.ts";

const SECONDS = "flotilla_http_request_seconds";
/** Upper bounds, seconds. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60];
const SECONDS_OPTIONS = {
  name: SECONDS,
  help: "Time to answer, long polls included.",
  labelNames: ["method", "route"],
  buckets: BUCKETS,
  registers: [],
};
const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);

interface Series {
  readonly method: string;
  readonly route: string;
  /** By status. */
  readonly statuses: Map<number, number>;
  /** One for each bucket and one beyond them: not cumulative. */
  readonly slots: Float64Array;
  seconds: number;
  count: number;
}

/** `route` comes from the router, so that there are only so many series. */
export class RequestMetrics {
  /** By route and then by method: a key put together of both would be made, and hashed, for every request. */
  readonly #series = new Map<string, Map<string, Series>>();
  readonly families: readonly [Counter, Histogram];

  constructor() {
    const all = (): Iterable<Series> =>
      [...this.#series.values()].flatMap((ofRoute) => [...ofRoute.values()]);
    this.families = [new RequestCounts(all), new RequestSeconds(all)];
  }

  observe(method: string, route: string, status: number, ms: number): void {
    const series = this.#series.get(route)?.get(method) ?? this.#begin(method, route);
    series.statuses.set(status, (series.statuses.get(status) ?? 0) + 1);
    const seconds = ms / 1_000;
    let slot = 0;
    while (slot < BUCKETS.length && seconds > (BUCKETS[slot] ?? 0)) slot++;
    series.slots[slot] = (series.slots[slot] ?? 0) + 1;
    series.seconds += seconds;
    series.count += 1;
  }

  #begin(given: string, route: string): Series {
    // Whatever a client calls its method must not become a label.
    const method = METHODS.has(given) ? given : "other";
    const ofRoute = this.#series.get(route) ?? new Map<string, Series>();
    const known = ofRoute.get(method);
    if (known !== undefined) return known;
    const series: Series = {
      method,
      route,
      statuses: new Map(),
      slots: new Float64Array(BUCKETS.length + 1),
      seconds: 0,
      count: 0,
    };
    ofRoute.set(method, series);
    this.#series.set(route, ofRoute);
    return series;
  }
}

class RequestCounts extends Counter {
  readonly #all: () => Iterable<Series>;

  constructor(all: () => Iterable<Series>) {
    super({
      name: "flotilla_http_requests_total",
      help: "HTTP requests answered, by route pattern.",
      labelNames: ["method", "route", "status"],
      registers: [],
    });
    this.#all = all;
  }

  override async get(): Promise<MetricObjectWithValues<MetricValue<string>>> {
    const family = await super.get();
    const values = [...this.#all()].flatMap(({ method, route, statuses }) =>
      [...statuses].map(([status, value]) => ({
        value,
        labels: { method, route, status: String(status) },
      })),
    );
    return { ...family, values };
  }
}

class RequestSeconds extends Histogram {
  readonly #all: () => Iterable<Series>;
  /** Says what the family is; nothing is ever observed in it. */
  readonly #family = new Histogram(SECONDS_OPTIONS);

  constructor(all: () => Iterable<Series>) {
    super(SECONDS_OPTIONS);
    this.#all = all;
  }

  override async get() {
    return { ...(await this.#family.get()), values: [...this.#all()].flatMap(secondsOf) };
  }

  /** What the registry asks instead of `get`. */
  getForPromString(): ReturnType<RequestSeconds["get"]> {
    return this.get();
  }
}

function secondsOf({ method, route, slots, seconds, count }: Series) {
  let below = 0;
  const buckets = [...BUCKETS, Infinity].map((bound, slot) => {
    below += slots[slot] ?? 0;
    const le = bound === Infinity ? "+Inf" : bound;
    return { metricName: `${SECONDS}_bucket`, value: below, labels: { le, method, route } };
  });
  return [
    ...buckets,
    { metricName: `${SECONDS}_sum`, value: seconds, labels: { method, route } },
    { metricName: `${SECONDS}_count`, value: count, labels: { method, route } },
  ];
}
