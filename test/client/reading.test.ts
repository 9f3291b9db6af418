import { describe, expect, test } from "bun:test";
import { FlotillaError, TaskEndedError } from "../../src/client/index.ts";
import { clientOf, problem, ScriptedMember } from "./scripted-member.ts";

const ID = "0192f6f1-7c3a-7d1e-9b52-3f6c1a2b4c5d";
const task = (status: string, rest: object = {}): Response =>
  Response.json({
    id: ID,
    name: "n",
    status,
    detail: null,
    last_error: null,
    result: null,
    ...rest,
  });
const never = new Promise<Response>(() => {});

describe("result()", () => {
  test("asks again until the task is final, at whichever member answers", async () => {
    await using first = new ScriptedMember((_, index) =>
      index === 0 ? task("Running") : problem(503, "stopping"),
    );
    await using second = new ScriptedMember(() => task("Completed", { result: { n: 1 } }));
    using client = clientOf([first, second]);
    expect(await client.handle<{ n: number }>(ID).result()).toEqual({ n: 1 });
    expect(first.asked.map(({ path }) => path)).toEqual([
      `/api/tasks/${ID}?wait=20.000`,
      `/api/tasks/${ID}?wait=20.000`,
    ]);
  });

  test("says how a task ended that has no result", async () => {
    await using member = new ScriptedMember((_, index) =>
      index === 0
        ? task("Failed", { detail: "exhausted", last_error: { message: "no disk" } })
        : task("Cancelled", { detail: "user" }),
    );
    using client = clientOf([member]);
    const thrown = async (): Promise<TaskEndedError> => {
      const error = await client.result(ID).catch((caught: unknown) => caught);
      if (error instanceof TaskEndedError) return error;
      throw new Error(`not a TaskEndedError: ${String(error)}`);
    };
    const failed = await thrown();
    expect(failed).toMatchObject({ code: "task-failed", task: { detail: "exhausted" } });
    expect(failed.message).toContain("no disk");
    expect((await thrown()).code).toBe("task-cancelled");
  });

  test("ends with the time given, with its signal, and with the task", async () => {
    await using member = new ScriptedMember(({ path }) =>
      path.includes("gone") ? problem(404, "not-found") : task("Pending"),
    );
    using client = clientOf([member]);
    const code = (promise: Promise<unknown>): Promise<unknown> =>
      promise.catch((error: unknown) => (error as FlotillaError).code);
    expect(await code(client.result(ID, { timeoutMs: 30 }))).toBe("timeout");
    expect(await code(client.result(ID, { signal: AbortSignal.abort() }))).toBe("aborted");
    expect(await code(client.result("gone"))).toBe("not-found");
    member.script = () => never;
    const controller = new AbortController();
    const waiting = code(client.result(ID, { signal: controller.signal }));
    controller.abort();
    expect(await waiting).toBe("aborted");
  });

  test("holds 128 connections at most; the waits beyond take turns, and have their own time", async () => {
    let held = 0;
    let mostHeld = 0;
    const isFinal = new Set<string>();
    await using member = new ScriptedMember(async ({ path }) => {
      const [, id = "", wait = "0"] = /^\/api\/tasks\/(.*)\?wait=(.*)$/.exec(path) ?? [];
      held += 1;
      mostHeld = Math.max(mostHeld, held);
      // A held poll in a hurry.
      for (let left = Number(wait) * 20; left > 0 && !isFinal.has(id); left--) await Bun.sleep(1);
      held -= 1;
      return isFinal.has(id) ? task("Completed", { result: id }) : task("Running");
    });
    using client = clientOf([member]);
    const ids = Array.from({ length: 300 }, (_, n) => `t${n}`);
    const results = ids.map((id) => client.result(id));
    const late = client.result("late", { timeoutMs: 5 }).catch((error: unknown) => error);
    expect(await late).toMatchObject({ code: "timeout" });
    isFinal.add("t299");
    expect(await results[299]).toBe("t299");
    for (const id of ids) isFinal.add(id);
    expect(await Promise.all(results)).toEqual(ids);
    expect(mostHeld).toBeLessThanOrEqual(128);
    expect(mostHeld).toBeGreaterThan(64);
  });
});

describe("Other calls", () => {
  test("list() walks the pages as far as it is consumed", async () => {
    await using member = new ScriptedMember((_, index) =>
      Response.json(
        [{ id: `${index}a` }, { id: `${index}b` }],
        index < 3 ? { headers: { link: `</api/tasks?cursor=c${index}>; rel="next"` } } : {},
      ),
    );
    using client = clientOf([member]);
    const ids: string[] = [];
    for await (const { id } of client.list({
      status: ["Failed", "Cancelled"],
      created_after: new Date(0),
      payload: { "user.id": 7 },
      page_size: 2,
    })) {
      ids.push(id);
      if (ids.length === 3) break;
    }
    expect(ids).toEqual(["0a", "0b", "1a"]);
    expect(member.asked.map(({ path }) => decodeURIComponent(path))).toEqual([
      "/api/tasks?status=Failed,Cancelled&created_after=1970-01-01T00:00:00.000Z&payload.user.id=7&limit=2",
      "/api/tasks?cursor=c0",
    ]);
    ids.length = 0;
    member.asked.length = 0;
    for await (const { id } of client.list()) ids.push(id);
    expect(ids).toHaveLength(8);
  });

  test("get() of an unknown task is null; retry() is repeatable and heeds a version", async () => {
    await using member = new ScriptedMember(({ method }, index) => {
      if (method === "GET") return problem(404, "not-found");
      return index === 1 ? problem(503, "outcome-unknown") : task("Pending");
    });
    using client = clientOf([member]);
    expect(await client.get("x/../y")).toBeNull();
    expect(member.asked[0]?.path).toBe("/api/tasks/x%2F..%2Fy");
    await client.retry(ID, { ifVersion: 42 });
    const [, first, second] = member.asked;
    expect(first?.headers.get("if-match")).toBe('"42"');
    expect(first?.headers.get("idempotency-key")).not.toBeNull();
    expect(second?.headers.get("idempotency-key")).toBe(
      first?.headers.get("idempotency-key") ?? "",
    );
  });

  test("a path before the API's, as behind a proxy, is kept", async () => {
    await using member = new ScriptedMember(() => new Response(null, { status: 204 }));
    using client = clientOf([{ url: `${member.url}/queue/` }]);
    await client.cancel(ID);
    expect(member.asked[0]).toMatchObject({ method: "DELETE", path: `/queue/api/tasks/${ID}` });
  });

  test("a redirect is not followed: it would carry the token elsewhere", async () => {
    await using other = new ScriptedMember(() => task("Completed"));
    await using member = new ScriptedMember(() => Response.redirect(other.url, 307));
    using client = clientOf([member], { token: "secret", timeoutMs: 100 });
    const error = await client.stats().catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(FlotillaError);
    expect(other.asked).toEqual([]);
  });
});
