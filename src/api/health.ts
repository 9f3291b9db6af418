/** `/health…` for load balancers and supervisors, `/metrics` for Prometheus. */
import { Elysia } from "elysia";
import type { ApiDeps } from "./deps.ts";
import type { Metrics } from "./metrics.ts";
import { operation } from "./openapi.ts";
import { json } from "./render.ts";

export function healthRoutes(deps: ApiDeps, metrics: Metrics) {
  const { queue } = deps;
  const self = () => ({
    node_id: deps.nodeId,
    cluster_id: deps.clusterId(),
    version: deps.version,
  });
  const noStore = { "cache-control": "no-store" };
  const answers = {
    200: { description: "Yes.", model: "Health" },
    503: { description: "No, and why.", model: "Health" },
  } as const;

  return new Elysia({ name: "flotilla/health" })
    .get(
      "/health",
      () => {
        const health = queue.health();
        const { alarms } = health;
        return health.status === "healthy"
          ? json(200, { status: "healthy", ...self(), alarms }, noStore)
          : json(503, { status: "unhealthy", ...self(), reason: health.reason, alarms }, noStore);
      },
      operation({
        id: "getHealth",
        tag: "health",
        role: "open",
        summary: "Contact with a leader, and a disk that works",
        answers,
      }),
    )
    .get(
      "/health/live",
      () => json(200, { status: "live", ...self() }, noStore),
      operation({
        id: "getLiveness",
        tag: "health",
        role: "open",
        summary: "The event loop turns",
        answers: { 200: answers[200] },
      }),
    )
    .get(
      "/health/ready",
      () => {
        const reason = notReady();
        return reason === null
          ? json(200, { status: "ready", ...self() }, noStore)
          : json(503, { status: "not-ready", ...self(), reason }, noStore);
      },
      operation({
        id: "getReadiness",
        tag: "health",
        role: "open",
        summary: "Healthy, caught up, and not shutting down",
        answers,
      }),
    )
    .get(
      "/metrics",
      async () =>
        new Response(await metrics.text(), { headers: { "content-type": metrics.contentType } }),
      operation({
        id: "getMetrics",
        tag: "health",
        role: "viewer",
        summary: "Metrics of this member, in the Prometheus text format",
        answers: { 200: { description: "Metrics.", mediaType: "text/plain" } },
      }),
    );

  function notReady(): string | null {
    if (deps.draining()) return "shutting down";
    const health = queue.health();
    if (health.status === "unhealthy") return health.reason;
    return health.ready ? null : (health.notReady ?? "not caught up");
  }
}
