/**
 * The REST API as one Elysia app: a plugin per resource, the lifecycle around them. It is the root app:
 * pages are `.use`d on it, so that request ids, Host and Origin checks and errors are the same for them.
 *
 * Serve it with `Bun.serve({ fetch: (request) => shed(request) ?? app.fetch(request) })` and set `app.server`, or long polls are
 * cut by the idle time-out.
 */
import { Elysia } from "elysia";
import type { Histogram } from "prom-client";
import { Tokens } from "./auth.ts";
import { backupRoutes } from "./backup.ts";
import { clusterRoutes } from "./cluster.ts";
import type { ApiDeps } from "./deps.ts";
import { docsRoutes } from "./docs.ts";
import { healthRoutes } from "./health.ts";
import { leaseBulkRoutes } from "./lease-bulk.ts";
import { leaseRoutes } from "./leases.ts";
import { lifecycle } from "./lifecycle.ts";
import { Metrics, queueGauges, type GaugeSource } from "./metrics.ts";
import { memberRoutes } from "./members.ts";
import { shedding } from "./shedding.ts";
import { taskRoutes } from "./tasks.ts";
import { workerRoutes } from "./workers.ts";

/** `gauges`: families of other parts, read at every scrape of `/metrics`; `histograms`: observed by others. */
export function createApi(
  deps: ApiDeps,
  gauges: readonly GaugeSource[] = [],
  histograms: readonly Histogram[] = [],
) {
  const metrics = new Metrics(deps.clock);
  for (const source of [...queueGauges(deps.queue, deps.nodeId), ...gauges]) metrics.gauge(source);
  for (const family of histograms) metrics.histogram(family);
  const resources = [
    taskRoutes(deps),
    leaseRoutes(deps),
    leaseBulkRoutes(deps),
    workerRoutes(deps),
    clusterRoutes(deps),
    memberRoutes(deps),
    backupRoutes(deps),
    healthRoutes(deps, metrics),
  ] as const;

  // Where Elysia begins to look for the path: a fixed place, right behind "http://" or behind the first three
  // characters of the host. The latter makes every route 404 for http://n1/, the former for any https:// URL.
  const standardHostname = deps.https === true;
  const app = new Elysia({ name: "flotilla/api", handler: { standardHostname } }).use(
    lifecycle(deps, new Tokens(deps.tokens), metrics),
  );
  for (const resource of resources) app.use(resource);
  return { app: app.use(docsRoutes(resources, deps.version)), shed: shedding(deps, metrics) };
}
