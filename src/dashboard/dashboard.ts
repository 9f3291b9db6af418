/**
 * The dashboard as an Elysia plugin: pages at `/`, `/tasks`, `/tasks/{id}`, `/submit`, `/login`, their event
 * stream, their forms and their assets. Pages are rendered on the server and can be read without JavaScript.
 */
import { Elysia } from "elysia";
import type { Clock, Log, Random } from "../replica/ports.ts";
import type { NewTask } from "../queue/types.ts";
import type { TaskQueue } from "../queue/service.ts";
import { LoginPage } from "../../views/layout.tsx";
import { OverviewPage, overviewRegions } from "../../views/overview.tsx";
import { SubmitPage } from "../../views/submit.tsx";
import { TaskListPage, taskListHref, taskListRegions } from "../../views/tasks.tsx";
import { TaskPage, taskGoneRegions, taskRegions } from "../../views/task.tsx";
import { Actions } from "./actions.ts";
import type { SubmitInput } from "./actions.ts";
import { loadAssets } from "./assets.ts";
import { LivePages } from "./live.ts";
import { Pages } from "./pages.ts";
import type { Visit } from "./pages.ts";
import { Readings, parseTaskListAddress } from "./readings.ts";
import { PAGE_HEADERS, localPath } from "./security.ts";
import type { DashboardAuth } from "./security.ts";

export interface DashboardDeps {
  readonly queue: TaskQueue;
  readonly nodeId: string;
  /** `--advertise`: under its name an open member answers, beside loopback ones. */
  readonly advertise: string;
  readonly version: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly auth: DashboardAuth;
  /** Checks what the form holds and resolves every default, as the API does for a JSON body. */
  readonly newTask: (
    input: SubmitInput,
  ) =>
    NewTask | { readonly errors: readonly { readonly field: string; readonly detail: string }[] };
  readonly log: Log;
  /** Aborted when the member stops: event streams end, so that the server can. */
  readonly stopping?: AbortSignal;
  /** Streams at once; for tests. */
  readonly streamsMax?: number;
}

/** Longer ids are none. */
const TASK_ID_MAX = 64;
const HIDDEN = { detail: { hide: true } } as const;
/** Bodies are read by the handlers, with a limit. */
const FORM = { ...HIDDEN, parse: "none" } as const;

/** What the event stream needs of the server: its idle time-out would cut a quiet stream. */
interface StreamServer {
  timeout(request: Request, seconds: number): void;
}

export function createDashboard(deps: DashboardDeps): Elysia {
  const assets = loadAssets();
  const readings = new Readings(deps.queue, deps.clock);
  const live = new LivePages(deps.clock, deps.log, deps.streamsMax);
  const pages = new Pages(deps, assets.urls);
  const actions = new Actions(deps, pages);
  const unwatch = deps.queue.onChange(() => live.changed());
  deps.stopping?.addEventListener(
    "abort",
    () => {
      unwatch();
      live.stop();
    },
    { once: true },
  );

  const app = new Elysia({ name: "dashboard" });

  app.get(
    "/assets/:name",
    ({ params }) =>
      assets.respond(params.name) ??
      new Response("Not found\n", { status: 404, headers: PAGE_HEADERS }),
    HIDDEN,
  );

  app.get(
    "/",
    ({ request }) =>
      pages.visit(request, {}, async (visit) => {
        const regions = overviewRegions(await readings.overview(visit.allowed));
        const frame = pages.frame(visit, "overview", "Overview", "/dashboard/events?view=overview");
        return pages.html(OverviewPage({ frame, regions }));
      }),
    HIDDEN,
  );

  app.get(
    "/tasks",
    ({ request }) =>
      pages.visit(request, {}, async (visit) => {
        const address = parseTaskListAddress(visit.url.searchParams);
        if (typeof address === "string") {
          return pages.message(visit, 400, "That filter does not work", address, {
            href: "/tasks",
            text: "All tasks",
          });
        }
        const regions = taskListRegions(await readings.taskList(address, visit.allowed));
        const query = taskListHref(address).slice("/tasks".length).replace("?", "&");
        const frame = pages.frame(visit, "tasks", "Tasks", `/dashboard/events?view=tasks${query}`);
        return pages.html(TaskListPage({ frame, address, regions }));
      }),
    HIDDEN,
  );

  app.get(
    "/tasks/:id",
    ({ request, params }) =>
      pages.visit(request, {}, async (visit) => {
        const task = await taskOf(idOf(params), visit);
        if (task === null) {
          return pages.message(
            visit,
            404,
            "No such task",
            "There is no task with this id. It may have been cleared, or its retention time has passed.",
            { href: "/tasks", text: "All tasks" },
          );
        }
        const events = `/dashboard/events?view=task&id=${encodeURIComponent(idOf(params))}`;
        const frame = pages.frame(visit, "tasks", task.task.name, events);
        return pages.html(TaskPage({ frame, regions: taskRegions(task) }));
      }),
    HIDDEN,
  );

  app.get(
    "/submit",
    ({ request }) =>
      pages.visit(request, { needs: "submit" }, (visit) => {
        const frame = pages.frame(visit, "submit", "Submit a task", null);
        return pages.html(SubmitPage({ frame, form: actions.emptyForm() }));
      }),
    HIDDEN,
  );
  app.get("/dashboard/submit", () => pages.redirect("/submit"), HIDDEN);

  app.get(
    "/dashboard/events",
    ({ request, server }) =>
      pages.visit(request, { events: true }, (visit) => events(visit, server)),
    HIDDEN,
  );

  app.post(
    "/dashboard/submit",
    ({ request }) => pages.visit(request, { needs: "submit" }, (visit) => actions.submit(visit)),
    FORM,
  );
  app.post(
    "/dashboard/tasks/:id/cancel",
    ({ request, params }) =>
      pages.visit(request, { needs: "cancel" }, (visit) => actions.cancel(visit, idOf(params))),
    FORM,
  );
  app.post(
    "/dashboard/tasks/:id/retry",
    ({ request, params }) =>
      pages.visit(request, { needs: "retry" }, (visit) => actions.retry(visit, idOf(params))),
    FORM,
  );

  app.get(
    "/login",
    ({ request }) =>
      pages.visit(request, { public: true }, (visit) => {
        const returnTo = localPath(visit.url.searchParams.get("return"));
        if (!deps.auth.required || deps.auth.authenticate(request) !== null) {
          return pages.redirect(returnTo);
        }
        const frame = pages.frame(visit, "none", "Sign in", null);
        return pages.html(LoginPage({ frame, returnTo, problem: null }));
      }),
    HIDDEN,
  );
  app.post(
    "/login",
    ({ request }) => pages.visit(request, { public: true }, (visit) => actions.signIn(visit)),
    FORM,
  );
  app.post(
    "/logout",
    ({ request }) => pages.visit(request, { public: true }, () => actions.signOut()),
    FORM,
  );

  async function taskOf(id: string, visit: Visit) {
    return id.length > TASK_ID_MAX ? null : readings.task(id, visit.allowed);
  }

  /** The view named by the query, or a sentence. Equal views of equally entitled users are one channel. */
  function viewOf(visit: Visit) {
    const { allowed } = visit;
    const rights = Object.values(allowed).map(Number).join("");
    const view = visit.url.searchParams.get("view") ?? "";
    switch (view) {
      case "overview":
        return {
          key: `${rights} overview`,
          render: async () => overviewRegions(await readings.overview(allowed)),
        };
      case "tasks": {
        const address = parseTaskListAddress(visit.url.searchParams);
        if (typeof address === "string") return address;
        return {
          key: `${rights} ${taskListHref(address)}`,
          render: async () => taskListRegions(await readings.taskList(address, allowed)),
        };
      }
      case "task": {
        const id = visit.url.searchParams.get("id") ?? "";
        if (id === "" || id.length > TASK_ID_MAX) return "A task's view needs its id.";
        return {
          key: `${rights} task ${id}`,
          render: async () => {
            const task = await readings.task(id, allowed);
            return task === null ? taskGoneRegions(id) : taskRegions(task);
          },
        };
      }
      default:
        return "There is no such view.";
    }
  }

  function events(visit: Visit, server: StreamServer | null): Response {
    const view = viewOf(visit);
    if (typeof view === "string") return pages.plain(400, view);
    const body = live.open(view.key, view.render);
    if (body === null) {
      return pages.plain(503, "Too many live pages are open on this member.", {
        "Retry-After": "10",
      });
    }
    server?.timeout(visit.request, 0);
    return new Response(body, {
      headers: {
        ...PAGE_HEADERS,
        "Content-Type": "text/event-stream; charset=utf-8",
        "X-Accel-Buffering": "no",
      },
    });
  }

  return app;
}

/** The id in the path; "", which no task has, where it is not UTF-8: Elysia's parameter is null there. */
function idOf({ id }: { readonly id: unknown }): string {
  return typeof id === "string" ? id : "";
}
