/** `Idempotency-Key` on every POST there is: the first answer again, byte for byte. */
import { describe, expect, test } from "bun:test";
import type { ClaimedTask } from "../../src/queue/types.ts";
import type { WorkerView } from "../../src/queue/service.ts";
import { harness, NOW, problem, uuidAt, type Harness } from "./harness.ts";

const WORKER: WorkerView = {
  id: "w",
  principal: "anonymous",
  member: null,
  slots: 1,
  running: [],
  queues: null,
  names: [],
  stuck: 0,
  kills: 0,
  restarts: 0,
  directive: "ok",
  last_seen_ms: 0,
};

/** A task that `w` runs, as the lease routes name it. */
async function leased({ call }: Harness): Promise<{
  task_id: string;
  attempt: number;
  fence: number;
}> {
  await call("POST", "/api/tasks", { body: { name: "x" } });
  const response = await call("POST", "/api/leases/claim", { body: { worker_id: "w" } });
  const [task] = ((await response.json()) as { tasks: ClaimedTask[] }).tasks;
  if (task === undefined) throw new Error("nothing was claimed");
  return { task_id: task.id, attempt: task.lease.attempt, fence: task.lease.fence };
}

interface Post {
  readonly path: string;
  readonly body: unknown;
}

/** One call for each POST route of the document, with what it needs in place. */
const POSTS: Readonly<Record<string, (setup: Harness) => Promise<Post>>> = {
  "/api/tasks": async () => ({ path: "/api/tasks", body: { name: "x", payload: [1] } }),
  "/api/tasks/bulk": async () => ({
    path: "/api/tasks/bulk",
    body: { tasks: [{ name: "x" }, { name: "y", payload: {} }] },
  }),
  "/api/tasks/{id}/retry": async ({ call, queue }) => {
    await call("POST", "/api/tasks", { body: { name: "x" } });
    const [id] = [...queue.rows.keys()];
    await call("DELETE", `/api/tasks/${id}`);
    return { path: `/api/tasks/${id}/retry`, body: {} };
  },
  "/api/cluster/members": async () => ({
    path: "/api/cluster/members",
    body: { id: "n4", url: "http://10.0.0.4:3000" },
  }),
  "/api/cluster/transfer": async () => ({ path: "/api/cluster/transfer", body: { to: "n2" } }),
  "/api/leases/claim": async ({ call }) => {
    await call("POST", "/api/tasks", { body: { name: "x" } });
    return { path: "/api/leases/claim", body: { worker_id: "w", max: 3 } };
  },
  "/api/leases/heartbeat": async (setup) => ({
    path: "/api/leases/heartbeat",
    body: { worker_id: "w", leases: [await leased(setup)] },
  }),
  "/api/leases/complete": async (setup) => ({
    path: "/api/leases/complete",
    body: { worker_id: "w", items: [{ ...(await leased(setup)), result: 1 }] },
  }),
  "/api/leases/fail": async (setup) => ({
    path: "/api/leases/fail",
    body: { worker_id: "w", items: [{ ...(await leased(setup)), error: "e" }] },
  }),
  "/api/leases/release": async (setup) => ({
    path: "/api/leases/release",
    body: { worker_id: "w", items: [await leased(setup)] },
  }),
  "/api/leases/{task_id}/complete": (setup) => one(setup, "complete", { result: { a: 1 } }),
  "/api/leases/{task_id}/fail": (setup) => one(setup, "fail", { error: "e" }),
  "/api/leases/{task_id}/snooze": (setup) => one(setup, "snooze", { delay_ms: 5 }),
  "/api/leases/{task_id}/release": (setup) => one(setup, "release", {}),
  "/api/leases/{task_id}/logs": (setup) => one(setup, "logs", { lines: ["a"] }),
  "/api/workers/{id}/quiet": async ({ queue }) => {
    queue.workerViews = [WORKER];
    return { path: "/api/workers/w/quiet", body: {} };
  },
};

async function one(setup: Harness, verb: string, rest: object): Promise<Post> {
  const { task_id, ...lease } = await leased(setup);
  return { path: `/api/leases/${task_id}/${verb}`, body: { worker_id: "w", ...lease, ...rest } };
}

/** What counts of an answer: all but the request's own id. */
async function answer(response: Response): Promise<unknown> {
  const headers = Object.fromEntries(response.headers);
  delete headers["x-request-id"];
  delete headers["idempotency-replayed"];
  return { status: response.status, headers, body: await response.text() };
}

describe("a POST under a key", () => {
  test("is each of the routes that the document lists, and each declares the header", async () => {
    const { call } = harness();
    const { paths } = (await (await call("GET", "/swagger/json")).json()) as {
      paths: Record<string, { post?: { parameters?: { name?: string }[]; responses: object } }>;
    };
    const posts = Object.entries(paths).filter(([, { post }]) => post !== undefined);
    expect(posts.map(([path]) => path).toSorted()).toEqual(Object.keys(POSTS).toSorted());
    for (const [, { post }] of posts) {
      expect(JSON.stringify(post?.parameters)).toContain("Idempotency-Key");
      const statuses = Object.keys(post?.responses ?? {});
      expect(statuses).toContain("422");
      expect(statuses).toContain("429");
    }
  });

  for (const [route, prepare] of Object.entries(POSTS)) {
    test(`${route} gives its first answer again, once it is all gone too, and refuses another body`, async () => {
      const setup = harness();
      const { call, queue } = setup;
      const { path, body } = await prepare(setup);
      const headers = { "idempotency-key": "k" };
      const first = await call("POST", path, { body, headers });
      expect([first.status < 300, first.headers.get("idempotency-replayed")]).toEqual([true, null]);
      const said = await answer(first);
      queue.rows.clear();
      queue.workerViews = [];
      for (let n = 0; n < 2; n++) {
        const again = await call("POST", path, { body, headers });
        expect(again.headers.get("idempotency-replayed")).toBe("true");
        expect(await answer(again)).toEqual(said);
      }
      // The same JSON in other bytes is another body.
      const other = `${JSON.stringify(body)} `;
      expect(await problem(await call("POST", path, { body: other, headers }))).toMatchObject({
        status: 422,
        code: "idempotency-mismatch",
      });
    });
  }
});

test("a refusal is not kept: the next try under its key is judged anew", async () => {
  const setup = harness();
  const { call, queue } = setup;
  const headers = { "idempotency-key": "k" };
  const { task_id, ...lease } = await leased(setup);
  const path = `/api/leases/${task_id}/complete`;
  const wrong = { worker_id: "w", ...lease, fence: lease.fence + 1 };
  expect((await call("POST", path, { body: wrong, headers })).status).toBe(409);
  const right = await call("POST", path, { body: { worker_id: "w", ...lease }, headers });
  expect([right.status, right.headers.get("idempotency-replayed")]).toEqual([200, null]);
  const quiet = () => call("POST", "/api/workers/w/quiet", { headers });
  expect((await quiet()).status).toBe(404);
  queue.workerViews = [WORKER];
  expect((await quiet()).status).toBe(200);
});

test("an end that only confirmed a cancel is 409 again, and says that it is a repeat", async () => {
  const setup = harness();
  const { call } = setup;
  const { task_id, ...lease } = await leased(setup);
  await call("DELETE", `/api/tasks/${task_id}`);
  const end = () =>
    call("POST", `/api/leases/${task_id}/complete`, {
      body: { worker_id: "w", ...lease },
      headers: { "idempotency-key": "k" },
    });
  expect(await problem(await end())).toMatchObject({ status: 409, code: "cancelled" });
  const again = await end();
  expect(again.headers.get("idempotency-replayed")).toBe("true");
  expect(await problem(again)).toMatchObject({ status: 409, code: "cancelled" });
});

test("a repeat is not refused for an id that has grown old or a limit that was lowered since", async () => {
  const { call, queue, state } = harness();
  const headers = { "idempotency-key": "k" };
  const body = { id: uuidAt(NOW), name: "x", payload: "12345" };
  const first = await call("POST", "/api/tasks", { body, headers });
  state.wall = NOW + 2 * 3_600_000;
  queue.current = { ...queue.current, max_payload: 3 };
  const again = await call("POST", "/api/tasks", { body, headers });
  expect(again.headers.get("idempotency-replayed")).toBe("true");
  expect(await again.text()).toBe(await first.text());
  const fresh = await call("POST", "/api/tasks", { body, headers: { "idempotency-key": "other" } });
  expect((await problem(fresh)).status).toBe(400);
});

test("claims of one key and body ask for the same request at every member", async () => {
  const one = harness();
  const two = harness();
  const headers = { "idempotency-key": "k" };
  for (const { call } of [one, two])
    await call("POST", "/api/leases/claim", { body: { worker_id: "w" }, headers });
  expect(one.queue.lastClaim?.request_id).toBe(two.queue.lastClaim?.request_id ?? "none");
});
