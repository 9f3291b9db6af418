/** `/api/tasks` and `/api/stats`: submit, look, cancel, retry, clear. */
import { Elysia } from "elysia";
import type { Task } from "../queue/types.ts";
import type { TaskFilter, WriteContext } from "../queue/service.ts";
import { readJson } from "./body.ts";
import type { ApiDeps } from "./deps.ts";
import { idempotencyScope, replayedHeader, unlessRepeated } from "./idempotency.ts";
import { held } from "./idle.ts";
import { caller } from "./lifecycle.ts";
import { checkTasks, newTasks } from "./new-task.ts";
import { operation } from "./openapi.ts";
import { nextLink, openCursor, sealCursor } from "./page.ts";
import { badFields, Problem, withPlace, type FieldError } from "./problem.ts";
import { MINIMAL_HEADER, prefersMinimal } from "./prefer.ts";
import {
  attemptView,
  etag,
  freshness,
  STALE_HEADERS,
  json,
  jsonText,
  logLineView,
  tasksText,
  taskText,
} from "./render.ts";
import {
  ClearQuery,
  Empty,
  IdPath,
  ListQuery,
  NoQuery,
  PageQuery,
  ReadQuery,
  Submit,
  SubmitBulk,
  TaskQuery,
} from "./schema.ts";
import { parseTime } from "./time.ts";
import { readPath, readQuery, type RestParameter } from "./validation.ts";

const LIST_LIMIT_DEFAULT = 100;
/** Each `payload.PATH` filter is one more JSON lookup per row. */
const PAYLOAD_FILTERS_MAX = 8;
const FILTER_MAX_BYTES = 255;
const SUBMIT_OPAQUE = [["payload"]] as const;
const BULK_OPAQUE = [["tasks", "*", "payload"]] as const;

export function taskRoutes(deps: ApiDeps) {
  const { queue } = deps;

  /** Without the caller's signal: a write goes on without its caller, and waits for seconds at most. */
  const writeContext = (request: Request, body: Uint8Array): WriteContext => {
    const principal = caller(request).name;
    return { principal, idempotency: idempotencyScope(request, principal, body) };
  };

  /**
   * Submits, and the tasks (unless `minimal`): as of the first answer with an idempotency key, else as they are now. This member has applied the submit before it was answered, so its
   * own state is new enough, and a read that needed a quorum could fail after the write succeeded.
   */
  const submit = async (
    given: readonly Submit[],
    at: (index: number) => string,
    request: Request,
    body: Uint8Array,
    minimal: boolean,
  ) => {
    const minting = { ...deps, settings: queue.settings() };
    const context = writeContext(request, body);
    await unlessRepeated(queue, context.idempotency, () => checkTasks(given, minting, at));
    const tasks = newTasks(given, minting);
    const done = await queue.submit(tasks, context).catch((error: unknown) => {
      throw withPlace(error, (id) => {
        const index = tasks.findIndex((task) => task.id === id);
        return index < 0 ? null : at(index);
      });
    });
    const shown = minimal ? [] : (done.tasks ?? queue.held(done.ids));
    return {
      ...done,
      // Cleared or purged between the two: what was acknowledged stays acknowledged.
      items: done.ids.map((id, index) => ({ id, task: shown[index] ?? null })),
    };
  };

  const found = (task: Task | null, id: string): Task => {
    if (task === null) throw noSuchTask(id);
    return task;
  };

  return new Elysia({ name: "flotilla/tasks" })
    .post(
      "/api/tasks",
      async ({ request }) => {
        readQuery(request.url, NoQuery);
        const { value, bytes } = await readJson(request, Submit, SUBMIT_OPAQUE);
        const minimal = prefersMinimal(request);
        const done = await submit([value], () => "", request, bytes, minimal);
        const [item] = done.items;
        if (item === undefined) throw new Error("a submit was answered without an id");
        return jsonText(done.existing ? 200 : 201, submittedText(item, minimal), {
          location: `/api/tasks/${item.id}`,
          ...(item.task === null ? {} : etag(item.task)),
          ...(minimal ? MINIMAL_HEADER : {}),
          ...replayedHeader(done.replayed),
        });
      },
      operation({
        id: "submitTask",
        tag: "tasks",
        role: "producer",
        summary: "Submit a task",
        description:
          "Submits a task. With an `id` of the client's or an `Idempotency-Key`, a repeat never doubles. With `Prefer: return=minimal` the answer holds the `id` alone.",
        requestHeaders: ["Idempotency-Key", "Prefer"],
        body: "Submit",
        answers: {
          201: {
            description: "The task.",
            model: "Task",
            headers: ["Location", "ETag", "Idempotency-Replayed", "Preference-Applied"],
          },
          200: {
            description: "The task of this id was there already, with an equal body.",
            model: "Task",
            headers: ["Location", "ETag"],
          },
        },
        problems: [409, 413, 415, 422, 429, 503],
      }),
    )
    .post(
      "/api/tasks/bulk",
      async ({ request }) => {
        readQuery(request.url, NoQuery);
        const { value, bytes } = await readJson(request, SubmitBulk, BULK_OPAQUE);
        const minimal = prefersMinimal(request);
        const at = (index: number): string => `/tasks/${index}`;
        const done = await submit(value.tasks, at, request, bytes, minimal);
        return jsonText(
          done.existing ? 200 : 201,
          `{"items":[${done.items.map((item) => submittedText(item, minimal)).join(",")}]}`,
          { ...(minimal ? MINIMAL_HEADER : {}), ...replayedHeader(done.replayed) },
        );
      },
      operation({
        id: "submitTasks",
        tag: "tasks",
        role: "producer",
        summary: "Submit up to 1,000 tasks",
        description:
          "All or nothing, in one log entry; the answer keeps their order. With `Prefer: return=minimal` each item holds its `id` alone.",
        requestHeaders: ["Idempotency-Key", "Prefer"],
        body: "SubmitBulk",
        answers: {
          201: {
            description: "The tasks.",
            model: "Submitted",
            headers: ["Idempotency-Replayed", "Preference-Applied"],
          },
          200: { description: "They were there already.", model: "Submitted" },
        },
        problems: [409, 413, 415, 422, 429, 503],
      }),
    )
    .get(
      "/api/tasks",
      async ({ request }) => {
        const payload: { path: string; value: string }[] = [];
        const query = readQuery(request.url, ListQuery, payloadFilters(payload));
        const filter = listFilter(query, payload);
        const { limit = LIST_LIMIT_DEFAULT, consistency = "linearizable" } = query;
        const cursor = query.cursor === undefined ? null : openCursor(query.cursor, filter);
        const { page, read } = await queue.list(filter, limit, cursor, consistency);
        return jsonText(200, tasksText(page.tasks), {
          ...freshness(consistency, read),
          ...(page.next === null ? {} : { link: nextLink(request.url, page.next, filter) }),
        });
      },
      operation({
        id: "listTasks",
        tag: "tasks",
        role: "viewer",
        summary: "List tasks, newest first",
        description:
          "Filters combine. `payload.PATH=value` compares a member of the payload, for example `payload.user.id=7`.",
        query: ListQuery,
        answers: {
          200: {
            description: "A page of tasks.",
            model: "TaskList",
            headers: ["Link", ...STALE_HEADERS],
          },
        },
        problems: [503],
      }),
    )
    .delete(
      "/api/tasks/clear",
      async ({ request }) => {
        const { status = null } = readQuery(request.url, ClearQuery);
        const cleared = await queue.clear(status, {
          principal: caller(request).name,
          idempotency: null,
          signal: request.signal,
        });
        return json(200, { message: "All tasks cleared", cleared });
      },
      operation({
        id: "clearTasks",
        tag: "tasks",
        role: "admin",
        summary: "Delete all tasks, or all of one status",
        query: ClearQuery,
        answers: { 200: { description: "How many.", model: "Cleared" } },
        problems: [503],
      }),
    )
    .get(
      "/api/tasks/:id",
      async ({ request, params, server }) => {
        const { id } = readPath(params, IdPath);
        const { wait = 0, consistency = "linearizable" } = readQuery(request.url, TaskQuery);
        if (wait > 0) {
          held(server, request, wait * 1_000);
          const task = found(await queue.waitFinal(id, wait * 1_000, request.signal), id);
          return jsonText(200, taskText(task), etag(task));
        }
        const { task, read } = await queue.get(id, consistency);
        const present = found(task, id);
        return jsonText(200, taskText(present), {
          ...etag(present),
          ...freshness(consistency, read),
        });
      },
      operation({
        id: "getTask",
        tag: "tasks",
        role: "viewer",
        summary: "One task, now or when it is final",
        path: IdPath,
        query: TaskQuery,
        answers: {
          200: { description: "The task.", model: "Task", headers: ["ETag", ...STALE_HEADERS] },
        },
        problems: [404, 503],
      }),
    )
    .delete(
      "/api/tasks/:id",
      async ({ request, params }) => {
        const { id } = readPath(params, IdPath);
        readQuery(request.url, NoQuery);
        await queue.cancel(id, {
          principal: caller(request).name,
          idempotency: null,
          signal: request.signal,
        });
        return new Response(null, { status: 204 });
      },
      operation({
        id: "cancelTask",
        tag: "tasks",
        role: "producer",
        summary: "Cancel a task",
        description: "At once while Pending; a Running one is told to stop, then stopped.",
        path: IdPath,
        answers: { 204: { description: "Cancelled, or being cancelled." } },
        problems: [404, 409, 503],
      }),
    )
    .post(
      "/api/tasks/:id/retry",
      async ({ request, params }) => {
        const { id } = readPath(params, IdPath);
        readQuery(request.url, NoQuery);
        const { bytes } = await readJson(request, Empty, [], "{}");
        const version = ifMatch(request);
        const done = await queue.retry(id, version, writeContext(request, bytes));
        const { replayed } = done;
        const present = found(done.task ?? (await queue.get(id, "stale")).task, id);
        return jsonText(200, taskText(present), { ...etag(present), ...replayedHeader(replayed) });
      },
      operation({
        id: "retryTask",
        tag: "tasks",
        role: "operator",
        summary: "Run a final task again",
        path: IdPath,
        requestHeaders: ["Idempotency-Key", "If-Match"],
        body: "Empty",
        bodyOptional: true,
        answers: {
          200: {
            description: "The task.",
            model: "Task",
            headers: ["ETag", "Idempotency-Replayed"],
          },
        },
        problems: [404, 409, 412, 413, 415, 422, 429, 503],
      }),
    )
    .get(
      "/api/tasks/:id/attempts",
      async ({ request, params }) => {
        const { id } = readPath(params, IdPath);
        const { consistency = "linearizable" } = readQuery(request.url, ReadQuery);
        const { attempts, read } = await queue.attempts(id, consistency);
        if (attempts === null) throw noSuchTask(id);
        return json(
          200,
          { items: attempts.map(attemptView), next_cursor: null },
          freshness(consistency, read),
        );
      },
      operation({
        id: "listAttempts",
        tag: "tasks",
        role: "viewer",
        summary: "Attempts of a task",
        description: "The first attempt and the last 99.",
        path: IdPath,
        query: ReadQuery,
        answers: {
          200: { description: "Attempts.", model: "Attempts", headers: STALE_HEADERS },
        },
        problems: [404, 503],
      }),
    )
    .get(
      "/api/tasks/:id/logs",
      async ({ request, params }) => {
        const { id } = readPath(params, IdPath);
        const query = readQuery(request.url, PageQuery);
        const { limit = LIST_LIMIT_DEFAULT, consistency = "linearizable" } = query;
        const scope = { logs: id };
        const cursor = query.cursor === undefined ? null : openCursor(query.cursor, scope);
        const { lines, next, read } = await queue.logs(id, cursor, limit, consistency);
        if (lines === null) throw noSuchTask(id);
        return json(
          200,
          {
            items: lines.map(logLineView),
            next_cursor: next === null ? null : sealCursor(next, scope),
          },
          freshness(consistency, read),
        );
      },
      operation({
        id: "listLogs",
        tag: "tasks",
        role: "viewer",
        summary: "Log lines of a task",
        path: IdPath,
        query: PageQuery,
        answers: { 200: { description: "Lines.", model: "Logs", headers: STALE_HEADERS } },
        problems: [404, 503],
      }),
    )
    .get(
      "/api/stats",
      async ({ request }) => {
        const { consistency = "linearizable" } = readQuery(request.url, ReadQuery);
        const { stats, read } = await queue.stats(consistency);
        return json(200, stats, freshness(consistency, read));
      },
      operation({
        id: "getStats",
        tag: "tasks",
        role: "viewer",
        summary: "Tasks by status",
        query: ReadQuery,
        answers: { 200: { description: "Counts.", model: "Stats", headers: STALE_HEADERS } },
        problems: [503],
      }),
    );
}

/** @param minimal the id alone */
function submittedText(
  item: { readonly id: string; readonly task: Task | null },
  minimal: boolean,
): string {
  if (minimal) return `{"id":"${item.id}"}`;
  return item.task === null ? JSON.stringify({ id: item.id, gone: true }) : taskText(item.task);
}

function noSuchTask(id: string): Problem {
  return new Problem(404, "not-found", `There is no task ${id}.`);
}

/** `payload.PATH=value` parameters, gathered into `into`. */
function payloadFilters(into: { path: string; value: string }[]): RestParameter {
  return (name, value, errors: FieldError[]) => {
    if (!name.startsWith("payload.")) return false;
    const path = name.slice("payload.".length);
    const pointer = "/query/payload.PATH";
    if (path.split(".").includes("") || /["\\\0]/.test(path)) {
      errors.push({
        pointer,
        detail: "must name members, as in payload.user.id=7, without quotes and backslashes",
      });
    } else if (
      Buffer.byteLength(path) > FILTER_MAX_BYTES ||
      Buffer.byteLength(value) > FILTER_MAX_BYTES
    ) {
      errors.push({ pointer, detail: `path and value must be at most ${FILTER_MAX_BYTES} bytes` });
    } else if (into.length >= PAYLOAD_FILTERS_MAX) {
      errors.push({ pointer, detail: `may be given ${PAYLOAD_FILTERS_MAX} times at most` });
    } else into.push({ path, value });
    return true;
  };
}

function listFilter(
  query: ReturnType<typeof readQuery<typeof ListQuery>>,
  payload: readonly { path: string; value: string }[],
): TaskFilter {
  const createdAfter = query.created_after === undefined ? null : parseTime(query.created_after);
  const createdBefore = query.created_before === undefined ? null : parseTime(query.created_before);
  return {
    ...(query.status === undefined ? {} : { statuses: query.status }),
    ...(query.detail === undefined ? {} : { details: query.detail }),
    ...(query.queue === undefined ? {} : { queue: query.queue }),
    ...(query.name === undefined ? {} : { name: query.name }),
    ...(query.q === undefined ? {} : { q: query.q }),
    ...(payload.length === 0 ? {} : { payload }),
    ...(createdAfter === null ? {} : { createdAfter }),
    ...(createdBefore === null ? {} : { createdBefore }),
  };
}

/** The version that `If-Match` asks for (RFC 9110, 13.1.1); null without it, and for `*`. */
function ifMatch(request: Request): number | null {
  const header = request.headers.get("if-match")?.trim();
  if (header === undefined || header === "*") return null;
  const version = /^"(\d{1,15})"$/.exec(header)?.[1];
  if (version !== undefined) return Number(version);
  throw badFields([{ pointer: "/header/If-Match", detail: 'must be an ETag such as "42", or *' }]);
}
