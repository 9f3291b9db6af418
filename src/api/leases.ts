/** `/api/leases`: the pull protocol for workers in any language. */
import { Elysia } from "elysia";
import type { LeaseEnd, LeaseEndAnswer, TaskError } from "../queue/types.ts";
import { LIMITS } from "../queue/types.ts";
import { readJson } from "./body.ts";
import type { ApiDeps } from "./deps.ts";
import { claimRequestId, idempotencyScope, replayedHeader, unlessRepeated } from "./idempotency.ts";
import { held } from "./idle.ts";
import { caller } from "./lifecycle.ts";
import { sizeFault, tooLarge } from "./new-task.ts";
import { operation } from "./openapi.ts";
import { Problem, type FieldError } from "./problem.ts";
import { pointerTo, type RawJson } from "./raw-json.ts";
import { type Answer, json, jsonText, taskText } from "./render.ts";
import {
  ClaimIn,
  CompleteBulkIn,
  CompleteIn,
  FailIn,
  HeartbeatIn,
  LeasePath,
  LogsIn,
  NoQuery,
  ReleaseIn,
  SnoozeIn,
} from "./schema.ts";
import { cutText } from "./text.ts";
import { readPath, readQuery } from "./validation.ts";

interface LeaseBody {
  readonly worker_id: string;
  readonly attempt: number;
  readonly fence: number;
}

/** Of every answer, since every POST may come with a key. */
const REPLAYED = ["Idempotency-Replayed"] as const;
const RESULT_OPAQUE = [["result"]] as const;
const RESULTS_OPAQUE = [["items", "*", "result"]] as const;
const LEASE_PROBLEMS = [404, 409, 413, 415, 422, 429, 503] as const;

export function leaseRoutes(deps: ApiDeps) {
  const { queue } = deps;

  /** One lease of the path is over; 200, or the problem that the answer is. */
  const endOne = async (
    request: Request,
    taskId: string,
    body: { readonly value: LeaseBody; readonly bytes: Uint8Array },
    end: LeaseEnd,
  ): Promise<Answer> => {
    const principal = caller(request).name;
    const { worker_id, attempt, fence } = body.value;
    const scope = idempotencyScope(request, principal, body.bytes);
    const item = { task_id: taskId, attempt, fence, end };
    if (scope === null) {
      const [answer] = await queue.end(worker_id, principal, [item], null);
      return answerOne(answer, taskId, false);
    }
    const { value, replayed } = await queue.keyed.end(scope, worker_id, [item]);
    return answerOne(value[0], taskId, replayed);
  };

  return new Elysia({ name: "flotilla/leases" })
    .post(
      "/api/leases/claim",
      async ({ request, server }) => {
        readQuery(request.url, NoQuery);
        const { value, bytes } = await readJson(request, ClaimIn);
        const principal = caller(request).name;
        const idem = idempotencyScope(request, principal, bytes);
        const waitMs = value.wait_ms ?? 0;
        if (waitMs > 0) held(server, request, waitMs);
        const { tasks, directive, replayed } = await queue.claim(
          {
            worker_id: value.worker_id,
            request_id:
              value.request_id ??
              (idem === null ? deps.random.uuid(deps.clock.wall()) : claimRequestId(idem)),
            principal,
            queues: value.queues ?? null,
            names: value.names ?? null,
            star: false,
            max: value.max ?? 1,
            local: null,
            ...(idem === null ? {} : { idem }),
          },
          waitMs,
          request.signal,
        );
        return jsonText(
          200,
          `{"tasks":[${tasks.map(taskText).join(",")}],"directive":${JSON.stringify(directive)}}`,
          replayedHeader(replayed === true),
        );
      },
      operation({
        id: "claimTasks",
        tag: "leases",
        role: "worker",
        summary: "Claim tasks, waiting for them if need be",
        description:
          "Held until there is a task or `wait_ms` is over. Repeating a `request_id` returns the same tasks.",
        requestHeaders: ["Idempotency-Key"],
        body: "Claim",
        answers: {
          200: { description: "Tasks with their leases.", model: "Claimed", headers: REPLAYED },
        },
        problems: [413, 415, 422, 429, 503],
      }),
    )
    .post(
      "/api/leases/heartbeat",
      async ({ request }) => {
        readQuery(request.url, NoQuery);
        const { value, bytes } = await readJson(request, HeartbeatIn);
        const principal = caller(request).name;
        const scope = idempotencyScope(request, principal, bytes);
        const leases = value.leases.map(({ progress, ...lease }) =>
          progress === undefined
            ? lease
            : {
                ...lease,
                progress: { percent: progress.percent, message: progress.message ?? null },
              },
        );
        const { value: said, replayed } =
          scope === null
            ? {
                value: await queue.heartbeat(value.worker_id, principal, leases),
                replayed: false,
              }
            : await queue.keyed.heartbeat(scope, value.worker_id, leases);
        const { verdicts, directive } = said;
        const answers = leases.map(({ task_id }, index) => ({
          task_id,
          status: verdicts[index] ?? "lost",
        }));
        return json(200, { leases: answers, directive }, replayedHeader(replayed));
      },
      operation({
        id: "heartbeat",
        tag: "leases",
        role: "worker",
        summary: "Keep leases, and learn which are cancelled or lost",
        description:
          "With an `Idempotency-Key` the answer is put into the log, and a repeat gets it without keeping any lease: a key names one heartbeat.",
        requestHeaders: ["Idempotency-Key"],
        body: "Heartbeat",
        answers: {
          200: { description: "A verdict per lease.", model: "HeartbeatAnswer", headers: REPLAYED },
        },
        problems: [413, 415, 422, 429, 503],
      }),
    )
    .post(
      "/api/leases/complete",
      async ({ request }) => {
        readQuery(request.url, NoQuery);
        const { value, bytes } = await readJson(request, CompleteBulkIn, RESULTS_OPAQUE);
        const principal = caller(request).name;
        const scope = idempotencyScope(request, principal, bytes);
        await unlessRepeated(queue, scope, () =>
          checkResults(
            value.items.map((item) => item.result),
            (index) => `/items/${index}`,
          ),
        );
        const items = value.items.map(({ task_id, attempt, fence, result }) => ({
          task_id,
          attempt,
          fence,
          end: { kind: "complete" as const, result: result?.text ?? null },
        }));
        const { value: answers, replayed } =
          scope === null
            ? { value: await queue.end(value.worker_id, principal, items, null), replayed: false }
            : await queue.keyed.end(scope, value.worker_id, items);
        // Ids are in lower-case hexadecimal and statuses are words: nothing to escape.
        const said = items.map(
          ({ task_id }, index) => `{"task_id":"${task_id}","status":"${answers[index]}"}`,
        );
        return jsonText(200, `{"items":[${said.join(",")}]}`, replayedHeader(replayed));
      },
      operation({
        id: "completeTasks",
        tag: "leases",
        role: "worker",
        summary: "Complete many tasks in one log entry",
        requestHeaders: ["Idempotency-Key"],
        body: "CompleteBulk",
        answers: {
          200: { description: "An answer per item.", model: "Completed", headers: REPLAYED },
        },
        problems: [413, 415, 422, 429, 503],
      }),
    )
    .post(
      "/api/leases/:task_id/complete",
      async ({ request, params }) => {
        const { task_id } = readPath(params, LeasePath);
        readQuery(request.url, NoQuery);
        const body = await readJson(request, CompleteIn, RESULT_OPAQUE);
        const { result } = body.value;
        const scope = idempotencyScope(request, caller(request).name, body.bytes);
        await unlessRepeated(queue, scope, () => checkResults([result], () => ""));
        return endOne(request, task_id, body, { kind: "complete", result: result?.text ?? null });
      },
      operation({
        id: "completeTask",
        tag: "leases",
        role: "worker",
        summary: "Complete a task",
        path: LeasePath,
        requestHeaders: ["Idempotency-Key"],
        body: "Complete",
        answers: { 200: { description: "Completed.", model: "Ok", headers: REPLAYED } },
        problems: LEASE_PROBLEMS,
      }),
    )
    .post(
      "/api/leases/:task_id/fail",
      async ({ request, params }) => {
        const { task_id } = readPath(params, LeasePath);
        readQuery(request.url, NoQuery);
        const body = await readJson(request, FailIn);
        const { error, retryable, retry_after_ms } = body.value;
        return endOne(request, task_id, body, {
          kind: "fail",
          error: taskError(error, retryable ?? true),
          retry_after_ms: retry_after_ms ?? null,
          crashed: false,
        });
      },
      operation({
        id: "failTask",
        tag: "leases",
        role: "worker",
        summary: "Report that an attempt failed",
        path: LeasePath,
        requestHeaders: ["Idempotency-Key"],
        body: "Fail",
        answers: {
          200: { description: "Recorded; retried by the policy.", model: "Ok", headers: REPLAYED },
        },
        problems: LEASE_PROBLEMS,
      }),
    )
    .post(
      "/api/leases/:task_id/snooze",
      async ({ request, params }) => {
        const { task_id } = readPath(params, LeasePath);
        readQuery(request.url, NoQuery);
        const body = await readJson(request, SnoozeIn);
        const { delay_ms } = body.value;
        return endOne(request, task_id, body, { kind: "snooze", delay_ms });
      },
      operation({
        id: "snoozeTask",
        tag: "leases",
        role: "worker",
        summary: "Put a task back for a while, at no cost",
        path: LeasePath,
        requestHeaders: ["Idempotency-Key"],
        body: "Snooze",
        answers: { 200: { description: "Put back.", model: "Ok", headers: REPLAYED } },
        problems: LEASE_PROBLEMS,
      }),
    )
    .post(
      "/api/leases/:task_id/release",
      async ({ request, params }) => {
        const { task_id } = readPath(params, LeasePath);
        readQuery(request.url, NoQuery);
        return endOne(request, task_id, await readJson(request, ReleaseIn), { kind: "release" });
      },
      operation({
        id: "releaseTask",
        tag: "leases",
        role: "worker",
        summary: "Give a task back at once, at no cost; confirms a cancel",
        path: LeasePath,
        requestHeaders: ["Idempotency-Key"],
        body: "Release",
        answers: { 200: { description: "Given back.", model: "Ok", headers: REPLAYED } },
        problems: LEASE_PROBLEMS,
      }),
    )
    .post(
      "/api/leases/:task_id/logs",
      async ({ request, params }) => {
        const { task_id } = readPath(params, LeasePath);
        readQuery(request.url, NoQuery);
        const { value, bytes } = await readJson(request, LogsIn);
        const principal = caller(request).name;
        const scope = idempotencyScope(request, principal, bytes);
        const { worker_id, attempt, fence } = value;
        const lines = value.lines.map((line) => cutText(line, LIMITS.attemptLog));
        const item = { task_id, attempt, fence, progress: null, lines };
        if (scope === null) {
          const [answer] = await queue.report(worker_id, principal, [item], true);
          return answerOne(answer, task_id, false);
        }
        const said = await queue.keyed.report(scope, worker_id, [item]);
        return answerOne(said.value[0], task_id, said.replayed);
      },
      operation({
        id: "appendLogs",
        tag: "leases",
        role: "worker",
        summary: "Append log lines to the running attempt",
        path: LeasePath,
        requestHeaders: ["Idempotency-Key"],
        body: "LogLines",
        answers: { 200: { description: "Appended.", model: "Ok", headers: REPLAYED } },
        problems: LEASE_PROBLEMS,
      }),
    );

  /** @throws Problem 413 naming every result over `max_payload` */
  function checkResults(
    results: readonly (RawJson | undefined)[],
    at: (index: number) => string,
  ): void {
    const settings = queue.settings();
    const errors: FieldError[] = [];
    for (const [index, result] of results.entries()) {
      const fault = sizeFault(result, settings);
      if (fault !== null) errors.push({ pointer: pointerTo(at(index), "result"), detail: fault });
    }
    if (errors.length > 0) throw tooLarge("result-too-large", errors);
  }
}

/** @throws Problem for every answer but ok */
function answerOne(answer: LeaseEndAnswer | undefined, taskId: string, replayed: boolean): Answer {
  switch (answer) {
    case "ok":
      return json(200, { status: "ok" }, replayedHeader(replayed));
    case "stale-lease":
      throw new Problem(
        409,
        "stale-lease",
        "This lease is over: the task was claimed again, timed out, or ended otherwise. Nothing was changed.",
      );
    case "cancelled":
      throw new Problem(409, "cancelled", "The task is cancelled; the outcome was not accepted.", {
        headers: replayedHeader(replayed),
      });
    case "forbidden":
      throw new Problem(403, "forbidden", "Another worker or principal holds this lease.");
    case "not-found":
      throw new Problem(404, "not-found", `There is no task ${taskId}.`);
    case undefined:
      throw new Error("the queue answered no lease at all");
  }
}

/** What a worker said went wrong, cut to what the log keeps. */
export function taskError(
  error:
    string | { readonly type?: string; readonly message: string; readonly stack?: string | null },
  retryable: boolean,
): TaskError {
  const given = typeof error === "string" ? { message: error } : error;
  const { stack = null } = given;
  return {
    type: given.type ?? "Error",
    message: cutText(given.message, LIMITS.errorMessage),
    stack: stack === null ? null : cutText(stack, LIMITS.errorStack),
    retryable,
  };
}
