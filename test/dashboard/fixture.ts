/** The dashboard over the fake queue, as the tests build it. */
import type { Log } from "../../src/replica/ports.ts";
import type { NewTask } from "../../src/queue/types.ts";
import { DEFAULT_RETRY } from "../../src/queue/types.ts";
import { createDashboard } from "../../src/dashboard/dashboard.ts";
import type { DashboardDeps } from "../../src/dashboard/dashboard.ts";
import type { DashboardAuth, Role } from "../../src/dashboard/security.ts";
import { systemClock } from "../../src/system/clock.ts";
import { systemRandom } from "../../src/system/random.ts";
import { FakeQueue, START } from "./fake-queue.ts";

export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };

const openAuth: DashboardAuth = {
  required: false,
  authenticate: () => null,
  sessionCookie: () => null,
  endSessionCookie: () => "flotilla_session=; Path=/; Max-Age=0",
};

/** Tokens are the names of the roles. */
export const tokenAuth: DashboardAuth = {
  required: true,
  authenticate(request) {
    const role = /session=(\w+)/.exec(request.headers.get("cookie") ?? "")?.[1];
    const known: readonly Role[] = ["viewer", "producer", "worker", "operator", "admin"];
    const found = known.find((one) => one === role);
    return found === undefined ? null : { name: `the ${found}`, role: found };
  },
  sessionCookie: (token) =>
    token === "viewer" || token === "admin" ? `session=${token}; HttpOnly` : null,
  endSessionCookie: () => "session=; Max-Age=0",
};

export const newTask: DashboardDeps["newTask"] = (input): ReturnType<DashboardDeps["newTask"]> => {
  const errors: { field: string; detail: string }[] = [];
  if (input.name.length > 255) errors.push({ field: "name", detail: "is over 255 bytes" });
  if ((input.priority ?? 5) > 9) errors.push({ field: "priority", detail: "must be 0 to 9" });
  if (errors.length > 0) return { errors };
  const task: NewTask = {
    id: systemRandom.uuid(Date.now()),
    name: input.name,
    queue: input.queue ?? "default",
    priority: input.priority ?? 5,
    payload: input.payloadText === "" ? null : input.payloadText,
    max_retries: input.max_retries ?? 3,
    run_at: null,
    timeout_ms: 60_000,
    retry: DEFAULT_RETRY,
    body_hash: null,
  };
  return task;
};

export function dashboard(changes: Partial<DashboardDeps> = {}, queue = new FakeQueue()) {
  const app = createDashboard({
    queue,
    nodeId: "n2",
    advertise: "http://queue.example:3000",
    version: "0.1.0",
    clock: { ...systemClock, wall: () => START + 10_000 },
    random: systemRandom,
    auth: openAuth,
    newTask,
    log: silentLog,
    ...changes,
  });
  const get = (path: string, headers: Record<string, string> = {}) =>
    app.handle(new Request(`http://localhost${path}`, { headers }));
  const post = (path: string, form: Record<string, string>, headers: Record<string, string> = {}) =>
    app.handle(
      new Request(`http://localhost${path}`, {
        method: "POST",
        body: new URLSearchParams(form),
        headers: { origin: "http://localhost", ...headers },
      }),
    );
  return { app, queue, get, post };
}
