/**
 * What is used of prom-client, without the rest: its index also loads HTTP clients, pushes to gateways, aggregation
 * over processes and collectors, which was a quarter of what a member spends on its start.
 */
import Counter from "prom-client/lib/counter.js";
import Gauge from "prom-client/lib/gauge.js";
import Histogram from "prom-client/lib/histogram.js";
import Registry from "prom-client/lib/registry.js";

export { Counter, Gauge, Histogram, Registry };
