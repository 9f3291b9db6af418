import { describe, expect, test } from "bun:test";
import { LIMITS } from "../../src/queue/types.ts";
import { harness, NOW, pointers, problem, uuidAt, type Harness } from "./harness.ts";

interface Claimed {
  readonly tasks: readonly {
    readonly id: string;
    readonly attempt: number;
    readonly lease: { readonly worker: string; readonly attempt: number; readonly fence: number };
  }[];
  readonly directive: string;
}

/** A task that `w1` holds. */
async function held({ call }: Harness) {
  await call("POST", "/api/tasks", { body: '{"name":"x","payload":1.0}' });
  const response = await call("POST", "/api/leases/claim", { body: { worker_id: "w1" } });
  const [task] = ((await response.json()) as Claimed).tasks;
  if (task === undefined) throw new Error("nothing was claimed");
  const { attempt, fence } = task.lease;
  return {
    id: task.id,
    ref: { worker_id: "w1", attempt, fence },
    path: `/api/leases/${task.id}`,
  };
}

describe("claiming", () => {
  test("returns tasks with lease, times as text and the payload as sent", async () => {
    const { call } = harness();
    await call("POST", "/api/tasks", { body: '{"name":"x","payload":{ "n":1e400 }}' });
    const response = await call("POST", "/api/leases/claim", { body: { worker_id: "w", max: 5 } });
    const text = await response.text();
    expect(text).toContain('"payload":{ "n":1e400 },');
    const { tasks, directive } = JSON.parse(text) as Claimed;
    expect(directive).toBe("ok");
    expect(tasks[0]?.lease).toEqual({
      worker: "w",
      attempt: 1,
      fence: 1,
      expires_at: "2026-11-24T12:00:15.000Z",
    } as never);
  });

  test("hands everything over, with a request id of its own when none is given", async () => {
    const { call, queue } = harness();
    await call("POST", "/api/leases/claim", {
      body: {
        worker_id: "w",
        request_id: "r1",
        queues: ["q"],
        names: ["m", "n"],
        max: 7,
        wait_ms: 0,
      },
    });
    expect(queue.lastClaim).toEqual({
      worker_id: "w",
      request_id: "r1",
      principal: "anonymous",
      queues: ["q"],
      names: ["m", "n"],
      star: false,
      max: 7,
      local: null,
    });
    await call("POST", "/api/leases/claim", { body: { worker_id: "w" } });
    const first = queue.lastClaim?.request_id;
    await call("POST", "/api/leases/claim", { body: { worker_id: "w" } });
    expect(queue.lastClaim?.request_id).not.toBe(first ?? "");
  });

  test("waits for a task", async () => {
    const { call } = harness();
    const waiting = call("POST", "/api/leases/claim", {
      body: { worker_id: "w", wait_ms: 60_000 },
    });
    await Bun.sleep(1);
    await call("POST", "/api/tasks", { body: { name: "x" } });
    // The fake wakes its waiters when a task changes, not when it is made.
    await call("DELETE", `/api/tasks/${uuidAt(NOW)}`);
    const other = await call("POST", "/api/tasks", { body: { name: "y" } });
    await call("DELETE", other.headers.get("location") ?? "");
    expect(((await (await waiting).json()) as Claimed).tasks.length).toBe(1);
  });

  test.each([
    [{}, "/worker_id"],
    [{ worker_id: "" }, "/worker_id"],
    [{ worker_id: "w\n" }, "/worker_id"],
    [{ worker_id: "w", max: 0 }, "/max"],
    [{ worker_id: "w", max: 1_001 }, "/max"],
    [{ worker_id: "w", wait_ms: 60_001 }, "/wait_ms"],
    [{ worker_id: "w", wait_ms: 0.5 }, "/wait_ms"],
    [{ worker_id: "w", queues: "default" }, "/queues"],
    [{ worker_id: "w", queues: [] }, "/queues"],
    [{ worker_id: "w", names: ["a", 1] }, "/names/1"],
    [{ worker_id: "w", lease_ms: 5 }, "/lease_ms"],
  ])("refuses %j", async (body, pointer) => {
    const { call, queue } = harness();
    const refused = await problem(await call("POST", "/api/leases/claim", { body }));
    expect([refused.status, pointers(refused)]).toEqual([400, [pointer]]);
    expect(queue.calls).toEqual([]);
  });
});

describe("heartbeats", () => {
  test("answer per lease, in order, and take progress", async () => {
    const setup = harness();
    const { id, ref } = await held(setup);
    const beat = async () => {
      const response = await setup.call("POST", "/api/leases/heartbeat", {
        body: {
          worker_id: "w1",
          leases: [
            { task_id: id, attempt: 1, fence: ref.fence, progress: { percent: 12.5 } },
            { task_id: uuidAt(NOW, 99), attempt: 1, fence: 1 },
          ],
        },
      });
      return (await response.json()) as unknown;
    };
    expect(await beat()).toEqual({
      leases: [
        { task_id: id, status: "ok" },
        { task_id: uuidAt(NOW, 99), status: "lost" },
      ],
      directive: "ok",
    });
    expect(setup.queue.lastProgress.map((lease) => lease.progress)).toEqual([
      { percent: 12.5, message: null },
      undefined,
    ]);
    await setup.call("DELETE", `/api/tasks/${id}`);
    expect(await beat()).toMatchObject({ leases: [{ status: "cancel" }, { status: "lost" }] });
  });

  test("refuse progress over 100 and name it", async () => {
    const lease = { task_id: uuidAt(NOW), attempt: 1, fence: 1, progress: { percent: 101 } };
    const body = { worker_id: "w", leases: [lease] };
    const refused = await problem(await harness().call("POST", "/api/leases/heartbeat", { body }));
    expect(pointers(refused)).toEqual(["/leases/0/progress/percent"]);
  });
});

describe("ending a lease", () => {
  test.each(["complete", "fail", "snooze", "release"])(
    "%s is 200 once, and 409 stale-lease when the lease is over",
    async (verb) => {
      const setup = harness();
      const { ref, path } = await held(setup);
      const body = {
        ...ref,
        ...(verb === "complete" ? { result: 1 } : {}),
        ...(verb === "fail" ? { error: "x" } : {}),
        ...(verb === "snooze" ? { delay_ms: 5 } : {}),
      };
      const first = await setup.call("POST", `${path}/${verb}`, { body });
      expect([first.status, await first.json()]).toEqual([200, { status: "ok" }]);
      const again = await problem(await setup.call("POST", `${path}/${verb}`, { body }));
      expect([again.status, again.code]).toEqual([409, "stale-lease"]);
    },
  );

  test("of a task that is being cancelled is 409 cancelled", async () => {
    const setup = harness();
    const { id, ref, path } = await held(setup);
    await setup.call("DELETE", `/api/tasks/${id}`);
    const refused = await problem(await setup.call("POST", `${path}/complete`, { body: ref }));
    expect([refused.status, refused.code]).toEqual([409, "cancelled"]);
  });

  test("by another worker is 403, of an unknown task 404, of a malformed id 400", async () => {
    const setup = harness();
    const { ref, path } = await held(setup);
    const stranger = { ...ref, worker_id: "w2" };
    const forbidden = await problem(
      await setup.call("POST", `${path}/complete`, { body: stranger }),
    );
    expect([forbidden.status, forbidden.code]).toEqual([403, "forbidden"]);
    const unknown = await setup.call("POST", `/api/leases/${uuidAt(NOW, 50)}/complete`, {
      body: ref,
    });
    expect((await problem(unknown)).status).toBe(404);
    const malformed = await problem(
      await setup.call("POST", "/api/leases/x/complete", { body: ref }),
    );
    expect([malformed.status, pointers(malformed)]).toEqual([400, ["/path/task_id"]]);
  });

  test("keeps the result as it was sent, and none apart from null", async () => {
    const setup = harness();
    const { id, ref, path } = await held(setup);
    const body = `{"worker_id":"w1","attempt":${ref.attempt},"fence":${ref.fence},"result":{ "x":1.00 }}`;
    expect((await setup.call("POST", `${path}/complete`, { body })).status).toBe(200);
    expect(await (await setup.call("GET", `/api/tasks/${id}`)).text()).toContain(
      '"result":{ "x":1.00 },',
    );
    const other = await held(setup);
    await setup.call("POST", `${other.path}/complete`, { body: other.ref });
    expect(setup.queue.lastEnd).toEqual({ kind: "complete", result: null });
  });

  test("with a result over the limit is 413 and names it, alone and in bulk", async () => {
    const setup = harness();
    setup.queue.current = { ...setup.queue.current, max_payload: 3 };
    const { id, ref, path } = await held(setup);
    const alone = await problem(
      await setup.call("POST", `${path}/complete`, { body: { ...ref, result: 1234 } }),
    );
    expect([alone.status, alone.code, pointers(alone)]).toEqual([
      413,
      "result-too-large",
      ["/result"],
    ]);
    const item = { task_id: id, attempt: ref.attempt, fence: ref.fence };
    const body = {
      worker_id: "w1",
      items: [
        { ...item, result: 1 },
        { ...item, result: 1234 },
      ],
    };
    const bulk = await problem(await setup.call("POST", "/api/leases/complete", { body }));
    expect([bulk.status, pointers(bulk)]).toEqual([413, ["/items/1/result"]]);
    expect(setup.queue.calls).not.toContain("end");
  });

  test("in bulk answers per item, in order", async () => {
    const setup = harness();
    const one = await held(setup);
    const two = await held(setup);
    const item = ({ id, ref }: typeof one) => ({
      task_id: id,
      attempt: ref.attempt,
      fence: ref.fence,
    });
    const body = {
      worker_id: "w1",
      items: [{ ...item(two), result: [2] }, { ...item(one), fence: 999 }, item(one)],
    };
    const response = await setup.call("POST", "/api/leases/complete", { body });
    expect(await response.json()).toEqual({
      items: [
        { task_id: two.id, status: "ok" },
        { task_id: one.id, status: "stale-lease" },
        { task_id: one.id, status: "ok" },
      ],
    });
  });

  test.each(["fail", "release"])(
    "%s in bulk under a key is answered as the first time",
    async (verb) => {
      const setup = harness();
      const { id, ref } = await held(setup);
      const error = verb === "fail" ? { error: "x" } : {};
      const item = { task_id: id, attempt: ref.attempt, fence: ref.fence, ...error };
      const send = (items: unknown[]) =>
        setup.call("POST", `/api/leases/${verb}`, {
          body: { worker_id: "w1", items },
          headers: { "idempotency-key": "k" },
        });
      const first = await send([item]);
      const again = await send([item]);
      expect(await again.json()).toEqual(await first.json());
      expect(first.headers.get("idempotency-replayed")).toBeNull();
      expect(again.headers.get("idempotency-replayed")).toBe("true");
      expect((await problem(await send([item, item]))).status).toBe(422);
    },
  );

  test("fail and release in bulk answer per item, in order, in one call of the queue", async () => {
    for (const verb of ["fail", "release"]) {
      const setup = harness();
      const one = await held(setup);
      const two = await held(setup);
      const three = await held(setup);
      await setup.call("DELETE", `/api/tasks/${three.id}`);
      const item = ({ id, ref }: typeof one, more = {}) => ({
        task_id: id,
        attempt: ref.attempt,
        fence: ref.fence,
        ...(verb === "fail" ? { error: "x" } : {}),
        ...more,
      });
      const items = [
        item(two, verb === "fail" ? { error: { message: "m" }, retryable: false } : {}),
        item(one, { fence: 999 }),
        item(three),
        item(one, verb === "fail" ? { retry_after_ms: 5 } : {}),
        item(one, { task_id: uuidAt(NOW, 77) }),
      ];
      const body = { worker_id: "w1", items };
      const response = await setup.call("POST", `/api/leases/${verb}`, { body });
      expect([response.status, await response.json()]).toEqual([
        200,
        {
          items: [
            { task_id: two.id, status: "ok" },
            { task_id: one.id, status: "stale-lease" },
            // A release confirms a cancel.
            { task_id: three.id, status: verb === "fail" ? "cancelled" : "ok" },
            { task_id: one.id, status: "ok" },
            { task_id: uuidAt(NOW, 77), status: "not-found" },
          ],
        },
      ]);
      expect(setup.queue.calls.filter((call) => call === "end")).toHaveLength(1);
      const task = (await (await setup.call("GET", `/api/tasks/${two.id}`)).json()) as {
        status: string;
        last_error: unknown;
      };
      if (verb === "release") expect(task.status).toBe("Pending");
      else {
        const last_error = { type: "Error", message: "m", stack: null, retryable: false };
        expect(task).toMatchObject({ status: "Failed", last_error });
      }
      const stranger = { worker_id: "w2", items: [item(one)] };
      const forbidden = await setup.call("POST", `/api/leases/${verb}`, { body: stranger });
      expect(((await forbidden.json()) as { items: { status: string }[] }).items[0]?.status).toBe(
        "stale-lease",
      );
    }
  });

  test.each([
    [
      "fail",
      { items: [{}] },
      ["/worker_id", "/items/0/task_id", "/items/0/attempt", "/items/0/fence", "/items/0/error"],
    ],
    ["fail", { worker_id: "w", items: [] }, ["/items"]],
    ["release", { worker_id: "w", items: [] }, ["/items"]],
    ["release", { worker_id: "w" }, ["/items"]],
    [
      "release",
      { worker_id: "w", items: [{ task_id: uuidAt(NOW), attempt: 1, fence: 1, error: "x" }] },
      ["/items/0/error"],
    ],
  ])("%s in bulk refuses %j and changes nothing", async (verb, body, named) => {
    const { call, queue } = harness();
    const refused = await problem(await call("POST", `/api/leases/${verb}`, { body }));
    expect([refused.status, pointers(refused).toSorted()]).toEqual([400, named.toSorted()]);
    expect(queue.calls).toEqual([]);
  });

  test("a failure takes text or an object, cuts what is too long, and is retryable unless it says otherwise", async () => {
    const setup = harness();
    const report = async (error: unknown, more = {}) => {
      const { ref, path } = await held(setup);
      const response = await setup.call("POST", `${path}/fail`, {
        body: { ...ref, error, ...more },
      });
      expect(response.status).toBe(200);
      return setup.queue.lastEnd as {
        error: { message: string; stack: string };
        [key: string]: unknown;
      };
    };
    expect(await report("boom")).toEqual({
      kind: "fail",
      error: { type: "Error", message: "boom", stack: null, retryable: true } as never,
      retry_after_ms: null,
      crashed: false,
    });
    const full = await report(
      { type: "TypeError", message: "m", stack: "s" },
      { retryable: false, retry_after_ms: 250 },
    );
    expect(full).toMatchObject({
      error: { type: "TypeError", message: "m", stack: "s", retryable: false },
      retry_after_ms: 250,
    });
    const { error } = await report({ message: "é".repeat(5_000), stack: "s".repeat(20_000) });
    expect(Buffer.byteLength(error.message)).toBeLessThanOrEqual(LIMITS.errorMessage);
    expect(Buffer.byteLength(error.stack)).toBeLessThanOrEqual(LIMITS.errorStack);
    expect(error.message).toEndWith("… [cut]");
  });

  test.each([
    ["fail", { error: 5 }, "/error"],
    ["fail", { error: null }, "/error"],
    ["fail", {}, "/error"],
    ["fail", { error: { message: 1 } }, "/error/message"],
    ["fail", { error: { message: "m", code: 1 } }, "/error/code"],
    ["fail", { error: "x", retryable: "no" }, "/retryable"],
    ["fail", { error: "x", retry_after_ms: -1 }, "/retry_after_ms"],
    ["snooze", {}, "/delay_ms"],
    ["snooze", { delay_ms: "5" }, "/delay_ms"],
    ["complete", { fence: "1" }, "/fence"],
    ["complete", { attempt: -1 }, "/attempt"],
    ["release", { result: 1 }, "/result"],
    ["logs", { lines: "x" }, "/lines"],
    ["logs", { lines: [] }, "/lines"],
    ["logs", { lines: ["ok", 1] }, "/lines/1"],
  ])("%s with %j names what is wrong", async (verb, more, pointer) => {
    const body = { worker_id: "w", attempt: 1, fence: 1, ...more };
    const response = await harness().call("POST", `/api/leases/${uuidAt(NOW)}/${verb}`, { body });
    const refused = await problem(response);
    expect([refused.status, pointers(refused)]).toEqual([400, [pointer]]);
  });
});

test("log lines are appended by the holder, read in pages, and counted as attempts' own", async () => {
  const setup = harness();
  const { id, ref, path } = await held(setup);
  const lines = ["one", "<b>two</b>", "three"];
  expect((await setup.call("POST", `${path}/logs`, { body: { ...ref, lines } })).status).toBe(200);
  const first = await setup.call("GET", `/api/tasks/${id}/logs?limit=2`);
  const page = (await first.json()) as { items: unknown[]; next_cursor: string | null };
  expect(page.items).toEqual([
    { attempt: 1, at: "2026-11-24T12:00:00.000Z", line: "one" },
    { attempt: 1, at: "2026-11-24T12:00:00.000Z", line: "<b>two</b>" },
  ]);
  const second = await setup.call(
    "GET",
    `/api/tasks/${id}/logs?limit=2&cursor=${page.next_cursor}`,
  );
  expect(await second.json()).toMatchObject({ items: [{ line: "three" }], next_cursor: null });
  const foreign = await setup.call(
    "GET",
    `/api/tasks/${uuidAt(NOW, 77)}/logs?cursor=${page.next_cursor}`,
  );
  expect(pointers(await problem(foreign))).toEqual(["/query/cursor"]);
  const attempts = await setup.call("GET", `/api/tasks/${id}/attempts`);
  expect(await attempts.json()).toMatchObject({
    items: [{ attempt: 1, started_at: "2026-11-24T12:00:00.000Z", finished_at: null }],
    next_cursor: null,
  });
  const stranger = { ...ref, worker_id: "w2", lines };
  expect((await setup.call("POST", `${path}/logs`, { body: stranger })).status).toBe(403);
});
