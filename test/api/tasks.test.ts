import { describe, expect, test } from "bun:test";
import { DEFAULT_SETTINGS } from "../../src/queue/types.ts";
import { harness, NOW, pointers, problem, uuidAt } from "./harness.ts";

interface TaskBody {
  readonly id: string;
  readonly name: string;
  readonly status: string;
  readonly version: number;
  readonly [field: string]: unknown;
}

const PAYLOADS = [
  "1.0",
  "1e400",
  "123456789012345678901234567890",
  '{ "spaced" :\t[ 1,\n2 ] }',
  '{"twice":1,"twice":2}',
  '"\\u00e9\\ud83d\\ude00\\u0000 é"',
  '"\\ud800"',
  "null",
  "false",
  '{"payload":{"payload":1.00}}',
];

test.each(["/api/tasks", "/api/tasks/bulk"])(
  "%s refuses at once what would only wait, but for repeats under a key",
  async (path) => {
    const { call, queue } = harness();
    queue.overloaded = true;
    const task = { name: "x" };
    const body = path.endsWith("bulk") ? { tasks: [task] } : task;
    const refused = await call("POST", path, { body });
    expect(refused.status).toBe(429);
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(refused.headers.get("content-type")).toBe("application/problem+json");
    expect(refused.headers.get("x-content-type-options")).toBe("nosniff");
    expect(await refused.json()).toMatchObject({
      code: "overloaded",
      status: 429,
      request_id: refused.headers.get("x-request-id"),
    });
    expect(queue.calls).toEqual([]);
    // Counted once, under its route, and known by the id that was sent.
    const headers = { "x-request-id": "mine" };
    const again = await call("POST", path, { body, headers });
    expect(again.headers.get("x-request-id")).toBe("mine");
    expect(await (await call("GET", "/metrics")).text()).toContain(
      `flotilla_http_requests_total{method="POST",route="${path}",status="429"} 2\n`,
    );
    const keyed = await call("POST", path, { body, headers: { "idempotency-key": "k" } });
    expect(keyed.status).toBe(201);
  },
);

describe("submitting one task", () => {
  test("answers 201 with Location, ETag and every field of a task", async () => {
    const { call } = harness();
    const response = await call("POST", "/api/tasks", { body: { name: "echo", payload: [1] } });
    expect(response.status).toBe(201);
    const task = (await response.json()) as TaskBody;
    expect(response.headers.get("location")).toBe(`/api/tasks/${task.id}`);
    expect(response.headers.get("etag")).toBe(`"${task.version}"`);
    expect(task).toEqual({
      id: task.id,
      name: "echo",
      status: "Pending",
      created_at: "2026-11-24T12:00:00.000Z",
      retries: 0,
      max_retries: 3,
      payload: [1],
      queue: "default",
      priority: 5,
      detail: "ready",
      attempt: 0,
      crashes: 0,
      run_at: "2026-11-24T12:00:00.000Z",
      started_at: null,
      completed_at: null,
      timeout_ms: 60_000,
      retry: DEFAULT_SETTINGS.retry,
      result: null,
      last_error: null,
      progress: null,
      lease: null,
      version: 1,
    });
    expect(Object.keys(task).slice(0, 7)).toEqual([
      "id",
      "name",
      "status",
      "created_at",
      "retries",
      "max_retries",
      "payload",
    ]);
  });

  test.each(PAYLOADS)(
    "keeps the payload %s byte by byte, in the answer, the task and the list",
    async (raw) => {
      const { call } = harness();
      const sent = await call("POST", "/api/tasks", { body: `{"payload": ${raw} ,"name":"x"}` });
      const text = await sent.text();
      expect(sent.status).toBe(201);
      expect(text).toContain(`"payload":${raw},"queue"`);
      const path = sent.headers.get("location") ?? "";
      expect(await (await call("GET", path)).text()).toBe(text);
      expect(await (await call("GET", "/api/tasks")).text()).toBe(`[${text}]`);
    },
  );

  test("takes every option, fills the retry policy up, and reads times with offsets", async () => {
    const { call, queue } = harness();
    const response = await call("POST", "/api/tasks", {
      body: {
        name: "x",
        queue: "mail",
        priority: 0,
        max_retries: 0,
        run_at: "2030-01-01T01:00:00+01:00",
        timeout_ms: null,
        retry: { kind: "fixed", initial_ms: 5 },
      },
    });
    expect(await response.json()).toMatchObject({
      queue: "mail",
      priority: 0,
      max_retries: 0,
      run_at: "2030-01-01T00:00:00.000Z",
      detail: "scheduled",
      timeout_ms: null,
      retry: { kind: "fixed", initial_ms: 5, factor: 2, max_ms: 300_000, jitter: true },
      payload: null,
    });
    expect(queue.calls).toEqual(["submit", "held"]);
  });

  test("answers 201 even when the task is cleared before it is read back", async () => {
    const { call, queue } = harness();
    queue.held = (ids) => ids.map(() => null);
    const response = await call("POST", "/api/tasks", { body: { name: "x" } });
    expect(response.status).toBe(201);
    expect(await response.json()).toMatchObject({ gone: true });
  });
});

describe("ids of the client", () => {
  test("make a repeat answer 200, whatever order its fields come in, and another body 409", async () => {
    const { call } = harness();
    const id = uuidAt(NOW - 1_000);
    const first = await call("POST", "/api/tasks", {
      body: `{"id":"${id}","name":"x","priority":3}`,
    });
    const again = await call("POST", "/api/tasks", {
      body: `{"priority":3, "name":"x","id":"${id}"}`,
    });
    expect([first.status, again.status]).toEqual([201, 200]);
    expect(await again.json()).toEqual(await first.json());
    for (const other of [
      `{"id":"${id}","name":"x","priority":4}`,
      `{"id":"${id}","name":"x","priority":3,"payload":null}`,
      `{"id":"${id}","name":"x","priority":3,"timeout_ms":null}`,
      `{"id":"${id}","name":"x","priority":3,"retry":{"factor":3}}`,
    ]) {
      const body = await problem(await call("POST", "/api/tasks", { body: other }));
      expect([body.status, body.code]).toEqual([409, "id-conflict"]);
    }
  });

  test("stay equal while a default of the cluster changes between two tries", async () => {
    const { call, queue } = harness();
    const body = { id: uuidAt(NOW), name: "x" };
    await call("POST", "/api/tasks", { body });
    queue.current = { ...queue.current, timeout_ms: 5 };
    expect((await call("POST", "/api/tasks", { body })).status).toBe(200);
  });

  test("are refused when too old, of the future, or no canonical UUIDv7", async () => {
    const { call } = harness();
    for (const id of [
      uuidAt(NOW - 3_600_001),
      uuidAt(NOW + 5_001),
      uuidAt(NOW).toUpperCase(),
      uuidAt(NOW).replace("-7", "-4"),
      uuidAt(NOW).replace("-8", "-c"),
      uuidAt(NOW).replaceAll("-", ""),
      `{${uuidAt(NOW)}}`,
      "7",
      "",
    ]) {
      const body = await problem(await call("POST", "/api/tasks", { body: { id, name: "x" } }));
      expect([id, body.status, pointers(body)]).toEqual([id, 400, ["/id"]]);
    }
    for (const id of [uuidAt(NOW - 3_600_000), uuidAt(NOW + 5_000)]) {
      expect((await call("POST", "/api/tasks", { body: { id, name: "x" } })).status).toBe(201);
    }
  });
});

describe("Idempotency-Key", () => {
  test("repeats the first answer and says so; another body is 422", async () => {
    const { call, queue } = harness();
    const headers = { "idempotency-key": "k1" };
    const first = await call("POST", "/api/tasks", { body: { name: "x" }, headers });
    const again = await call("POST", "/api/tasks", { body: { name: "x" }, headers });
    expect(first.headers.get("idempotency-replayed")).toBeNull();
    expect(again.headers.get("idempotency-replayed")).toBe("true");
    expect([again.status, await again.json()]).toEqual([201, await first.json()]);
    expect(queue.rows.size).toBe(1);
    const other = await call("POST", "/api/tasks", { body: { name: "y" }, headers });
    expect(await problem(other)).toMatchObject({ status: 422, code: "idempotency-mismatch" });
  });

  test("is one key per route and per task", async () => {
    const { call, queue } = harness();
    const headers = { "idempotency-key": "k1" };
    await call("POST", "/api/tasks", { body: { name: "x" }, headers });
    const bulk = await call("POST", "/api/tasks/bulk", {
      body: { tasks: [{ name: "x" }] },
      headers,
    });
    expect(bulk.status).toBe(201);
    const [one, two] = [...queue.rows.keys()];
    for (const id of [one, two]) {
      await call("DELETE", `/api/tasks/${id}`);
      const retried = await call("POST", `/api/tasks/${id}/retry`, { headers });
      expect([retried.status, retried.headers.get("idempotency-replayed")]).toEqual([200, null]);
      const replayed = await call("POST", `/api/tasks/${id}/retry`, { headers });
      expect(replayed.headers.get("idempotency-replayed")).toBe("true");
    }
    expect(queue.keys.size).toBe(4);
  });

  test("of a wrong form is 400, on every POST", async () => {
    const { call } = harness();
    for (const key of ["", "has space", "a".repeat(256), "é"]) {
      for (const [path, body] of [
        ["/api/tasks", { name: "x" }],
        ["/api/leases/claim", { worker_id: "w" }],
        ["/api/leases/heartbeat", { worker_id: "w", leases: [] }],
      ] as const) {
        const response = await call("POST", path, { body, headers: { "idempotency-key": key } });
        expect(pointers(await problem(response))).toEqual(["/header/Idempotency-Key"]);
      }
    }
  });
});

describe("submitting many", () => {
  test("answers whole tasks in order, payloads as sent", async () => {
    const { call } = harness();
    const response = await call("POST", "/api/tasks/bulk", {
      body: '{"tasks":[{"name":"a","payload":1.0},{"name":"b"},{"name":"c","payload":{ }}]}',
    });
    expect(response.status).toBe(201);
    const text = await response.text();
    expect(text).toContain('"payload":1.0,');
    expect(text).toContain('"payload":{ },');
    const { items } = JSON.parse(text) as { items: TaskBody[] };
    expect(items.map((task) => task.name)).toEqual(["a", "b", "c"]);
  });

  test("names every bad task at once and submits none", async () => {
    const { call, queue } = harness();
    const response = await call("POST", "/api/tasks/bulk", {
      body: {
        tasks: [{ name: "" }, { name: "ok" }, { nmae: "x" }, { name: "x", priority: 10 }, 7],
      },
    });
    expect(pointers(await problem(response))).toEqual([
      "/tasks/0/name",
      "/tasks/2/name",
      "/tasks/2/nmae",
      "/tasks/3/priority",
      "/tasks/4",
    ]);
    expect(queue.calls).toEqual([]);
  });

  test("takes 1 to 1,000, and an id only once", async () => {
    const { call } = harness();
    const many = (count: number) => Array.from({ length: count }, () => ({ name: "x" }));
    for (const tasks of [[], many(1_001)]) {
      const response = await call("POST", "/api/tasks/bulk", { body: { tasks } });
      expect(pointers(await problem(response))).toEqual(["/tasks"]);
    }
    const full = await call("POST", "/api/tasks/bulk", { body: { tasks: many(1_000) } });
    expect(full.status).toBe(201);
    const twice = [uuidAt(NOW), uuidAt(NOW)].map((id) => ({ id, name: "x" }));
    const response = await call("POST", "/api/tasks/bulk", { body: { tasks: twice } });
    expect(pointers(await problem(response))).toEqual(["/tasks/1/id"]);
  });

  test("lists a hundred bad fields and counts the rest", async () => {
    const { call } = harness();
    const tasks = Array.from({ length: 150 }, () => ({}));
    const body = await problem(await call("POST", "/api/tasks/bulk", { body: { tasks } }));
    expect(body.errors?.length).toBe(100);
    expect(body.detail).toContain("50 more");
  });
});

describe("listing", () => {
  test("pages by the Link header, keeping the filters, until there is no more", async () => {
    const { call } = harness();
    for (let made = 0; made < 5; made++) {
      await call("POST", "/api/tasks", { body: { name: made === 2 ? "other" : "é&x" } });
    }
    const seen: string[] = [];
    let path: string | null =
      "/api/tasks?name=%C3%A9%26x&limit=2&status=Pending,Failed&consistency=stale";
    let pages = 0;
    while (path !== null) {
      const response = await call("GET", path);
      expect(response.status).toBe(200);
      expect(response.headers.get("flotilla-staleness-ms")).toBe("13");
      seen.push(...((await response.json()) as TaskBody[]).map((task) => task.id));
      const link = response.headers.get("link");
      path = link === null ? null : (/^<([^>]+)>; rel="next"$/.exec(link)?.[1] ?? "");
      pages++;
    }
    expect([pages, new Set(seen).size, seen.length]).toEqual([2, 4, 4]);
  });

  test("a cursor with other filters, cut or made up, is 400 and never reaches the queue", async () => {
    const { call, queue } = harness();
    for (let made = 0; made < 3; made++) await call("POST", "/api/tasks", { body: { name: "x" } });
    const link = (await call("GET", "/api/tasks?limit=1")).headers.get("link") ?? "";
    const cursor = /cursor=([^>&]+)/.exec(link)?.[1] ?? "";
    const before = queue.calls.length;
    for (const query of [
      `name=x&cursor=${cursor}`,
      `cursor=${cursor.slice(0, -1)}`,
      "cursor=abc",
      "cursor=",
    ]) {
      const body = await problem(await call("GET", `/api/tasks?${query}`));
      expect([query, pointers(body)]).toEqual([query, ["/query/cursor"]]);
    }
    expect(queue.calls.length).toBe(before);
    expect((await call("GET", `/api/tasks?limit=1&cursor=${cursor}`)).status).toBe(200);
  });

  test("hands every filter over as the queue wants it", async () => {
    const { call, queue } = harness();
    await call(
      "GET",
      "/api/tasks?status=Pending&status=Running,Failed&detail=ready&queue=q&name=n&q=01&payload.user.id=7&payload.x=a%20b&created_after=2026-01-01T00:00:00Z&created_before=2027-01-01T00:00:00Z",
    );
    expect(queue.lastFilter).toEqual({
      statuses: ["Pending", "Running", "Failed"],
      details: ["ready"],
      queue: "q",
      name: "n",
      q: "01",
      payload: [
        { path: "user.id", value: "7" },
        { path: "x", value: "a b" },
      ],
      createdAfter: Date.UTC(2026, 0, 1),
      createdBefore: Date.UTC(2027, 0, 1),
    });
  });

  test.each([
    ["status=Bogus", "/query/status"],
    ["status=Pending,bogus", "/query/status"],
    ["status=", "/query/status"],
    ["detail=sleeping", "/query/detail"],
    ["limit=0", "/query/limit"],
    ["limit=1001", "/query/limit"],
    ["limit=ten", "/query/limit"],
    ["limit=1.5", "/query/limit"],
    ["limit=1e2", "/query/limit"],
    ["limit=", "/query/limit"],
    ["limit=1&limit=2", "/query/limit"],
    ["created_after=yesterday", "/query/created_after"],
    ["created_before=2030-02-30T00:00:00Z", "/query/created_before"],
    ["consistency=eventual", "/query/consistency"],
    ["colour=red", "/query/colour"],
    ["__proto__=1", "/query/__proto__"],
    ["5=1", "/query/5"],
    ["payload.=1", "/query/payload.PATH"],
    ["payload.a..b=1", "/query/payload.PATH"],
    ["payload.a%22b=1", "/query/payload.PATH"],
    ["payload.a%5c=1", "/query/payload.PATH"],
    ["payload.a%00b=1", "/query/payload.PATH"],
    [`name=${"n".repeat(256)}`, "/query/name"],
    ["name=%00", "/query/name"],
    ["name=%ff", "/query"],
    ["name=%zz", "/query"],
  ])("refuses ?%s and names the parameter", async (query, pointer) => {
    const { call, queue } = harness();
    const body = await problem(await call("GET", `/api/tasks?${query}`));
    expect([body.status, pointers(body)[0]]).toEqual([400, pointer]);
    expect(queue.calls).toEqual([]);
  });

  test("names an unknown status in the detail", async () => {
    const body = await problem(await harness().call("GET", "/api/tasks?status=Bogus"));
    expect(body.errors?.[0]?.detail).toContain('"Bogus"');
    expect(body.errors?.[0]?.detail).toContain("Pending, Running");
  });
});

describe("one task", () => {
  test("reads are linearizable by default, and stale ones say how old they are", async () => {
    const { call } = harness();
    const sent = await call("POST", "/api/tasks", { body: { name: "x" } });
    const path = sent.headers.get("location") ?? "";
    const fresh = await call("GET", path);
    expect(fresh.headers.get("flotilla-applied-index")).toBeNull();
    for (const suffix of ["", "/attempts", "/logs"]) {
      const stale = await call("GET", `${path}${suffix}?consistency=stale`);
      expect(stale.headers.get("flotilla-applied-index")).toBe("1");
      expect(stale.headers.get("flotilla-staleness-ms")).toBe("13");
    }
  });

  test("?wait answers as soon as it is final, and as it is when the time is up", async () => {
    const { call, queue } = harness();
    const sent = await call("POST", "/api/tasks", { body: { name: "x" } });
    const path = sent.headers.get("location") ?? "";
    const early = await call("GET", `${path}?wait=0.02`);
    expect(await early.json()).toMatchObject({ status: "Pending" });
    const waiting = call("GET", `${path}?wait=60`);
    await call("DELETE", path);
    expect(await (await waiting).json()).toMatchObject({ status: "Cancelled" });
    expect(queue.calls.filter((name) => name === "waitFinal").length).toBe(2);
  });

  test("?wait over a minute, negative or no number is 400", async () => {
    const { call } = harness();
    for (const wait of ["61", "-1", "soon", "1e1", "Infinity", ""]) {
      const response = await call("GET", `/api/tasks/${uuidAt(NOW)}?wait=${wait}`);
      expect(pointers(await problem(response))).toEqual(["/query/wait"]);
    }
  });

  test("a malformed id is 400 and an unknown one 404, on every route", async () => {
    const { call } = harness();
    for (const [method, suffix] of [
      ["GET", ""],
      ["DELETE", ""],
      ["POST", "/retry"],
      ["GET", "/attempts"],
      ["GET", "/logs"],
    ] as const) {
      for (const id of ["7", "clear-", uuidAt(NOW).toUpperCase(), "%00", "a%2Fb"]) {
        const body = await problem(await call(method, `/api/tasks/${id}${suffix}`));
        expect([method, suffix, id, body.status, pointers(body)]).toEqual([
          method,
          suffix,
          id,
          400,
          ["/path/id"],
        ]);
      }
      const unknown = await problem(await call(method, `/api/tasks/${uuidAt(NOW)}${suffix}`));
      expect([method, suffix, unknown.status, unknown.code]).toEqual([
        method,
        suffix,
        404,
        "not-found",
      ]);
    }
    const waiting = await call("GET", `/api/tasks/${uuidAt(NOW)}?wait=1`);
    expect((await problem(waiting)).status).toBe(404);
  });
});

describe("changing tasks", () => {
  test("a Pending task is cancelled with 204, again with 204, and a final one is 409", async () => {
    const { call, queue } = harness();
    const path =
      (await call("POST", "/api/tasks", { body: { name: "x" } })).headers.get("location") ?? "";
    for (let turn = 0; turn < 2; turn++) {
      const response = await call("DELETE", path);
      expect([response.status, await response.text()]).toEqual([204, ""]);
    }
    for (const row of queue.rows.values()) row.task.status = "Completed";
    expect(await problem(await call("DELETE", path))).toMatchObject({
      status: 409,
      code: "already-final",
    });
  });

  test("clear deletes all, or one status, and is not taken for a task id", async () => {
    const { call, queue } = harness();
    const paths: string[] = [];
    for (let made = 0; made < 3; made++) {
      paths.push(
        (await call("POST", "/api/tasks", { body: { name: "x" } })).headers.get("location") ?? "",
      );
    }
    await call("DELETE", paths[0] ?? "");
    const some = await call("DELETE", "/api/tasks/clear?status=Cancelled");
    expect(await some.json()).toEqual({ message: "All tasks cleared", cleared: 1 });
    const rest = await call("DELETE", "/api/tasks/clear");
    expect(await rest.json()).toEqual({ message: "All tasks cleared", cleared: 2 });
    expect(queue.rows.size).toBe(0);
    const bad = await problem(await call("DELETE", "/api/tasks/clear?status=Done"));
    expect(pointers(bad)).toEqual(["/query/status"]);
  });

  test("retry honours If-Match, and refuses what is not final", async () => {
    const { call } = harness();
    const path =
      (await call("POST", "/api/tasks", { body: { name: "x" } })).headers.get("location") ?? "";
    const early = await problem(await call("POST", `${path}/retry`));
    expect([early.status, early.code]).toEqual([409, "not-final"]);
    await call("DELETE", path);
    const tag = (await call("GET", path)).headers.get("etag") ?? "";
    const wrong = await problem(
      await call("POST", `${path}/retry`, { headers: { "if-match": '"999"' } }),
    );
    expect([wrong.status, wrong.code]).toEqual([412, "version-mismatch"]);
    for (const value of ["7", 'W/"7"', '"x"', '"1", "2"']) {
      const bad = await problem(
        await call("POST", `${path}/retry`, { headers: { "if-match": value } }),
      );
      expect(pointers(bad)).toEqual(["/header/If-Match"]);
    }
    const retried = await call("POST", `${path}/retry`, { headers: { "if-match": tag }, body: {} });
    expect(retried.status).toBe(200);
    expect(await retried.json()).toMatchObject({ status: "Pending" });
    expect(retried.headers.get("etag")).not.toBe(tag);
  });

  test("retry takes an empty object or nothing, but no fields", async () => {
    const { call } = harness();
    const response = await call("POST", `/api/tasks/${uuidAt(NOW)}/retry`, {
      body: { force: true },
    });
    expect(pointers(await problem(response))).toEqual(["/force"]);
  });

  test("stats count by status", async () => {
    const { call } = harness();
    await call("POST", "/api/tasks", { body: { name: "x" } });
    expect(await (await call("GET", "/api/stats")).json()).toEqual({
      stats: { Pending: 1, Running: 0, Completed: 0, Failed: 0, Cancelled: 0 },
      total_tasks: 1,
    });
  });
});
