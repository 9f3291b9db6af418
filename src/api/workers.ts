/** `/api/workers`: who executes what. */
import { Elysia } from "elysia";
import { readJson } from "./body.ts";
import type { ApiDeps } from "./deps.ts";
import { idempotencyScope, replayedHeader } from "./idempotency.ts";
import { caller } from "./lifecycle.ts";
import { operation } from "./openapi.ts";
import { Problem } from "./problem.ts";
import { freshness, json, STALE_HEADERS, workerView } from "./render.ts";
import { Empty, NoQuery, ReadQuery, WorkerPath } from "./schema.ts";
import { readPath, readQuery } from "./validation.ts";

export function workerRoutes({ queue }: ApiDeps) {
  return new Elysia({ name: "flotilla/workers" })
    .get(
      "/api/workers",
      async ({ request }) => {
        const { consistency = "linearizable" } = readQuery(request.url, ReadQuery);
        const { workers, read } = await queue.readWorkers(consistency);
        const items = workers.map(workerView);
        return json(200, { items, next_cursor: null }, freshness(consistency, read));
      },
      operation({
        id: "listWorkers",
        tag: "workers",
        role: "viewer",
        summary: "Workers, what they run, and how they fare",
        description:
          "The leader knows them, by their claims and heartbeats. `stale`: what this member knows itself, which is who holds which leases, and its own executors.",
        query: ReadQuery,
        answers: { 200: { description: "Workers.", model: "Workers", headers: STALE_HEADERS } },
        problems: [503],
      }),
    )
    .post(
      "/api/workers/:id/quiet",
      async ({ request, params }) => {
        const { id } = readPath(params, WorkerPath);
        readQuery(request.url, NoQuery);
        const { bytes } = await readJson(request, Empty, [], "{}");
        const scope = idempotencyScope(request, caller(request).name, bytes);
        const { value: known, replayed } =
          scope === null
            ? { value: await queue.quiet(id), replayed: false }
            : await queue.keyed.quiet(scope, id);
        if (!known) throw new Problem(404, "not-found", `There is no worker ${id}.`);
        return json(200, { status: "ok" }, replayedHeader(replayed));
      },
      operation({
        id: "quietWorker",
        tag: "workers",
        role: "operator",
        summary: "Let a worker finish what it runs and claim no more",
        path: WorkerPath,
        requestHeaders: ["Idempotency-Key"],
        body: "Empty",
        bodyOptional: true,
        answers: {
          200: {
            description: "It is told with its next answer.",
            model: "Ok",
            headers: ["Idempotency-Replayed"],
          },
        },
        problems: [404, 413, 415, 422, 429, 503],
      }),
    );
}
