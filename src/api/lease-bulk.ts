/** `/api/leases/fail` and `/api/leases/release`: the ends of many leases in one log entry, an answer for each. */
import { Elysia } from "elysia";
import type { LeaseEnd, LeaseRef } from "../queue/types.ts";
import { readJson } from "./body.ts";
import type { ApiDeps } from "./deps.ts";
import { idempotencyScope, replayedHeader } from "./idempotency.ts";
import { taskError } from "./leases.ts";
import { caller } from "./lifecycle.ts";
import { operation } from "./openapi.ts";
import { type Answer, json } from "./render.ts";
import { FailBulkIn, NoQuery, ReleaseBulkIn } from "./schema.ts";
import { readQuery } from "./validation.ts";

export function leaseBulkRoutes({ queue }: ApiDeps) {
  const endAll = async (
    request: Request,
    bytes: Uint8Array,
    workerId: string,
    items: readonly (LeaseRef & { readonly end: LeaseEnd })[],
  ): Promise<Answer> => {
    const principal = caller(request).name;
    const scope = idempotencyScope(request, principal, bytes);
    const { value: answers, replayed } =
      scope === null
        ? { value: await queue.end(workerId, principal, items, null), replayed: false }
        : await queue.keyed.end(scope, workerId, items);
    return json(
      200,
      { items: items.map(({ task_id }, index) => ({ task_id, status: answers[index] })) },
      replayedHeader(replayed),
    );
  };
  const shared = {
    tag: "leases",
    role: "worker",
    requestHeaders: ["Idempotency-Key"],
    answers: {
      200: {
        description: "An answer per item.",
        model: "Completed",
        headers: ["Idempotency-Replayed"],
      },
    },
    problems: [413, 415, 422, 429, 503],
  } as const;

  return new Elysia({ name: "flotilla/lease-bulk" })
    .post(
      "/api/leases/fail",
      async ({ request }) => {
        readQuery(request.url, NoQuery);
        const { value, bytes } = await readJson(request, FailBulkIn);
        const items = value.items.map(({ error, retryable, retry_after_ms, ...lease }) => ({
          ...lease,
          end: {
            kind: "fail" as const,
            error: taskError(error, retryable ?? true),
            retry_after_ms: retry_after_ms ?? null,
            crashed: false,
          },
        }));
        return endAll(request, bytes, value.worker_id, items);
      },
      operation({
        ...shared,
        id: "failTasks",
        summary: "Report that many attempts failed, in one log entry",
        body: "FailBulk",
      }),
    )
    .post(
      "/api/leases/release",
      async ({ request }) => {
        readQuery(request.url, NoQuery);
        const { value, bytes } = await readJson(request, ReleaseBulkIn);
        const items = value.items.map((lease) => ({ ...lease, end: { kind: "release" as const } }));
        return endAll(request, bytes, value.worker_id, items);
      },
      operation({
        ...shared,
        id: "releaseTasks",
        summary: "Give many tasks back at once, at no cost, in one log entry; confirms cancels",
        body: "ReleaseBulk",
      }),
    );
}
