/** `/api/cluster`: members, and the settings that they share. */
import { Elysia } from "elysia";
import type { RetryPolicy } from "../queue/types.ts";
import { readJson } from "./body.ts";
import type { ApiDeps } from "./deps.ts";
import { caller } from "./lifecycle.ts";
import { operation } from "./openapi.ts";
import { badFields, type FieldError } from "./problem.ts";
import { freshness, json, STALE_HEADERS } from "./render.ts";
import { NoQuery, ReadQuery, SettingsIn } from "./schema.ts";
import { readQuery } from "./validation.ts";

export function clusterRoutes({ queue }: ApiDeps) {
  return new Elysia({ name: "flotilla/cluster" })
    .get(
      "/api/cluster",
      async ({ request }) => {
        const { consistency = "linearizable" } = readQuery(request.url, ReadQuery);
        const { cluster, read } = await queue.readCluster(consistency);
        return json(200, cluster, freshness(consistency, read));
      },
      operation({
        id: "getCluster",
        tag: "cluster",
        role: "viewer",
        summary: "Members and the state of the log",
        description:
          "As this member sees it, with what the leader knows of the others while one can be asked. Answered without a leader too.",
        query: ReadQuery,
        answers: { 200: { description: "Members.", model: "Cluster", headers: STALE_HEADERS } },
        problems: [503],
      }),
    )
    .get(
      "/api/cluster/config",
      async ({ request }) => {
        const { consistency = "linearizable" } = readQuery(request.url, ReadQuery);
        const { settings, read } = await queue.readSettings(consistency);
        return json(200, settings, freshness(consistency, read));
      },
      operation({
        id: "getSettings",
        tag: "cluster",
        role: "viewer",
        summary: "Settings of the cluster",
        description: "Durations in milliseconds, sizes in bytes.",
        query: ReadQuery,
        answers: { 200: { description: "Settings.", model: "Settings", headers: STALE_HEADERS } },
        problems: [503],
      }),
    )
    .put(
      "/api/cluster/config",
      async ({ request }) => {
        readQuery(request.url, NoQuery);
        const { value } = await readJson(request, SettingsIn);
        if (Object.keys(value).length === 0) {
          throw badFields([{ pointer: "", detail: "must name at least one setting" }]);
        }
        const retryFault = retryLimitsFault(value.retry ?? {}, queue.settings().retry);
        if (retryFault !== null) throw badFields([retryFault]);
        // Merged where it is applied: of two changes at once, to different parts, both count.
        const settings = await queue.updateSettings(value, {
          principal: caller(request).name,
          idempotency: null,
          signal: request.signal,
        });
        return json(200, settings);
      },
      operation({
        id: "putSettings",
        tag: "cluster",
        role: "admin",
        summary: "Change settings of the cluster",
        description:
          "Merged: what is not named stays as it is, inside `retention`, `retry` and `log_tail` too, whatever else changes at the same time. Durations in milliseconds, sizes in bytes.",
        body: "SettingsChange",
        answers: { 200: { description: "All settings, changed.", model: "Settings" } },
        problems: [409, 413, 415, 503],
      }),
    );
}

/** Looked at with the half that stays as it is; two changes at once that each fit what was there before are both taken. */
function retryLimitsFault(
  { initial_ms: initial, max_ms: max }: Partial<RetryPolicy>,
  current: RetryPolicy,
): FieldError | null {
  if (initial === undefined && max === undefined) return null;
  const [first, longest] = [initial ?? current.initial_ms, max ?? current.max_ms];
  if (first <= longest) return null;
  return max === undefined
    ? { pointer: "/retry/initial_ms", detail: `must be at most max_ms (${longest}), not ${first}` }
    : {
        pointer: "/retry/max_ms",
        detail: `must be at least initial_ms (${first}), not ${longest}`,
      };
}
