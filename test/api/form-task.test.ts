import { expect, test } from "bun:test";
import { taskFromForm, type FormSubmit } from "../../src/api/form-task.ts";
import type { Clock, Random } from "../../src/replica/ports.ts";
import { DEFAULT_SETTINGS } from "../../src/queue/types.ts";
import { NOW, uuidAt } from "./harness.ts";

const minting = {
  settings: { ...DEFAULT_SETTINGS, max_payload: 20 },
  clock: { wall: () => NOW } as Clock,
  random: { uuid: (now: number) => uuidAt(now) } as Random,
};
const form = (input: Partial<FormSubmit>) =>
  taskFromForm({ name: "x", payloadText: "", ...input }, minting);
const fields = (input: Partial<FormSubmit>): string[] => {
  const result = form(input);
  return "errors" in result ? result.errors.map(({ field }) => field) : [];
};

test("a form makes the task that a JSON body would make, the payload as typed", () => {
  expect(
    form({ payloadText: ' { "a": 1.0 }\n', priority: 9, run_at: "2030-01-01T00:00:00Z" }),
  ).toEqual({
    id: uuidAt(NOW),
    name: "x",
    queue: "default",
    priority: 9,
    payload: '{ "a": 1.0 }',
    max_retries: 3,
    run_at: Date.UTC(2030, 0, 1),
    timeout_ms: 60_000,
    retry: DEFAULT_SETTINGS.retry,
    body_hash: null,
  });
  expect(form({ payloadText: "  " })).toMatchObject({ payload: null });
});

test("what is wrong is told by field", () => {
  expect(fields({ name: "" })).toEqual(["name"]);
  expect(
    fields({ name: "n".repeat(256), priority: 10, max_retries: -1, queue: "", run_at: "soon" }),
  ).toEqual(["name", "priority", "max_retries", "queue", "run_at"]);
  expect(fields({ payloadText: "{" })).toEqual(["payload"]);
  expect(fields({ payloadText: `"${"x".repeat(19)}"` })).toEqual(["payload"]);
  expect(fields({ payloadText: "[".repeat(200) + "]".repeat(200) })).toEqual(["payload"]);
});
