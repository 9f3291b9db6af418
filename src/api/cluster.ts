/** `/api/cluster`: members, and the settings that they share. */
import { Elysia } from "elysia";
import type { Static } from "elysia";
import type { Settings } from "../queue/types.ts";
import { readJson } from "./body.ts";
import type { ApiDeps } from "./deps.ts";
import { caller } from "./lifecycle.ts";
import { completeRetry } from "./new-task.ts";
import { operation } from "./openapi.ts";
import { badFields } from "./problem.ts";
import { freshness, json, STALE_HEADERS } from "./render.ts";
import { NoQuery, ReadQuery, SettingsIn } from "./schema.ts";
import { readQuery } from "./validation.ts";

export function clusterRoutes({ queue }: ApiDeps) {
  return new Elysia({ name: "flotilla/cluster" })
    .get(
      "/api/cluster",
      async ({ request }) => {
        readQuery(request.url, NoQuery);
        return json(200, await queue.cluster());
      },
      operation({
        id: "getCluster",
        tag: "cluster",
        role: "viewer",
        summary: "Members and the state of the log",
        answers: { 200: { description: "As this member sees it.", model: "Cluster" } },
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
        const { settings: inForce } = await queue.readSettings("linearizable");
        const change = settingsChange(value, inForce);
        const settings = await queue.updateSettings(change, {
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
        description: "Settings that are not named stay as they are.",
        body: "SettingsChange",
        answers: { 200: { description: "All settings, changed.", model: "Settings" } },
        problems: [413, 415, 503],
      }),
    );
}

/** Nested settings are replaced whole in the log, so what was not named is filled in here. */
function settingsChange(
  { retention, retry, ...rest }: Static<typeof SettingsIn>,
  current: Settings,
): Partial<Settings> {
  return {
    ...rest,
    ...(retention === undefined ? {} : { retention: { ...current.retention, ...retention } }),
    ...(retry === undefined ? {} : { retry: completeRetry(retry, current.retry) }),
  };
}
