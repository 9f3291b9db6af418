import { expect, test } from "bun:test";
import { harness, uuidAt, NOW } from "./harness.ts";

const MINIMAL = { prefer: "return=minimal" };

test("a submit that wants the least gets its id, its place and no task", async () => {
  const { call, queue } = harness();
  const response = await call("POST", "/api/tasks", { body: { name: "x" }, headers: MINIMAL });
  expect(response.status).toBe(201);
  expect(response.headers.get("preference-applied")).toBe("return=minimal");
  const { id, ...rest } = (await response.json()) as { id: string };
  expect(rest).toEqual({});
  expect(response.headers.get("location")).toBe(`/api/tasks/${id}`);
  expect(queue.calls).toEqual(["submit"]);
});

test("a bulk submit that wants the least gets ids in order, and again at a repeat", async () => {
  const { call, queue } = harness();
  const tasks = [1, 2, 3].map((tail) => ({ id: uuidAt(NOW, tail), name: "x" }));
  for (const status of [201, 200]) {
    const response = await call("POST", "/api/tasks/bulk", {
      body: { tasks },
      headers: { prefer: 'respond-async, return="minimal"; foo' },
    });
    expect(response.status).toBe(status);
    expect(response.headers.get("preference-applied")).toBe("return=minimal");
    expect(await response.json()).toEqual({ items: tasks.map(({ id }) => ({ id })) });
  }
  expect(queue.calls).toEqual(["submit", "submit"]);
});

test("other preferences change nothing", async () => {
  const { call } = harness();
  const response = await call("POST", "/api/tasks/bulk", {
    body: { tasks: [{ name: "x" }] },
    headers: { prefer: "return=representation, wait=10" },
  });
  expect(response.headers.has("preference-applied")).toBe(false);
  const { items } = (await response.json()) as { items: { name: string }[] };
  expect(items[0]?.name).toBe("x");
});
