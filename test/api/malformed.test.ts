import { describe, expect, test } from "bun:test";
import { BadFilter } from "../../src/queue/queries.ts";
import { BadCursor } from "../../src/queue/reports.ts";
import { ReaderOverloaded } from "../../src/queue/task-reader.ts";
import { QueueError, type QueueErrorCode } from "../../src/queue/service.ts";
import { LIMITS } from "../../src/queue/types.ts";
import { harness, NOW, pointers, problem, uuidAt } from "./harness.ts";

/** What is wrong → status, code, the pointers named. */
const SUBMITS: readonly (readonly [
  string,
  string | Uint8Array,
  number,
  string,
  readonly string[],
])[] = [
  ["half an object", '{"name":"x"', 400, "malformed-json", [""]],
  ["nothing", "", 400, "malformed-json", [""]],
  ["two documents", '{"name":"x"}{}', 400, "malformed-json", [""]],
  ["a trailing comma", '{"name":"x",}', 400, "malformed-json", [""]],
  ["a byte order mark", '\ufeff{"name":"x"}', 400, "malformed-json", [""]],
  [
    "broken UTF-8",
    Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d),
    400,
    "invalid-utf8",
    [""],
  ],
  ["an overlong encoding", Uint8Array.of(0x22, 0xc0, 0xaf, 0x22), 400, "invalid-utf8", [""]],
  ["a surrogate in UTF-8", Uint8Array.of(0x22, 0xed, 0xa0, 0x80, 0x22), 400, "invalid-utf8", [""]],
  ["a key twice", '{"name":"x","name":"y"}', 400, "duplicate-key", ["/name"]],
  ["a payload twice", '{"name":"x","payload":1,"payload":2}', 400, "duplicate-key", ["/payload"]],
  [
    "a key twice inside retry",
    '{"name":"x","retry":{"factor":1,"factor":2}}',
    400,
    "duplicate-key",
    ["/retry/factor"],
  ],
  [
    "a payload nested too deeply",
    `{"name":"x","payload":${"[".repeat(200)}${"]".repeat(200)}}`,
    400,
    "too-deep",
    [""],
  ],
  ["an array", "[]", 400, "invalid-request", [""]],
  ["null", "null", 400, "invalid-request", [""]],
  ["no name", "{}", 400, "invalid-request", ["/name"]],
  ["an empty name", '{"name":""}', 400, "invalid-request", ["/name"]],
  [
    "a name of 10,000 characters",
    `{"name":"${"n".repeat(10_000)}"}`,
    400,
    "invalid-request",
    ["/name"],
  ],
  [
    "a name of 128 characters and 256 bytes",
    `{"name":"${"é".repeat(128)}"}`,
    400,
    "invalid-request",
    ["/name"],
  ],
  ["a name with a line break", '{"name":"a\\nb"}', 400, "invalid-request", ["/name"]],
  ["a name with a NUL", '{"name":"a\\u0000b"}', 400, "invalid-request", ["/name"]],
  ["a name with half a surrogate pair", '{"name":"a\\ud800"}', 400, "invalid-request", ["/name"]],
  ["the name that stands for any", '{"name":"*"}', 400, "invalid-request", ["/name"]],
  ["an unknown field", '{"name":"x","priorty":1}', 400, "invalid-request", ["/priorty"]],
  [
    "an unknown field with odd characters",
    '{"name":"x","a/b~c":1}',
    400,
    "invalid-request",
    ["/a~1b~0c"],
  ],
  [
    "a field named constructor",
    '{"name":"x","constructor":1}',
    400,
    "invalid-request",
    ["/constructor"],
  ],
  [
    "a field named __proto__",
    '{"name":"x","__proto__":{"priority":1}}',
    400,
    "invalid-request",
    ["/__proto__"],
  ],
  ["a priority as text", '{"name":"x","priority":"5"}', 400, "invalid-request", ["/priority"]],
  ["a priority of 10", '{"name":"x","priority":10}', 400, "invalid-request", ["/priority"]],
  ["a priority of 1.5", '{"name":"x","priority":1.5}', 400, "invalid-request", ["/priority"]],
  ["a priority of null", '{"name":"x","priority":null}', 400, "invalid-request", ["/priority"]],
  [
    "a negative max_retries",
    '{"name":"x","max_retries":-1}',
    400,
    "invalid-request",
    ["/max_retries"],
  ],
  ["101 retries", '{"name":"x","max_retries":101}', 400, "invalid-request", ["/max_retries"]],
  ["a time-out of 0", '{"name":"x","timeout_ms":0}', 400, "invalid-request", ["/timeout_ms"]],
  [
    "an infinite time-out",
    '{"name":"x","timeout_ms":1e400}',
    400,
    "invalid-request",
    ["/timeout_ms"],
  ],
  ["a time-out of true", '{"name":"x","timeout_ms":true}', 400, "invalid-request", ["/timeout_ms"]],
  [
    "run_at as a number",
    '{"name":"x","run_at":1767225600000}',
    400,
    "invalid-request",
    ["/run_at"],
  ],
  [
    "run_at without a zone",
    '{"name":"x","run_at":"2030-01-01T00:00:00"}',
    400,
    "invalid-request",
    ["/run_at"],
  ],
  [
    "a day that does not exist",
    '{"name":"x","run_at":"2030-02-30T00:00:00Z"}',
    400,
    "invalid-request",
    ["/run_at"],
  ],
  [
    "an unknown retry kind",
    '{"name":"x","retry":{"kind":"fibonacci"}}',
    400,
    "invalid-request",
    ["/retry/kind"],
  ],
  [
    "an unknown field in retry",
    '{"name":"x","retry":{"max":1}}',
    400,
    "invalid-request",
    ["/retry/max"],
  ],
  [
    "a retry that begins above its limit",
    '{"name":"x","retry":{"initial_ms":10,"max_ms":5}}',
    400,
    "invalid-request",
    ["/retry/max_ms"],
  ],
  ["retry as an array", '{"name":"x","retry":[]}', 400, "invalid-request", ["/retry"]],
  [
    "jitter as a number",
    '{"name":"x","retry":{"jitter":1}}',
    400,
    "invalid-request",
    ["/retry/jitter"],
  ],
  ["a bad id", '{"name":"x","id":"1"}', 400, "invalid-request", ["/id"]],
  [
    "everything at once",
    '{"name":5,"queue":"","priority":"5","run_at":"soon","retry":{"factor":"2"},"foo":1}',
    400,
    "invalid-request",
    ["/name", "/queue", "/priority", "/run_at", "/retry/factor", "/foo"],
  ],
  [
    "a payload of 1 MiB",
    `{"name":"x","payload":"${"p".repeat(1024 * 1024)}"}`,
    413,
    "payload-too-large",
    ["/payload"],
  ],
  [
    "a body of more than 8 MiB",
    `{"name":"x","payload":"${"p".repeat(LIMITS.body)}"}`,
    413,
    "body-too-large",
    [""],
  ],
];

test.each(SUBMITS)(
  "a submit with %s is refused, its field named, and nothing is submitted",
  async (_, body, status, code, named) => {
    const { call, queue } = harness();
    const refused = await problem(await call("POST", "/api/tasks", { body }));
    expect([refused.status, refused.code, pointers(refused)]).toEqual([status, code, [...named]]);
    expect(queue.calls).toEqual([]);
  },
);

test("the payload's limit counts bytes as sent, and the very limit is accepted", async () => {
  const { call, queue } = harness();
  queue.current = { ...queue.current, max_payload: 10 };
  const sent = async (payload: string): Promise<number> =>
    (await call("POST", "/api/tasks", { body: `{"name":"x","payload":${payload}}` })).status;
  expect(await sent('"12345678"')).toBe(201);
  expect(await sent('"123456789"')).toBe(413);
  expect(await sent('"éééé"')).toBe(201);
  expect(await sent('"ééééé"')).toBe(413);
  expect(await sent("[1,  2,  3]")).toBe(413);
});

test("a bulk names every oversized payload", async () => {
  const { call, queue } = harness();
  queue.current = { ...queue.current, max_payload: 2 };
  const tasks = [
    { name: "a", payload: "long" },
    { name: "b", payload: 1 },
    { name: "c", payload: 123 },
  ];
  const refused = await problem(await call("POST", "/api/tasks/bulk", { body: { tasks } }));
  expect([refused.status, ...pointers(refused)]).toEqual([
    413,
    "/tasks/0/payload",
    "/tasks/2/payload",
  ]);
});

test.each([
  ["[]", "The body must be an object."],
  ["7", "The body must be an object."],
  ['{"name":7}', "/name: must be a string"],
])("the detail of %s is a sentence", async (body, detail) => {
  expect((await problem(await harness().call("POST", "/api/tasks", { body }))).detail).toBe(detail);
});

test.each([
  ["PUT", "/api/tasks", "GET, HEAD, OPTIONS, POST"],
  ["PATCH", "/api/cluster/config", "GET, HEAD, OPTIONS, PUT"],
  ["GET", "/api/leases/claim", "OPTIONS, POST"],
  ["POST", "/api/tasks/clear", "DELETE, GET, HEAD, OPTIONS"],
  ["POST", `/api/tasks/${uuidAt(NOW)}`, "DELETE, GET, HEAD, OPTIONS"],
  ["DELETE", "/health", "GET, HEAD, OPTIONS"],
  ["PUT", "/api/stats/", "GET, HEAD, OPTIONS"],
])("%s %s is 405 with what the path takes", async (method, path, allow) => {
  const { call, queue } = harness();
  const response = await call(method, path);
  expect(response.headers.get("allow")).toBe(allow);
  expect(await problem(response)).toMatchObject({ status: 405, code: "method-not-allowed" });
  const options = await call("OPTIONS", path);
  expect([options.status, options.headers.get("allow"), await options.text()]).toEqual([
    204,
    allow,
    "",
  ]);
  expect(options.headers.get("access-control-allow-origin")).toBeNull();
  expect(queue.calls).toEqual([]);
});

test.each(["/nope", "/api", "/api/tasks/x/y/z", "/api/workers//quiet"])(
  "a path that no method knows, %s, is 404 for each of them",
  async (path) => {
    for (const method of ["GET", "PUT", "OPTIONS"]) {
      const response = await harness().call(method, path);
      expect(response.headers.get("allow")).toBeNull();
      expect(await problem(response)).toMatchObject({ status: 404, code: "no-such-route" });
    }
  },
);

test("a path that is not percent-encoded UTF-8 is 400 and says so", async () => {
  const refused = await problem(await harness().call("GET", "/api/tasks/%ff"));
  expect([refused.status, refused.errors]).toEqual([
    400,
    [{ pointer: "/path/id", detail: "is not percent-encoded UTF-8" }],
  ]);
});

describe("media types", () => {
  test.each([
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/jsonx",
    "",
    "application/json; charset=latin1",
    "multipart/form-data",
  ])("%p is 415", async (type) => {
    const { call } = harness();
    const response = await call("POST", "/api/tasks", {
      body: '{"name":"x"}',
      headers: { "content-type": type },
    });
    expect(await problem(response)).toMatchObject({ status: 415, code: "unsupported-media-type" });
  });

  test.each([
    "application/json",
    "Application/JSON",
    "application/json; charset=utf-8",
    'application/json;charset="UTF-8"',
  ])("%p is accepted", async (type) => {
    const { call } = harness();
    const response = await call("POST", "/api/tasks", {
      body: '{"name":"x"}',
      headers: { "content-type": type },
    });
    expect(response.status).toBe(201);
  });
});

test("a compressed body is 415, not broken UTF-8", async () => {
  const { call, queue } = harness();
  const sent = async (coding: string): Promise<Response> =>
    call("POST", "/api/tasks", { body: '{"name":"x"}', headers: { "content-encoding": coding } });
  const refused = await sent("gzip");
  expect(refused.headers.get("accept-encoding")).toBe("identity");
  const body = await problem(refused);
  expect([body.status, body.code, ...pointers(body)]).toEqual([
    415,
    "unsupported-content-encoding",
    "/header/Content-Encoding",
  ]);
  expect(queue.calls).toEqual([]);
  expect((await sent("identity")).status).toBe(201);
});

test("a bulk of which one id is taken says which one", async () => {
  const { call, queue } = harness();
  const id = uuidAt(NOW);
  queue.fault = new QueueError("id-conflict", "Taken.", null, id);
  const tasks = [{ name: "a" }, { name: "b", id }];
  const refused = await problem(await call("POST", "/api/tasks/bulk", { body: { tasks } }));
  expect([refused.status, refused.code, ...pointers(refused)]).toEqual([
    409,
    "id-conflict",
    "/tasks/1/id",
  ]);
  queue.fault = new QueueError("id-conflict", "Taken.", null, id);
  const alone = await problem(await call("POST", "/api/tasks", { body: tasks[1] }));
  expect(pointers(alone)).toEqual(["/id"]);
});

test("nobody outside speaks for a member's own executors", async () => {
  const { call, queue } = harness();
  for (const [path, rest] of [
    ["claim", {}],
    ["heartbeat", { leases: [] }],
  ] as const) {
    const post = async (worker_id: string): Promise<Response> =>
      call("POST", `/api/leases/${path}`, { body: { worker_id, ...rest } });
    const refused = await problem(await post("n1/7"));
    expect([refused.status, ...pointers(refused)]).toEqual([400, "/worker_id"]);
    for (const mine of ["n1", "host/7/a", "N1/7", "n1/x"])
      expect((await post(mine)).status).toBe(200);
  }
  const all = await call("POST", "/api/leases/claim", { body: { worker_id: "w", names: ["*"] } });
  expect(pointers(await problem(all))).toEqual(["/names/0"]);
  expect(queue.calls.length).toBe(8);
});

describe("every refusal of the queue", () => {
  const table: readonly (readonly [QueueErrorCode, number, string | null])[] = [
    ["not-found", 404, null],
    ["already-final", 409, null],
    ["not-final", 409, null],
    ["id-conflict", 409, null],
    ["id-expired", 409, null],
    ["idempotency-mismatch", 422, null],
    ["idempotency-full", 429, "10"],
    ["names-full", 429, null],
    ["queue-full", 429, "5"],
    ["version-mismatch", 412, null],
    ["void", 503, "1"],
    ["stale-session", 503, "1"],
    ["no-leader", 503, "1"],
    ["no-quorum", 503, "1"],
    ["outcome-unknown", 503, "1"],
    ["overloaded", 429, "1"],
    ["low-disk", 503, "30"],
    ["stopping", 503, "1"],
  ];
  test.each(table)("%s is %d", async (code, status, retryAfter) => {
    const { call, queue } = harness();
    queue.fault = new QueueError(code, "No, because.");
    const response = await call("POST", "/api/tasks", { body: { name: "x" } });
    expect(response.headers.get("retry-after")).toBe(retryAfter);
    expect(await problem(response)).toMatchObject({ status, code, detail: "No, because." });
  });

  test("a filter or cursor that only the queue can judge is 400, a full reader 429", async () => {
    const { call, queue } = harness();
    for (const [fault, status] of [
      [new BadFilter("no such path"), 400],
      [new BadCursor("no such place"), 400],
      [new ReaderOverloaded("256 wait"), 429],
    ] as const) {
      queue.fault = fault;
      expect((await problem(await call("GET", "/api/tasks"))).status).toBe(status);
    }
  });

  test("a time of the queue's own becomes whole seconds, one at least", async () => {
    const { call, queue } = harness();
    for (const [ms, seconds] of [
      [1, "1"],
      [1_001, "2"],
      [60_000, "60"],
    ] as const) {
      queue.fault = new QueueError("overloaded", "Later.", ms);
      expect((await call("GET", "/api/stats")).headers.get("retry-after")).toBe(seconds);
    }
  });
});

describe("whatever else", () => {
  test("an exception is 500, logged with the request id, and tells the client nothing of itself", async () => {
    const { call, queue, logged } = harness();
    queue.fault = new TypeError("secret at /home/me/file.ts:1");
    const response = await call("GET", "/api/stats", { headers: { "x-request-id": "mine-1" } });
    const text = await response.clone().text();
    expect(await problem(response)).toMatchObject({
      status: 500,
      code: "internal",
      request_id: "mine-1",
    });
    expect(text).not.toContain("secret");
    expect(logged.length).toBe(1);
    expect(logged[0]?.fields).toMatchObject({ request_id: "mine-1", path: "/api/stats" });
    expect(String(logged[0]?.fields?.["error"])).toContain("secret");
  });

  test("an error with a code and status of its own does not become that status", async () => {
    const { call, queue } = harness();
    queue.fault = Object.assign(new Error("x"), { code: "NOT_FOUND_X", status: 404 });
    expect((await call("GET", "/api/stats")).status).toBe(500);
  });

  test.each([
    ["GET", "/nope"],
    ["GET", "/api"],
    ["GET", "/api/"],
    ["GET", "/api/tasksx"],
    ["GET", "/swagger/assets/swagger-initializer.js"],
    ["GET", "/swagger/assets/..%2fpackage.json"],
    ["GET", "/swagger/assets/constructor"],
  ])("%s %s is a 404 problem", async (method, path) => {
    const response = await harness().call(method, path);
    expect(await problem(response)).toMatchObject({ status: 404, code: "no-such-route" });
  });

  test("a request id is echoed when it is harmless, and minted when it is not", async () => {
    const { call } = harness();
    const echoed = await call("GET", "/health", { headers: { "x-request-id": "a-b_c:1.2/x+y=@" } });
    expect(echoed.headers.get("x-request-id")).toBe("a-b_c:1.2/x+y=@");
    for (const given of ["", "a b", "<script>", "x".repeat(129), "é"]) {
      const minted = (
        await call("GET", "/health", { headers: { "x-request-id": given } })
      ).headers.get("x-request-id");
      expect(minted).toMatch(/^[0-9a-f]{32}$/);
    }
  });

  test("query parameters that a write does not know are refused before it happens", async () => {
    const { call, queue } = harness();
    const body = { name: "x" };
    const refused = await problem(await call("POST", "/api/tasks?dry_run=true", { body }));
    expect(pointers(refused)).toEqual(["/query/dry_run"]);
    const cancel = await problem(await call("DELETE", `/api/tasks/${uuidAt(NOW)}?force=1`));
    expect(pointers(cancel)).toEqual(["/query/force"]);
    expect(queue.calls).toEqual([]);
  });
});
