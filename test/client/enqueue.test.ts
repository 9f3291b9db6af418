import { describe, expect, test } from "bun:test";
import {
  FlotillaClient,
  FlotillaError,
  PartlyEnqueuedError,
  type TaskHandle,
} from "../../src/client/index.ts";
import {
  accepted,
  clientOf,
  cuttingMember,
  problem,
  ScriptedMember,
  submitted,
} from "./scripted-member.ts";

const UUID7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** What `promise` is rejected with. */
async function refusal(promise: Promise<unknown>): Promise<FlotillaError> {
  const error = await promise.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  if (error instanceof FlotillaError) return error;
  throw new Error(`not refused with a FlotillaError: ${String(error)}`);
}

const ids = (handles: readonly TaskHandle[]): string[] => handles.map(({ id }) => id);

describe("Gathering", () => {
  test("a lone call is a request of its own, with an id made here and the options as given", async () => {
    await using member = new ScriptedMember(accepted);
    using client = clientOf([member], { token: "t0p" });
    const runAt = new Date("2031-01-02T03:04:05Z");
    const handle = await client.enqueue("mail", { to: "x" }, { priority: 9, run_at: runAt });
    expect(handle.id).toMatch(UUID7);
    expect(member.asked).toHaveLength(1);
    expect(member.asked[0]).toMatchObject({ method: "POST", path: "/api/tasks" });
    expect(member.asked[0]?.headers.get("authorization")).toBe("Bearer t0p");
    expect(member.asked[0]?.body).toEqual({
      id: handle.id,
      name: "mail",
      payload: { to: "x" },
      priority: 9,
      run_at: "2031-01-02T03:04:05.000Z",
    });
  });

  test("calls of one turn leave together, in their order", async () => {
    await using member = new ScriptedMember(accepted);
    using client = clientOf([member]);
    const handles = await Promise.all([1, 2, 3].map((n) => client.enqueue("n", n)));
    expect(member.asked.map(({ path }) => path)).toEqual(["/api/tasks/bulk"]);
    expect(member.submits[0]?.map(({ payload }) => payload)).toEqual([1, 2, 3]);
    expect(member.submits[0]?.map(({ id }) => id)).toEqual(ids(handles));
    expect(new Set(ids(handles)).size).toBe(3);
  });

  test("calls that come while a request is under way share the next one", async () => {
    const gate = Promise.withResolvers<void>();
    await using member = new ScriptedMember(async (_, index) => {
      if (index === 0) await gate.promise;
      return accepted();
    });
    using client = clientOf([member]);
    const first = client.enqueue("n", 0);
    while (member.asked.length === 0) await Bun.sleep(1);
    const others = [1, 2, 3].map((n) => client.enqueue("n", n));
    gate.resolve();
    await Promise.all([first, ...others]);
    expect(member.submits.map((tasks) => tasks.map(({ payload }) => payload))).toEqual([
      [0],
      [1, 2, 3],
    ]);
  });

  test("a request that is never answered holds up nobody else", async () => {
    const gate = Promise.withResolvers<void>();
    await using member = new ScriptedMember(async (_, index) => {
      if (index === 0) await gate.promise;
      return accepted();
    });
    using client = clientOf([member]);
    const stuck = client.enqueue("n", 0);
    while (member.asked.length === 0) await Bun.sleep(1);
    await client.enqueue("n", 1);
    gate.resolve();
    await stuck;
  });

  test("a request holds 1,000 tasks and 4 MiB at most", async () => {
    await using member = new ScriptedMember(accepted);
    using client = clientOf([member]);
    // Requests that leave together arrive in any order.
    const sizes = (): number[] =>
      member.submits.map((tasks) => tasks.length).toSorted((a, b) => b - a);
    await Promise.all(Array.from({ length: 2_300 }, (_, n) => client.enqueue("n", n)));
    expect(sizes()).toEqual([1_000, 1_000, 300]);
    member.asked.length = 0;
    const big = "x".repeat(1_500_000);
    await Promise.all([1, 2, 3, 4, 5].map(() => client.enqueue("n", big)));
    for (const { text } of member.asked) expect(text.length).toBeLessThan(4 * 1024 * 1024);
    expect(sizes()).toEqual([2, 2, 1]);
  });

  test("the same id given twice in a turn makes two requests, for one may not hold it twice", async () => {
    await using member = new ScriptedMember(accepted);
    using client = clientOf([member]);
    const id = "0192f6f1-7c3a-7d1e-9b52-3f6c1a2b4c5d";
    await Promise.all([client.enqueue("n", 1, { id }), client.enqueue("n", 1, { id })]);
    expect(member.submits.map((tasks) => tasks.map((task) => task.id))).toEqual([[id], [id]]);
  });

  test("a payload is serialised once, however often it is sent", async () => {
    await using member = new ScriptedMember((_, index) =>
      index < 2 ? problem(503, "no-leader") : accepted(),
    );
    using client = clientOf([member]);
    let serialised = 0;
    await client.enqueue("n", { toJSON: () => ++serialised });
    expect(member.submits.map(([task]) => task?.payload)).toEqual([1, 1, 1]);
  });

  test("what is not JSON is refused at once, and alone", async () => {
    await using member = new ScriptedMember(accepted);
    using client = clientOf([member]);
    const cycle: Record<string, unknown> = {};
    cycle["self"] = cycle;
    const bad = [cycle, 1n, () => 1, Symbol("s")].map((payload) => client.enqueue("n", payload));
    const good = client.enqueue("n", "fine");
    for (const promise of bad) expect((await refusal(promise)).code).toBe("invalid-payload");
    const tooLarge = await refusal(client.enqueue("n", "é".repeat(5_000_000)));
    expect(tooLarge).toMatchObject({ code: "body-too-large", status: 413 });
    await good;
    expect(member.submits.flat().map(({ payload }) => payload)).toEqual(["fine"]);
  });

  test("more calls than it keeps are refused, not kept", async () => {
    const gate = Promise.withResolvers<void>();
    await using member = new ScriptedMember(async () => {
      await gate.promise;
      return accepted();
    });
    using client = clientOf([member], { maxWaiting: 50 });
    const outcomes = Array.from({ length: 52 }, () =>
      client.enqueue("n").then(
        () => "ok",
        (error: unknown) => (error as FlotillaError).code,
      ),
    );
    expect(await outcomes[50]).toBe("client-overloaded");
    expect(await outcomes[51]).toBe("client-overloaded");
    gate.resolve();
    expect(new Set(await Promise.all(outcomes.slice(0, 50)))).toEqual(new Set(["ok"]));
  });
});

describe("A refusal within a gathered request", () => {
  test("that names tasks is told to their callers only, as if each had been sent alone", async () => {
    await using member = new ScriptedMember((asked) => {
      const errors = submitted(asked).flatMap(({ name }, index) =>
        name === "" ? [{ pointer: `/tasks/${index}/name`, detail: "must not be empty" }] : [],
      );
      return errors.length > 0 ? problem(400, "invalid-request", errors) : accepted();
    });
    using client = clientOf([member]);
    const [a, bad, c, worse] = ["a", "", "c", ""].map((name) => client.enqueue(name));
    if (!a || !bad || !c || !worse) throw new Error("four calls");
    for (const promise of [bad, worse]) {
      const error = await refusal(promise);
      expect(error).toMatchObject({ code: "invalid-request", status: 400, requestId: "r1" });
      expect(error.errors).toEqual([{ pointer: "/name", detail: "must not be empty" }]);
      expect(error.message).toBe("/name: must not be empty");
    }
    const good = ids(await Promise.all([a, c]));
    expect(member.submits[1]?.map(({ id }) => id)).toEqual(good);
    expect(member.asked).toHaveLength(2);
  });

  test("that names none is found by halving", async () => {
    const taken = "0192f6f1-7c3a-7d1e-9b52-3f6c1a2b4c5d";
    await using member = new ScriptedMember((asked) =>
      submitted(asked).some(({ id }) => id === taken)
        ? problem(409, "id-conflict", [{ pointer: "/id", detail: "taken" }])
        : accepted(),
    );
    using client = clientOf([member]);
    const calls = Array.from({ length: 20 }, (_, n) =>
      client.enqueue("n", n, n === 13 ? { id: taken } : {}),
    );
    const conflict = calls.splice(13, 1)[0];
    if (conflict === undefined) throw new Error("the 13th");
    expect(await refusal(conflict)).toMatchObject({ code: "id-conflict", status: 409 });
    expect(await Promise.all(calls)).toHaveLength(19);
    expect(member.asked.length).toBeLessThan(12);
  });

  test("that is about the caller is told to all", async () => {
    await using member = new ScriptedMember(() => problem(403, "forbidden"));
    using client = clientOf([member]);
    for (const promise of [client.enqueue("a"), client.enqueue("b")])
      expect(await refusal(promise)).toMatchObject({ code: "forbidden", status: 403 });
    expect(member.asked).toHaveLength(1);
  });

  test("of an id for its time is mended with the members' clock, unless the id may be in use", async () => {
    const theirs = Date.now() - 3_600_000 * 5;
    const tooNew = (id: string): boolean =>
      Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16) > theirs + 10_000;
    const late = { date: new Date(theirs).toUTCString() };
    await using member = new ScriptedMember((asked) => {
      const errors = submitted(asked).flatMap(({ id }, index) =>
        tooNew(id)
          ? [
              {
                pointer: asked.path === "/api/tasks" ? "/id" : `/tasks/${index}/id`,
                detail: "is of the future",
              },
            ]
          : [],
      );
      return errors.length > 0
        ? problem(400, "invalid-request", errors, late)
        : Response.json({}, { status: 201, headers: late });
    });
    using client = clientOf([member]);
    const handles = await Promise.all([client.enqueue("a"), client.enqueue("b")]);
    expect(ids(handles).map(tooNew)).toEqual([false, false]);
    expect(tooNew((await client.enqueue("c")).id)).toBe(false);
    expect(member.asked).toHaveLength(3);
    const own = "ffffffff-7c3a-7d1e-9b52-3f6c1a2b4c5d";
    expect((await refusal(client.enqueue("d", 1, { id: own }))).errors[0]?.pointer).toBe("/id");
  });

  test("of an id for its time is final when an earlier try may have been accepted", async () => {
    using cutting = cuttingMember();
    await using member = new ScriptedMember(() =>
      problem(400, "invalid-request", [{ pointer: "/id", detail: "is of the future" }]),
    );
    using client = clientOf([cutting, member]);
    expect(await refusal(client.enqueue("a"))).toMatchObject({ status: 400 });
    expect(cutting.cuts()).toBeGreaterThan(0);
    expect(new Set(member.submits.flat().map(({ id }) => id)).size).toBe(1);
  });
});

describe("Members that do not answer", () => {
  test("the next one is asked for the same task under the same id, and is kept", async () => {
    using cutting = cuttingMember();
    await using member = new ScriptedMember(accepted);
    const gone = "http://127.0.0.1:1";
    using client = clientOf([{ url: gone }, cutting, member]);
    const handle = await client.enqueue("n", 1);
    expect(member.submits).toEqual([[{ id: handle.id, name: "n", payload: 1 }]]);
    const cuts = cutting.cuts();
    await client.enqueue("n", 2);
    expect(cutting.cuts()).toBe(cuts);
  });

  test("one that stays silent is left for the next one", async () => {
    await using silent = new ScriptedMember(() => new Promise<Response>(() => {}));
    await using member = new ScriptedMember(accepted);
    using client = clientOf([silent, member], { attemptTimeoutMs: 60 });
    const handle = await client.enqueue("n");
    expect(silent.submits.flat().map(({ id }) => id)).toEqual([handle.id]);
    expect(member.submits.flat().map(({ id }) => id)).toEqual([handle.id]);
  });

  test("503 is repeated at the next member, 429 nowhere before its Retry-After", async () => {
    await using leaderless = new ScriptedMember(() =>
      problem(503, "no-leader", undefined, { "retry-after": "30" }),
    );
    const refusedAt: number[] = [];
    await using busy = new ScriptedMember((_, index) => {
      refusedAt.push(performance.now());
      return index === 0
        ? problem(429, "overloaded", undefined, { "retry-after": "1" })
        : accepted();
    });
    using client = clientOf([leaderless, busy]);
    await client.enqueue("n");
    expect(leaderless.asked).toHaveLength(1);
    expect(busy.asked).toHaveLength(2);
    const [first = 0, second = 0] = refusedAt;
    expect(second - first).toBeGreaterThan(990);
  });

  test("when the time is up, the caller learns why, and whether the task may exist all the same", async () => {
    using cutting = cuttingMember();
    using client = clientOf([cutting], { timeoutMs: 150 });
    expect(await refusal(client.enqueue("n"))).toMatchObject({
      code: "timeout",
      outcomeUnknown: true,
    });
    await using refusing = new ScriptedMember(() => problem(503, "no-quorum"));
    // Long enough for waits between tries beside which a try is short: one that the time-out cuts has no answer to tell of.
    using other = clientOf([refusing], { timeoutMs: 1_000 });
    const error = await refusal(other.enqueue("n"));
    expect(error).toMatchObject({ code: "timeout", status: 503, outcomeUnknown: false });
    expect(error.message).toContain("it is no-quorum");
    expect(refusing.asked.length).toBeGreaterThan(1);
    using nobody = clientOf([{ url: "http://127.0.0.1:1" }], { timeoutMs: 100 });
    expect(await refusal(nobody.enqueue("n"))).toMatchObject({ outcomeUnknown: false });
  });

  test("what an earlier try left unknown stays unknown when a later one is refused", async () => {
    await using member = new ScriptedMember((_, index) => {
      if (index === 0) return problem(503, "outcome-unknown");
      if (index === 1)
        return problem(400, "invalid", [{ pointer: "/tasks/0/payload", detail: "it is odd" }]);
      return problem(403, "forbidden");
    });
    using client = clientOf([member], { timeoutMs: 5_000 });
    const [odd, other] = [refusal(client.enqueue("odd")), refusal(client.enqueue("other"))];
    expect(await odd).toMatchObject({ code: "invalid" });
    expect(await other).toMatchObject({ code: "forbidden", outcomeUnknown: true });
    expect(member.asked.length).toBe(3);
  });

  test("a Retry-After beyond the time left ends the call at once", async () => {
    await using member = new ScriptedMember(() =>
      problem(429, "queue-full", undefined, { "retry-after": "3600" }),
    );
    using client = clientOf([member]);
    expect(await refusal(client.enqueue("n"))).toMatchObject({ code: "timeout", status: 429 });
  });

  test("a limit that waiting does not lift, and an internal error, are not repeated", async () => {
    await using member = new ScriptedMember((_, index) =>
      index === 0 ? problem(429, "names-full") : problem(500, "internal"),
    );
    using client = clientOf([member]);
    expect((await refusal(client.enqueue("n"))).code).toBe("names-full");
    expect(await refusal(client.enqueue("n"))).toMatchObject({
      code: "internal",
      outcomeUnknown: true,
    });
    expect(member.asked).toHaveLength(2);
  });

  test("a proxy's page is told as what it is", async () => {
    await using member = new ScriptedMember(() => new Response("<h1>no</h1>", { status: 404 }));
    using client = clientOf([member]);
    const error = await refusal(client.enqueue("n"));
    expect(error).toMatchObject({ code: "unexpected-answer", status: 404 });
    expect(error.message).toContain("<h1>no</h1>");
  });

  test("after close() every call is refused, those under way too", async () => {
    await using silent = new ScriptedMember(() => new Promise<Response>(() => {}));
    using client = clientOf([silent]);
    const calls = [refusal(client.enqueue("n")), refusal(client.stats())];
    while (silent.asked.length < 2) await Bun.sleep(1);
    calls.push(refusal(client.enqueue("m")));
    client.close();
    calls.push(refusal(client.enqueue("o")), refusal(client.get("x")));
    expect((await Promise.all(calls)).map(({ code }) => code)).toEqual(calls.map(() => "closed"));
  });
});

describe("enqueueMany", () => {
  test("sends requests of 1,000, all or nothing each, and keeps the order", async () => {
    await using member = new ScriptedMember(accepted);
    using client = clientOf([member]);
    const tasks = Array.from({ length: 2_500 }, (_, n) => ({ name: "n", payload: n, priority: 1 }));
    const handles = await client.enqueueMany(tasks);
    expect(member.submits.map((sent) => sent.length).toSorted((a, b) => a - b)).toEqual([
      500, 1_000, 1_000,
    ]);
    const byId = new Map(member.submits.flat().map((task) => [task.id, task.payload]));
    expect(handles.map(({ id }) => byId.get(id))).toEqual(tasks.map(({ payload }) => payload));
    expect(await client.enqueueMany([])).toEqual([]);
  });

  test("names the bad task by its place in the whole, and what was accepted before", async () => {
    await using member = new ScriptedMember((asked) => {
      const at = submitted(asked).findIndex(({ name }) => name === "");
      if (at < 0) return accepted();
      return problem(400, "invalid-request", [{ pointer: `/tasks/${at}/name`, detail: "empty" }]);
    });
    using client = clientOf([member]);
    const tasks = Array.from({ length: 1_500 }, (_, n) => ({ name: n === 1_234 ? "" : "n" }));
    const error = await refusal(client.enqueueMany(tasks));
    expect(error).toBeInstanceOf(PartlyEnqueuedError);
    expect(error.errors).toEqual([{ pointer: "/tasks/1234/name", detail: "empty" }]);
    expect((error as PartlyEnqueuedError).accepted).toHaveLength(1_000);
    const alone = await refusal(client.enqueueMany([{ name: "" }]));
    expect(alone).not.toBeInstanceOf(PartlyEnqueuedError);
  });
});

test("bad options are refused by name when the client is made", () => {
  const made = (urls: string | string[], rest: object = {}) => {
    return () => new FlotillaClient({ urls, ...rest });
  };
  expect(made([])).toThrow(/urls/);
  expect(made("")).toThrow(/urls/);
  expect(made("ftp://x")).toThrow(/neither http nor https/);
  expect(made("nonsense")).toThrow(/not a URL/);
  expect(made("http://a:b@x")).toThrow(/address and a path/);
  expect(made("http://x", { timeoutMs: 0 })).toThrow(/timeoutMs/);
  expect(made("http://x", { timeoutMs: Number.NaN })).toThrow(/timeoutMs/);
  expect(made("http://x", { maxWaiting: 0 })).toThrow(/maxWaiting/);
  expect(made("http://x", { token: "a\nb" })).toThrow(/token/);
  expect(made("http://x, http://y/prefix/")).not.toThrow();
});
