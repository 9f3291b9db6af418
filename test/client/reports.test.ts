/** How a worker tells the ends of its attempts, against members that follow a script. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { Connection } from "../../src/client/connection.ts";
import { LeaseCalls } from "../../src/client/lease-calls.ts";
import { Members } from "../../src/client/members.ts";
import { type Ending, Reports } from "../../src/client/reports.ts";
import type { LeaseRef } from "../../src/client/types.ts";
import { type Asked, problem, ScriptedMember } from "./scripted-member.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const lease = (fence: number): LeaseRef => ({
  task_id: `01920000-0000-7000-8000-${String(fence).padStart(12, "0")}`,
  attempt: 1,
  fence,
});
const failed = (message: string): Ending => ({
  kind: "fail",
  failure: { error: { type: "Error", message, stack: null }, retryable: true },
});

async function told(endings: readonly Ending[], script: (asked: Asked) => Response) {
  await using member = new ScriptedMember(script);
  const connection = new Connection({
    members: new Members([member.url]),
    token: null,
    timeoutMs: 10_000,
  });
  const rejected: [number, string][] = [];
  const accepted: number[] = [];
  const { promise: over, resolve } = Promise.withResolvers<void>();
  const reports: Reports = new Reports(new LeaseCalls(connection), "w", {
    accepted: ({ fence }) => void accepted.push(fence),
    rejected: ({ fence }, code) => void rejected.push([fence, code]),
    failed: (_, error) => {
      throw error;
    },
    progressed: () => {
      if (reports.unanswered.size === 0) resolve();
    },
  });
  for (const [index, ending] of endings.entries()) reports.end(lease(index), ending);
  await over;
  connection.close();
  return { asked: member.asked.map(({ path, body }) => ({ path, body })), accepted, rejected };
}

/** `ok` for each item, and for a lone lease. */
const ok = ({ body }: Asked): Response => {
  const { items } = body as { readonly items?: readonly LeaseRef[] };
  return Response.json(
    items === undefined
      ? { status: "ok" }
      : { items: items.map(({ task_id }) => ({ task_id, status: "ok" })) },
  );
};

test("failures of one turn go in one request, and so do releases", async () => {
  const endings = [
    failed("a"),
    failed("b"),
    failed("c"),
    ...Array.from({ length: 4 }, (): Ending => ({ kind: "release" })),
  ];
  const { asked, rejected } = await told(endings, ok);
  expect(rejected).toEqual([]);
  expect(asked.map(({ path }) => path).toSorted()).toEqual([
    "/api/leases/fail",
    "/api/leases/release",
  ]);
  const fail = asked.find(({ path }) => path.endsWith("fail"))?.body;
  expect(fail).toMatchObject({
    worker_id: "w",
    items: ["a", "b", "c"].map((message, fence) => ({ ...lease(fence), error: { message } })),
  });
});

test("what is refused among them is told of that one alone", async () => {
  const { accepted, rejected } = await told([failed("a"), failed("b")], ({ body }) => {
    const { items } = body as { readonly items: readonly LeaseRef[] };
    const status = ["ok", "stale-lease"];
    return Response.json({
      items: items.map(({ task_id }, index) => ({ task_id, status: status[index] })),
    });
  });
  expect(rejected).toEqual([[1, "stale-lease"]]);
  expect(accepted).toEqual([0]);
});

test.each([404, 405, 400, 413])(
  "a group that is refused with %d goes one by one",
  async (status) => {
    const { asked, rejected } = await told([failed("a"), failed("b")], (request) =>
      request.path === "/api/leases/fail" ? problem(status, "whatever") : ok(request),
    );
    expect(rejected).toEqual([]);
    expect(asked.map(({ path }) => path)).toEqual([
      "/api/leases/fail",
      `/api/leases/${lease(0).task_id}/fail`,
      `/api/leases/${lease(1).task_id}/fail`,
    ]);
  },
);
