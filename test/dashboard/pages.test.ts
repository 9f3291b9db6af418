/** Pages, forms and headers, through `app.handle`. */
import { describe, expect, test } from "bun:test";
import { asNodeId } from "../../src/raft/types.ts";
import { QueueError } from "../../src/queue/service.ts";
import type { Task } from "../../src/queue/types.ts";
import { START, fakeTask } from "./fake-queue.ts";
import { dashboard, newTask, tokenAuth } from "./fixture.ts";

const EVIL = `"><script>alert(1)</script><img src=x onerror=alert(2)>&lt;b&gt;'`;

function hostile(status: Task["status"]): Task {
  return fakeTask({
    id: `evil-${status}`,
    name: EVIL,
    queue: EVIL,
    status,
    completed_at: status === "Failed" ? START + 5 : null,
    started_at: START,
    payload: JSON.stringify({ [EVIL]: EVIL }),
    result: JSON.stringify(EVIL),
    last_error: { type: EVIL, message: EVIL, stack: EVIL, retryable: false },
    progress: { percent: 40, message: EVIL },
    lease: { worker: EVIL, attempt: 1, fence: 2, expires_at: START + 1_000 },
  });
}

/** Any of these would be markup made of what somebody typed. */
function expectNoMarkup(html: string): void {
  expect(html).not.toContain("<script>");
  expect(html).not.toContain("<img src=x");
  expect(html).not.toContain("<b>");
}

describe("what was typed is never markup", () => {
  for (const path of ["/", "/tasks", "/tasks/evil-Failed", "/tasks/evil-Running"]) {
    test(`on ${path}`, async () => {
      const { queue, get } = dashboard();
      for (const status of ["Failed", "Running"] as const) {
        const task = queue.add(hostile(status));
        queue.attemptsOf.set(task.id, [
          {
            attempt: 1,
            fence: 1,
            worker: EVIL,
            started_at: START,
            finished_at: START + 1,
            outcome: "failed",
            error: { type: EVIL, message: EVIL, stack: EVIL, retryable: true },
          },
        ]);
        queue.logsOf.set(task.id, [{ attempt: 1, at: START, line: EVIL }]);
      }
      queue.workerList = [
        {
          id: EVIL,
          member: EVIL,
          principal: EVIL,
          queues: [EVIL],
          names: [EVIL],
          slots: 2,
          running: [{ task_id: EVIL, name: EVIL, attempt: 1, started_at: START }],
          stuck: 1,
          kills: 0,
          restarts: 0,
          directive: "quiet",
          last_seen_ms: 1,
        },
      ];
      queue.healthNow = { status: "unhealthy", ready: false, reason: EVIL, alarms: [] };
      const response = await get(path);
      expect(response.status).toBe(200);
      const html = await response.text();
      expect(html).toContain("&lt;script&gt;alert(1)");
      expectNoMarkup(html);
    });
  }

  test("in filters, in messages, in the form and in what is not found", async () => {
    const { get, post } = dashboard();
    const evil = encodeURIComponent(EVIL);
    for (const path of [`/tasks?name=${evil}&queue=${evil}&q=${evil}`, `/tasks?status=${evil}`]) {
      expectNoMarkup(await (await get(path)).text());
    }
    expectNoMarkup(await (await get(`/tasks/${evil}`)).text());
    expectNoMarkup(await (await get(`/?notice=${evil}`)).text());
    const form = {
      name: EVIL,
      payload: EVIL,
      queue: EVIL,
      priority: EVIL,
      run_at: EVIL,
      key: EVIL,
    };
    expectNoMarkup(await (await post("/dashboard/submit", form)).text());
  });

  test("a live message carries the same text", async () => {
    const { queue, get } = dashboard();
    queue.add(hostile("Failed"));
    const reader = (await get("/dashboard/events?view=tasks")).body?.getReader();
    const first = await reader?.read();
    const text = new TextDecoder().decode(first?.value);
    expect(text).toContain("&lt;script&gt;alert(1)");
    expectNoMarkup(text);
    await reader?.cancel();
  });
});

describe("headers", () => {
  test("every answer carries the policy, errors too, and pages have nothing inline", async () => {
    const { get, post } = dashboard();
    const answers = [
      await get("/"),
      await get("/tasks"),
      await get("/tasks/unknown"),
      await get("/submit"),
      await get("/tasks?status=Lost"),
      await get("/dashboard/events?view=none"),
      await post("/dashboard/tasks/unknown/cancel", {}),
    ];
    for (const answer of answers) {
      const policy = answer.headers.get("content-security-policy") ?? "";
      expect(policy).toContain("default-src 'none'");
      expect(policy).not.toContain("unsafe");
      expect(answer.headers.get("x-content-type-options")).toBe("nosniff");
      expect(answer.headers.get("referrer-policy")).toBe("same-origin");
      const html = await answer.text();
      expect(html).not.toMatch(/<script(?![^>]* src="\/assets\/)/);
      expect(html).not.toMatch(/\sstyle=|\son[a-z]+=|hx-on|javascript:|<style/);
    }
  });

  test("assets are addressed by their content and kept for ever", async () => {
    const { get } = dashboard();
    const html = await (await get("/")).text();
    const urls = [...html.matchAll(/"(\/assets\/[^"]+)"/g)].map((match) => match[1] ?? "");
    expect(new Set(urls).size).toBe(5);
    for (const url of urls) {
      const answer = await get(url);
      expect(answer.status).toBe(200);
      expect(answer.headers.get("cache-control")).toContain("immutable");
      expect((await answer.arrayBuffer()).byteLength).toBeGreaterThan(100);
    }
    expect((await get("/assets/htmx.000000000000.js")).status).toBe(404);
    expect((await get("/assets/..%2Fflotilla.css")).status).toBe(404);
  });
});

describe("the list of tasks", () => {
  function many() {
    const made = dashboard();
    for (let index = 0; index < 120; index += 1) {
      made.queue.add(
        fakeTask({
          id: `task-${String(index).padStart(3, "0")}`,
          name: index % 2 === 0 ? "even" : "odd",
          status: index % 3 === 0 ? "Failed" : "Pending",
          queue: index % 5 === 0 ? "mail & more" : "default",
        }),
      );
    }
    return made;
  }
  const idsOf = (html: string) => [...html.matchAll(/<tr id="t-([^"]+)"/g)].map((one) => one[1]);

  test("filters by status, queue, name and prefix, together", async () => {
    const { get, queue } = many();
    const html = await (
      await get("/tasks?status=Failed&queue=mail+%26+more&name=even&q=task-0")
    ).text();
    const expected = queue.tasks
      .filter(
        (task) =>
          task.status === "Failed" &&
          task.queue !== "default" &&
          task.name === "even" &&
          task.id.startsWith("task-0"),
      )
      .map((task) => task.id)
      .toReversed();
    expect(expected.length).toBeGreaterThan(2);
    expect(idsOf(html)).toEqual(expected);
    expect(html).toContain('value="mail &amp; more"');
  });

  test("pages run through every task once, newest first, and keep the filter", async () => {
    const { get, queue } = many();
    const seen: (string | undefined)[] = [];
    let path: string | undefined = "/tasks?status=Pending";
    let pages = 0;
    while (path !== undefined) {
      const html = await (await get(path)).text();
      seen.push(...idsOf(html));
      const next: string | undefined = /rel="next" href="([^"]+)"/.exec(html)?.[1];
      path = next?.replaceAll("&amp;", "&");
      if (path !== undefined) expect(path).toContain("status=Pending");
      pages += 1;
    }
    const pending = queue.tasks.filter((task) => task.status === "Pending").map((task) => task.id);
    expect(seen).toEqual(pending.toReversed());
    expect(pages).toBe(2);
  });

  test("a cursor that is made up, or of another filter, never reaches the queue", async () => {
    const { get } = many();
    const html = await (await get("/tasks")).text();
    const next = /rel="next" href="([^"]+)"/.exec(html)?.[1]?.replaceAll("&amp;", "&") ?? "";
    expect((await get(next)).status).toBe(200);
    for (const path of [`${next}&status=Failed`, `${next}x`, "/tasks?cursor=50"]) {
      expect((await get(path)).status).toBe(400);
    }
  });

  test("an unknown status is named, and one too long is cut", async () => {
    const { get } = many();
    const answer = await get(`/tasks?status=Lost${"!".repeat(500)}`);
    expect(answer.status).toBe(400);
    const html = await answer.text();
    expect(html).toContain("no status “Lost!");
    expect(html).not.toContain("!".repeat(100));
  });
});

describe("one task", () => {
  test("shows how far it came, unless it is done: a handler need not report its last hundredth", async () => {
    const { queue, get } = dashboard();
    const progress = { percent: 40, message: "page 4" };
    for (const status of ["Running", "Failed", "Completed"] as const)
      queue.add(fakeTask({ id: status, status, progress }));
    const shows = async (id: string): Promise<boolean> =>
      (await (await get(`/tasks/${id}`)).text()).includes("40 % · page 4");
    expect([await shows("Running"), await shows("Failed"), await shows("Completed")]).toEqual([
      true,
      true,
      false,
    ]);
  });

  test("shows the payload with the digits that were sent, and cuts a long one", async () => {
    const { queue, get } = dashboard();
    queue.add(fakeTask({ id: "a", payload: '{"n":1.0,"big":12345678901234567890,"e":1e400}' }));
    queue.add(fakeTask({ id: "b", payload: `"${"x".repeat(300_000)}"` }));
    const html = await (await get("/tasks/a")).text();
    expect(html).toContain("1.0");
    expect(html).toContain("12345678901234567890");
    expect(html).toContain("1e400");
    const long = await (await get("/tasks/b")).text();
    expect(long.length).toBeLessThan(60_000);
    expect(long).toContain('href="/api/tasks/b"');
  });

  test("shows the newest log lines and says how many came before", async () => {
    const { queue, get } = dashboard();
    queue.add(fakeTask({ id: "a" }));
    queue.logsOf.set(
      "a",
      Array.from({ length: 1_250 }, (_, line) => ({
        attempt: 1,
        at: START,
        line: `line-${line}.`,
      })),
    );
    const html = await (await get("/tasks/a")).text();
    expect(html).toContain("line-1249.");
    expect(html).not.toContain("line-1049.");
    expect(html).toContain("1,050 earlier lines");
  });

  test("an unknown or endless id is a page that says so", async () => {
    const { get } = dashboard();
    expect((await get("/tasks/unknown")).status).toBe(404);
    expect((await get(`/tasks/${"x".repeat(5_000)}`)).status).toBe(404);
  });
});

describe("the state of the member", () => {
  test("old state, no leader and an unhealthy member each raise the banner", async () => {
    const { queue, get } = dashboard();
    expect(await (await get("/")).text()).not.toContain("Attention");
    queue.stalenessMs = 42_000;
    expect(await (await get("/")).text()).toContain("42 s old");
    const other = dashboard();
    other.queue.leader = null;
    expect(await (await other.get("/")).text()).toContain("There is no leader");
    other.queue.healthNow = {
      status: "unhealthy",
      ready: false,
      reason: "the disk is gone",
      alarms: [],
    };
    expect(await (await other.get("/tasks")).text()).toContain("the disk is gone");
  });

  test("alarms stand above every page, a line each, also at a member that is well", async () => {
    const { get, queue } = dashboard();
    const alarms = [
      { kind: "inconsistent", member: asNodeId("n3"), sentence: "the state of n3 is wrong" },
      { kind: "low-disk", member: asNodeId("n1"), sentence: "the disk of n1 has 5 MiB left" },
    ] as const;
    queue.healthNow = { status: "healthy", ready: true, notReady: null, alarms };
    for (const path of ["/", "/tasks"]) {
      const html = await (await get(path)).text();
      for (const { sentence } of alarms) expect(html).toContain(sentence);
      expect(html.match(/class="banner"/g)?.length).toBe(2);
    }
    const reason = alarms[0].sentence;
    queue.healthNow = { status: "unhealthy", ready: false, reason, alarms };
    const html = await (await get("/")).text();
    expect(html.split("the state of n3 is wrong").length).toBe(2);
  });

  test("a leader that never answers does not hold up the page", async () => {
    const { queue, get } = dashboard();
    queue.hangs = true;
    queue.add(fakeTask({ id: "a" }));
    const html = await (await get("/")).text();
    expect(html).toContain("did not answer");
    expect(html).toContain('href="/tasks/a"');
  });
});

describe("submitting", () => {
  const FORM = { name: "echo", payload: '{"a": 1.0}', queue: "", priority: "7", max_retries: "0" };

  test("without JavaScript it redirects to the task", async () => {
    const { queue, get, post } = dashboard();
    const answer = await post("/dashboard/submit", FORM);
    expect(answer.status).toBe(303);
    const submitted = queue.submits[0]?.task;
    expect(submitted?.payload).toBe('{"a": 1.0}');
    expect(submitted?.priority).toBe(7);
    expect(submitted?.queue).toBe("default");
    const location = answer.headers.get("location") ?? "";
    expect(location).toBe(`/tasks/${submitted?.id}?notice=submitted`);
    expect(await (await get(location)).text()).toContain("The task was submitted.");
  });

  test("through htmx it answers the form with a link and keeps what was typed", async () => {
    const { queue, post } = dashboard();
    const answer = await post("/dashboard/submit", FORM, { "hx-request": "true" });
    expect(answer.status).toBe(200);
    const html = await answer.text();
    expect(html.startsWith("<form")).toBe(true);
    expect(html).toContain(`href="/tasks/${queue.submits[0]?.task.id}"`);
    expect(html).toContain('value="echo"');
  });

  test("every wrong field is told beside it, nothing is submitted, and the text stays", async () => {
    const { queue, post } = dashboard();
    const bad = {
      name: " ",
      payload: "\n{oops &lt;",
      queue: "q",
      priority: "high",
      max_retries: "1.5",
    };
    const answer = await post("/dashboard/submit", bad);
    expect(answer.status).toBe(400);
    const html = await answer.text();
    for (const field of ["name", "payload", "priority", "max_retries"]) {
      expect(html).toMatch(new RegExp(`<div id="${field}-error" class="field-error"><p>`));
    }
    expect(html).toContain("\n\n{oops &amp;lt;</textarea>");
    expect(html).toContain('value="high"');
    expect(queue.submits).toHaveLength(0);
  });

  test("what the API's own rules refuse is told in the same way", async () => {
    const { queue, post } = dashboard();
    const answer = await post("/dashboard/submit", { ...FORM, priority: "12" });
    expect(answer.status).toBe(400);
    expect(await answer.text()).toContain("must be 0 to 9");
    expect(queue.submits).toHaveLength(0);
  });

  test("pressing twice submits once, and other values under the same key are refused", async () => {
    const { queue, get, post } = dashboard();
    const page = await (await get("/submit")).text();
    const key = /name="key" value="([0-9a-f]+)"/.exec(page)?.[1] ?? "";
    const first = await post("/dashboard/submit", { ...FORM, key });
    const again = await post("/dashboard/submit", { ...FORM, key });
    expect(again.headers.get("location")).toBe(first.headers.get("location"));
    expect(queue.tasks).toHaveLength(1);
    const other = await post("/dashboard/submit", { ...FORM, key, priority: "1" });
    expect(other.status).toBe(409);
    expect(await other.text()).not.toContain(key);
  });

  test("without a leader it says so, and only an unknown outcome keeps the key", async () => {
    const { queue, post } = dashboard();
    const key = "0123456789abcdef0123456789abcdef";
    queue.refusal = new QueueError("no-leader", "none");
    const refused = await post("/dashboard/submit", { ...FORM, key });
    expect(refused.status).toBe(503);
    const text = await refused.text();
    expect(text).toContain("no leader at the moment");
    expect(text).not.toContain(key);
    queue.refusal = new QueueError("outcome-unknown", "late");
    const unknown = await post("/dashboard/submit", { ...FORM, key });
    expect(unknown.status).toBe(503);
    expect(await unknown.text()).toContain(key);
  });

  test("a body that is not a form is refused", async () => {
    const { app, queue } = dashboard();
    const request = new Request("http://localhost/dashboard/submit", {
      method: "POST",
      headers: { "content-type": "application/json", origin: "http://localhost" },
      body: '{"name":"echo"}',
    });
    expect((await app.handle(request)).status).toBe(400);
    expect(queue.submits).toHaveLength(0);
  });

  test("the fixture's rules are those under test, not a rubber stamp", () => {
    expect(newTask({ name: "x", payloadText: "", priority: 12 })).toHaveProperty("errors");
  });
});

describe("cancel and retry", () => {
  test("a path that is not UTF-8 names no task", async () => {
    const { get, post } = dashboard();
    expect((await get("/tasks/%ff")).status).toBe(404);
    expect((await post("/dashboard/tasks/%ff/cancel", {})).status).toBe(404);
    expect((await post("/dashboard/tasks/%ff/retry", {})).status).toBe(404);
  });

  test("cancel answers htmx with a notice and a plain form with a redirect to where it was", async () => {
    const { queue, post } = dashboard();
    queue.add(fakeTask({ id: "a" }));
    queue.add(fakeTask({ id: "b" }));
    const part = await post("/dashboard/tasks/a/cancel", {}, { "hx-request": "true" });
    expect(await part.text()).toContain('id="notice"');
    expect(queue.tasks[0]?.status).toBe("Cancelled");
    const plain = await post("/dashboard/tasks/b/cancel", { return: "/tasks?status=Pending" });
    expect(plain.status).toBe(303);
    expect(plain.headers.get("location")).toBe("/tasks?status=Pending&notice=cancelled");
    expect(queue.tasks[1]?.status).toBe("Cancelled");
  });

  test("never redirects to another site", async () => {
    const { queue, post } = dashboard();
    for (const [index, target] of [
      "//evil.example",
      "https://evil.example/",
      "/\\evil",
    ].entries()) {
      queue.add(fakeTask({ id: `t${index}` }));
      const answer = await post(`/dashboard/tasks/t${index}/cancel`, { return: target });
      expect(answer.headers.get("location")).toBe("/?notice=cancelled");
    }
  });

  test("retry queues an ended task again; the queue's refusals are words", async () => {
    const { queue, post } = dashboard();
    queue.add(fakeTask({ id: "a", status: "Failed", completed_at: START }));
    expect((await post("/dashboard/tasks/a/retry", {})).status).toBe(303);
    expect(queue.tasks[0]?.status).toBe("Pending");
    const early = await post("/dashboard/tasks/a/retry", {}, { "hx-request": "true" });
    expect(early.status).toBe(409);
    expect(await early.text()).toContain("has not ended");
    queue.change("a", { status: "Completed" });
    expect((await post("/dashboard/tasks/a/cancel", {})).status).toBe(409);
    expect((await post("/dashboard/tasks/none/cancel", {})).status).toBe(404);
  });
});

describe("who may", () => {
  const as = (role: string) => ({ cookie: `session=${role}` });

  test("without a session pages lead to the sign-in, streams and parts are 401", async () => {
    const { get, post, queue } = dashboard({ auth: tokenAuth });
    queue.add(fakeTask({ id: "a" }));
    const page = await get("/tasks?status=Failed");
    expect(page.status).toBe(303);
    expect(page.headers.get("location")).toBe("/login?return=%2Ftasks%3Fstatus%3DFailed");
    expect((await get("/dashboard/events?view=overview")).status).toBe(401);
    const part = await post("/dashboard/tasks/a/cancel", {}, { "hx-request": "true" });
    expect(part.status).toBe(401);
    expect((await post("/dashboard/submit", { name: "echo" })).status).toBe(303);
    expect(queue.submits).toHaveLength(0);
    expect(queue.tasks[0]?.status).toBe("Pending");
  });

  test("a viewer sees no action, and the server refuses each of them", async () => {
    const { get, post, queue } = dashboard({ auth: tokenAuth });
    queue.add(fakeTask({ id: "a" }));
    queue.add(fakeTask({ id: "b", status: "Failed", completed_at: START }));
    for (const path of ["/", "/tasks", "/tasks/a", "/tasks/b"]) {
      const html = await (await get(path, as("viewer"))).text();
      expect(html).not.toContain("/cancel");
      expect(html).not.toContain("/retry");
      expect(html).not.toContain('href="/submit"');
    }
    expect((await get("/submit", as("viewer"))).status).toBe(403);
    for (const path of ["submit", "tasks/a/cancel", "tasks/b/retry"]) {
      expect((await post(`/dashboard/${path}`, { name: "x" }, as("viewer"))).status).toBe(403);
    }
    expect(queue.tasks.map((task) => task.status)).toEqual(["Pending", "Failed"]);
    expect(queue.tasks).toHaveLength(2);
  });

  test("a viewer's live stream has no action either", async () => {
    const { get, queue } = dashboard({ auth: tokenAuth });
    queue.add(fakeTask({ id: "a" }));
    const read = async (role: string) => {
      const reader = (await get("/dashboard/events?view=tasks", as(role))).body?.getReader();
      const text = new TextDecoder().decode((await reader?.read())?.value);
      await reader?.cancel();
      return text;
    };
    expect(await read("admin")).toContain("/cancel");
    expect(await read("viewer")).not.toContain("/cancel");
  });

  test("a producer cancels but does not retry; the principal is the token's name", async () => {
    const { get, post, queue } = dashboard({ auth: tokenAuth });
    queue.add(fakeTask({ id: "b", status: "Failed", completed_at: START }));
    expect(await (await get("/tasks/b", as("producer"))).text()).not.toContain("/retry");
    expect((await post("/dashboard/tasks/b/retry", {}, as("producer"))).status).toBe(403);
    await post("/dashboard/submit", { name: "echo" }, as("producer"));
    expect(queue.submits[0]?.context.principal).toBe("the producer");
  });

  test("signing in sets the cookie, a wrong token says so, signing out ends it", async () => {
    const { get, post } = dashboard({ auth: tokenAuth });
    expect((await get("/login")).status).toBe(200);
    const wrong = await post("/login", { token: "guess", return: "/tasks" });
    expect(wrong.status).toBe(401);
    expect(wrong.headers.get("set-cookie")).toBeNull();
    expect(await wrong.text()).not.toContain("guess");
    const right = await post("/login", { token: "viewer", return: "/tasks" });
    expect(right.headers.get("location")).toBe("/tasks");
    expect(right.headers.get("set-cookie")).toBe("session=viewer; HttpOnly");
    const out = await post("/logout", {}, as("viewer"));
    expect(out.headers.get("set-cookie")).toContain("Max-Age=0");
  });

  test("forms from other origins press nothing", async () => {
    const { post, queue } = dashboard();
    queue.add(fakeTask({ id: "a" }));
    for (const origin of ["http://evil.example", "null", "http://localhost:81"]) {
      expect((await post("/dashboard/tasks/a/cancel", {}, { origin })).status).toBe(403);
    }
    const { app } = dashboard({}, queue);
    for (const site of ["cross-site", "same-site"]) {
      const request = new Request("http://localhost/dashboard/tasks/a/cancel", {
        method: "POST",
        headers: { "sec-fetch-site": site },
      });
      expect((await app.handle(request)).status).toBe(403);
    }
    expect(queue.tasks[0]?.status).toBe("Pending");
  });

  test("an open member answers under loopback and its advertised name only", async () => {
    const { get } = dashboard();
    for (const host of ["localhost:3000", "127.0.0.1:3000", "[::1]:3000", "queue.example:9"]) {
      expect((await get("/", { host })).status).toBe(200);
    }
    for (const host of ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example"]) {
      expect((await get("/", { host })).status).toBe(421);
    }
  });
});
