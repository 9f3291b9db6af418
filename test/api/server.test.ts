/** What only a real socket shows: time-outs, disconnects, short Hosts, chunked bodies, metrics after answers. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "node:net";
import { LIMITS } from "../../src/queue/types.ts";
import { harness, problem, type Harness } from "./harness.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

let setup: Harness;
let server: Bun.Server<undefined>;
let base: string;
/** Seconds of idleness that requests were given instead of the server's own: by path. */
const given: [path: string, seconds: number][] = [];

beforeAll(() => {
  setup = harness(
    [],
    [
      {
        name: "test_gauge",
        help: "x",
        labels: ["kind"],
        collect: () => [{ labels: { kind: "a" }, value: 4 }],
      },
      { name: "test_failing", help: "x", collect: () => Promise.reject(new Error("no quorum")) },
    ],
  );
  server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request) => setup.app.fetch(request),
  });
  const own = server.timeout.bind(server);
  server.timeout = (request, seconds) => {
    given.push([new URL(request.url).pathname, seconds]);
    own(request, seconds);
  };
  setup.app.server = server as typeof setup.app.server;
  base = `http://127.0.0.1:${server.port}`;
});

afterAll(async () => {
  await server.stop(true);
});

async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < 1_000 && !condition(); turn++) await Bun.sleep(5);
  expect(condition()).toBe(true);
}

/** The raw answer to a raw request. */
function raw(text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect(server.port ?? 0, "127.0.0.1", () => socket.write(text));
    socket.on("data", (chunk) => (answer += chunk.toString()));
    socket.on("close", () => resolve(answer));
    socket.on("error", reject);
  });
}

// 0 is never, also behind the answer: who vanishes then would hold its connection for good.
test("long polls are not cut by the idle time-out, and nothing else is spared", async () => {
  const post = (path: string, body: object): Promise<Response> =>
    fetch(`${base}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  const claim = await post("/api/leases/claim", { worker_id: "w", names: ["never"], wait_ms: 100 });
  expect(await claim.json()).toEqual({ tasks: [], directive: "ok" });
  const location = (await post("/api/tasks", { name: "x" })).headers.get("location") ?? "";
  const waited = await fetch(`${base}${location}?wait=0.1`);
  expect(await waited.json()).toMatchObject({ status: "Pending" });
  await fetch(`${base}${location}`);
  expect(given).toEqual([
    ["/api/leases/claim", 121],
    [location, 121],
  ]);
});

test("a client that goes away withdraws its claim", async () => {
  const before = setup.queue.abandonedClaims;
  const calls = setup.queue.calls.length;
  const controller = new AbortController();
  const gone = fetch(`${base}/api/leases/claim`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ worker_id: "w", names: ["never"], wait_ms: 60_000 }),
    signal: controller.signal,
  }).catch(() => null);
  await until(() => setup.queue.calls.length > calls);
  controller.abort();
  await gone;
  await until(() => setup.queue.abandonedClaims > before);
});

test("a chunked body over the limit is 413 and does not have to end", async () => {
  const chunk = new Uint8Array(1024 * 1024).fill(0x20);
  let sent = 0;
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      sent += chunk.byteLength;
      controller.enqueue(chunk);
      if (sent > 2 * LIMITS.body) controller.close();
    },
  });
  const response = await fetch(`${base}/api/tasks`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  });
  expect(await problem(response)).toMatchObject({ status: 413, code: "body-too-large" });
});

test("a small chunked body is read", async () => {
  const answer = await raw(
    'POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n6\r\n{"name\r\n6\r\n":"x"}\r\n0\r\n\r\n',
  );
  expect(answer).toStartWith("HTTP/1.1 201");
});

test("a Host that is shorter than four characters reaches the routes, to be judged there", async () => {
  const answer = await raw("GET /health HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n");
  expect(answer).toStartWith("HTTP/1.1 421");
});

test("a request of HTTP/1.0 without a Host is a problem like any other", async () => {
  const answer = await raw("GET /health HTTP/1.0\r\n\r\n");
  expect(answer).toStartWith("HTTP/1.1 400");
  expect(answer).toContain('"code":"missing-host"');
});

test("metrics count by route pattern, never by path, and leave failing sources out", async () => {
  await fetch(`${base}/nowhere/${"x".repeat(20)}`);
  await fetch(`${base}/api/tasks/01920000-0000-7000-8000-000000000000`);
  await fetch(`${base}/health`, { headers: { host: "evil.example" } });
  let text = "";
  // Requests are counted just after their answers.
  for (let turn = 0; turn < 100 && !/route="\/api\/tasks\/:id",status="404"/.test(text); turn++) {
    text = await (await fetch(`${base}/metrics`)).text();
  }
  expect(text).toMatch(
    /flotilla_http_requests_total\{method="GET",route="\/api\/tasks\/:id",status="404"\} 1/,
  );
  expect(text).toMatch(/route="unmatched",status="404"\} 1/);
  expect(text).toMatch(/route="refused",status="421"\}/);
  expect(text).toMatch(
    /flotilla_http_request_seconds_count\{method="POST",route="\/api\/leases\/claim"\}/,
  );
  expect(text).not.toContain("nowhere");
  expect(text).not.toContain("01920000");
  expect(text).toMatch(/flotilla_tasks\{status="Pending"\} \d/);
  expect(text).toContain("flotilla_raft_term 3");
  expect(text).toContain('flotilla_raft_role{role="leader"} 1');
  expect(text).toContain('test_gauge{kind="a"} 4');
  expect(text).not.toMatch(/^test_failing \d/m);
  expect(text).toMatch(/process_resident_memory_bytes [\d.e+]+/);
});
