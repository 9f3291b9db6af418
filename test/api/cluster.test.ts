import { describe, expect, test } from "bun:test";
import { MembershipError } from "../../src/queue/cluster-members.ts";
import { SETTING_LIMITS } from "../../src/queue/settings.ts";
import { harness, NOW, pointers, problem, uuidAt } from "./harness.ts";

describe("health", () => {
  test("is 200 with a leader, and 503 with the reason without", async () => {
    const { call, queue } = harness();
    expect(await (await call("GET", "/health")).json()).toEqual({
      status: "healthy",
      node_id: "n1",
      cluster_id: "c1",
      version: "9.9.9",
      alarms: [],
    });
    queue.condition = {
      status: "unhealthy",
      ready: false,
      reason: "no leader for 3 s",
      alarms: [],
    };
    for (const [path, status] of [
      ["/health", "unhealthy"],
      ["/health/ready", "not-ready"],
    ] as const) {
      const response = await call("GET", path);
      expect(response.status).toBe(503);
      expect(await response.json()).toMatchObject({ status, reason: "no leader for 3 s" });
    }
    expect((await call("GET", "/health/live")).status).toBe(200);
  });

  test("is not ready while behind or shutting down, though healthy", async () => {
    const { call, queue, state } = harness();
    expect((await call("GET", "/health/ready")).status).toBe(200);
    queue.condition = {
      status: "healthy",
      ready: false,
      notReady: "2,000 entries behind",
      alarms: [],
    };
    const behind = await call("GET", "/health/ready");
    expect([behind.status, await behind.json()]).toMatchObject([
      503,
      { reason: "2,000 entries behind" },
    ]);
    queue.condition = { status: "healthy", ready: true, notReady: null, alarms: [] };
    state.draining = true;
    const draining = await call("GET", "/health/ready");
    expect([draining.status, await draining.json()]).toMatchObject([
      503,
      { reason: "shutting down" },
    ]);
    expect((await call("GET", "/health")).status).toBe(200);
  });
});

describe("settings", () => {
  test("are changed one by one, nested ones too, and answered whole", async () => {
    const { call, queue } = harness();
    const before = queue.current;
    const response = await call("PUT", "/api/cluster/config", {
      body: { lease: 20_000, retention: { failed: 5 }, retry: { factor: 3 }, timeout_ms: null },
    });
    expect(response.status).toBe(200);
    const expected = {
      ...before,
      lease: 20_000,
      retention: { ...before.retention, failed: 5 },
      retry: { ...before.retry, factor: 3 },
      timeout_ms: null,
    };
    expect(await response.json()).toEqual(expected);
    expect(await (await call("GET", "/api/cluster/config")).json()).toEqual(expected);
  });

  test("go into the log as they were sent: what was not named is not filled in from a read before", async () => {
    const { call, queue } = harness();
    const body = { retention: { failed: 5 }, retry: { factor: 3 } };
    await call("PUT", "/api/cluster/config", { body });
    expect(JSON.parse(JSON.stringify(queue.lastChange))).toEqual(body);
    expect(queue.calls).toEqual(["updateSettings"]);
  });

  test.each([
    { lease: SETTING_LIMITS.lease.min },
    { lease: SETTING_LIMITS.lease.max },
    { max_payload: SETTING_LIMITS.max_payload.min },
    { max_payload: SETTING_LIMITS.max_payload.max },
    { retention: { failed: SETTING_LIMITS.retention.min } },
    { retention: { failed: SETTING_LIMITS.retention.max } },
    { log_tail: { max_bytes: SETTING_LIMITS.log_tail_bytes.min, young_bytes: 0, young_ms: 0 } },
    { log_tail: { max_bytes: SETTING_LIMITS.log_tail_bytes.max, max_ms: 60_000 } },
  ])("may be what a flag may say: %j", async (body) => {
    expect((await harness().call("PUT", "/api/cluster/config", { body })).status).toBe(200);
  });

  test.each([
    [{}, ""],
    [{ lease: 99 }, "/lease"],
    [{ lease: 86_400_001 }, "/lease"],
    [{ max_payload: 1_023 }, "/max_payload"],
    [{ log_tail: { max_bytes: 1_048_575 } }, "/log_tail/max_bytes"],
    [{ log_tail: { max_ms: 59_999 } }, "/log_tail/max_ms"],
    [{ log_tail: { young_bytes: -1 } }, "/log_tail/young_bytes"],
    [{ log_tail: { old_ms: 1 } }, "/log_tail/old_ms"],
    [{ log_tail: null }, "/log_tail"],
    [{ max_payload: 4 * 1_024 * 1_024 + 1 }, "/max_payload"],
    [{ retention: { failed: 3_650 * 86_400_000 + 1 } }, "/retention/failed"],
    [{ lease: "15s" }, "/lease"],
    [{ retention: { done: 1 } }, "/retention/done"],
    [{ retention: "7d" }, "/retention"],
    [{ max_payload: 1e9 }, "/max_payload"],
    [{ retry: { factor: 0.5 } }, "/retry/factor"],
    [{ retry: { initial_ms: 500, max_ms: 499 } }, "/retry/max_ms"],
    [{ retry: { max_ms: 999 } }, "/retry/max_ms"],
    [{ retry: { initial_ms: 300_001 } }, "/retry/initial_ms"],
    [{ nodes: 3 }, "/nodes"],
  ])("refuse %j", async (body, pointer) => {
    const { call, queue } = harness();
    const refused = await problem(await call("PUT", "/api/cluster/config", { body }));
    expect([refused.status, pointers(refused)]).toEqual([400, [pointer]]);
    expect(queue.calls).toEqual([]);
  });
});

test("the cluster is shown as the queue sees it", async () => {
  const response = await harness().call("GET", "/api/cluster");
  expect(await response.json()).toMatchObject({
    node_id: "n1",
    leader_id: "n1",
    term: 3,
    members: [{ id: "n1", voter: true }],
  });
});

test("workers are listed with times as text, and told to be quiet", async () => {
  const { call, queue } = harness();
  queue.workerViews = [
    {
      id: "n1/executors",
      member: "n1",
      principal: "anonymous",
      queues: null,
      names: ["x"],
      slots: 10,
      running: [{ task_id: uuidAt(NOW), name: "x", attempt: 1, started_at: NOW }],
      stuck: 1,
      kills: 2,
      restarts: 3,
      directive: "ok",
      last_seen_ms: 5,
    },
  ];
  expect(await (await call("GET", "/api/workers")).json()).toMatchObject({
    items: [{ id: "n1/executors", running: [{ started_at: "2026-11-24T12:00:00.000Z" }] }],
    next_cursor: null,
  });
  const quiet = await call("POST", "/api/workers/n1%2Fexecutors/quiet");
  expect([quiet.status, await quiet.json()]).toEqual([200, { status: "ok" }]);
  expect((await problem(await call("POST", "/api/workers/nobody/quiet"))).status).toBe(404);
});

test.each(["/api/cluster", "/api/workers", "/api/cluster/config", "/api/stats", "/api/tasks"])(
  "%s answers from the member's own state when asked to, and says how old that is",
  async (path) => {
    const { call, queue } = harness();
    const stale = await call("GET", `${path}?consistency=stale`);
    expect(stale.status).toBe(200);
    expect(stale.headers.get("flotilla-applied-index")).toBe("0");
    expect(stale.headers.get("flotilla-staleness-ms")).toBe("13");
    const fresh = await call("GET", path);
    expect([fresh.status, fresh.headers.get("flotilla-staleness-ms")]).toEqual([200, null]);
    const called = queue.calls.length;
    const refused = await problem(await call("GET", `${path}?consistency=old`));
    expect([refused.status, pointers(refused)]).toEqual([400, ["/query/consistency"]]);
    expect(queue.calls.length).toBe(called);
  },
);

describe("members", () => {
  const member = { id: "n4", url: "http://10.0.0.4:3000" };

  test("are added once, and their address is brought up to date", async () => {
    const { call, members } = harness();
    const added = await call("POST", "/api/cluster/members", { body: member });
    expect(added.status).toBe(201);
    expect(await added.json()).toMatchObject({ ...member, role: "learner", voter: false });
    const moved = { ...member, url: "https://Four.Example/", voter: true, replaces: "n2" };
    expect((await call("POST", "/api/cluster/members", { body: moved })).status).toBe(200);
    expect(members.known.get("n4")).toEqual({
      id: "n4",
      url: "https://four.example",
      voter: true,
      replaces: "n2",
    });
    expect((await call("DELETE", "/api/cluster/members/n4")).status).toBe(204);
    const gone = await problem(await call("DELETE", "/api/cluster/members/n4"));
    expect([gone.status, gone.code]).toEqual([404, "not-found"]);
  });

  test("leadership is handed to the one that is named", async () => {
    const { call, members } = harness();
    const response = await call("POST", "/api/cluster/transfer", { body: { to: "n2" } });
    expect([response.status, await response.json()]).toEqual([200, { leader_id: "n2" }]);
    expect(members.leader).toBe("n2");
  });

  test("an Idempotency-Key goes along, with the route that it belongs to", async () => {
    const { call, members } = harness();
    const headers = { "idempotency-key": "grow" };
    await call("POST", "/api/cluster/members", { body: member, headers });
    await call("POST", "/api/cluster/transfer", { body: { to: "n2" }, headers });
    expect(members.calls.map(({ scope }) => scope?.route)).toEqual([
      "POST /api/cluster/members",
      "POST /api/cluster/transfer",
    ]);
  });

  test.each([
    [{}, ["/id", "/url"]],
    [{ id: "N4", url: "http://a:1" }, ["/id"]],
    [{ id: "n4-".repeat(11), url: "http://a:1" }, ["/id"]],
    [{ id: "n4", url: "10.0.0.4:3000" }, ["/url"]],
    [{ id: "n4", url: "ftp://a" }, ["/url"]],
    [{ id: "n4", url: "http://a:1/path" }, ["/url"]],
    [{ id: "n4", url: "http://a:1/?x" }, ["/url"]],
    [{ id: "n4", url: "http://user@a:1" }, ["/url"]],
    [{ id: "n4", url: "http://0.0.0.0:1" }, ["/url"]],
    [{ id: "n4", url: "http://a:99999" }, ["/url"]],
    [{ id: 4, url: null, voter: "yes", replaces: "" }, ["/id", "/url", "/voter", "/replaces"]],
    [{ id: "n4", url: "http://a:1", role: "leader" }, ["/role"]],
  ])("%j is refused, and every bad field is named", async (body, expected) => {
    const { call, members } = harness();
    const refused = await problem(await call("POST", "/api/cluster/members", { body }));
    expect([refused.status, pointers(refused).toSorted()]).toEqual([400, expected.toSorted()]);
    expect(members.calls).toEqual([]);
  });

  test("what names no member is refused on the other routes too", async () => {
    const { call } = harness();
    for (const body of [{}, { to: "" }, { to: "N2" }, { to: ["n2"] }, { to: "n2", from: "n1" }])
      expect((await call("POST", "/api/cluster/transfer", { body })).status).toBe(400);
    expect((await call("DELETE", "/api/cluster/members/N%2F4")).status).toBe(400);
    expect((await call("DELETE", "/api/cluster/members/n4?force=1")).status).toBe(400);
    expect((await call("POST", "/api/cluster/members", { body: "{" })).status).toBe(400);
    expect((await call("PUT", "/api/cluster/members", { body: member })).status).toBe(405);
  });

  test.each([
    ["quorum-at-risk", 409, null],
    ["change-pending", 409, "1"],
    ["not-taken", 503, "1"],
    ["member-exists", 409, null],
  ] as const)("%s is answered with %i", async (code, status, retryAfter) => {
    const { call, members } = harness();
    members.fault = new MembershipError(code, "It would stop the cluster.");
    const response = await call("POST", "/api/cluster/members", { body: member });
    expect(response.headers.get("retry-after")).toBe(retryAfter);
    const said = await problem(response);
    expect([said.status, said.code, said.detail]).toEqual([
      status,
      code,
      "It would stop the cluster.",
    ]);
  });
});
