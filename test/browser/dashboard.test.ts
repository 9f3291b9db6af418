/** The dashboard in a real Chromium, over the fake queue and over real members. Most of it is waiting: all at once. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Browser } from "playwright-core";
import { type Member, RealCluster } from "../cluster/harness.ts";
import { START, fakeTask } from "../dashboard/fake-queue.ts";
import { dashboard, tokenAuth } from "../dashboard/fixture.ts";
import { browserPath, checkDashboard, launchBrowser, watch } from "./check-page.ts";

const path = browserPath();
if (path === null) {
  console.warn("No Chromium at /usr/bin/chromium or CHROMIUM_PATH: the browser tests are skipped.");
}

/** The documentation page, with an operation that is open: silent, strict, and no wider than a phone. */
async function fitsAPhone(browser: Browser, url: string): Promise<void> {
  const context = await browser.newContext({ viewport: { width: 400, height: 900 } });
  const { problems } = await watch(context, url);
  const page = await context.newPage();
  await page.goto(`${url}/swagger`);
  await page.locator(".opblock-summary-control").first().click();
  await page.locator(".responses-table").first().waitFor();
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(400);
  expect(problems).toEqual([]);
  await context.close();
}

describe.skipIf(path === null)("in a browser", () => {
  let browser: Browser;
  const servers: { stop(force: boolean): Promise<void> }[] = [];

  beforeAll(async () => {
    browser = await launchBrowser();
  });
  afterAll(async () => {
    await browser.close();
    for (const server of servers) await server.stop(true);
  });

  function serve(changes: Parameters<typeof dashboard>[0] = {}) {
    const made = dashboard(changes);
    const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: made.app.fetch });
    made.app.server = server;
    servers.push(server);
    return { ...made, server, url: `http://127.0.0.1:${server.port}` };
  }

  test.concurrent(
    "every page is silent, strict, live, and keeps what is typed",
    async () => {
      const { queue, url } = serve();
      let count = 0;
      await checkDashboard(browser, url, {
        slowName: "slow",
        slowPayload: '{"ms": 60000}',
        async submitElsewhere() {
          count += 1;
          queue.add(fakeTask({ id: `elsewhere-${count}`, name: "elsewhere" }));
          queue.notify(`elsewhere-${count}`);
        },
      });
      expect(queue.tasks.find((task) => task.name === "slow")?.status).toBe("Cancelled");
    },
    60_000,
  );

  test.concurrent(
    "an opened stack stays open while the task goes on",
    async () => {
      const { queue, url } = serve();
      queue.add(fakeTask({ id: "a", status: "Running", started_at: START }));
      const failed = (attempt: number) => ({
        attempt,
        fence: attempt,
        worker: "w",
        started_at: START,
        finished_at: START + 5,
        outcome: "failed" as const,
        error: { type: "Error", message: `failure ${attempt}`, stack: "at x", retryable: true },
      });
      queue.attemptsOf.set("a", [failed(1)]);
      const context = await browser.newContext();
      const { problems } = await watch(context, url);
      const page = await context.newPage();
      await page.goto(`${url}/tasks/a`);
      await page.locator('#connection[data-state="live"]').waitFor();
      await page.locator("#stack-1 summary").click();
      queue.attemptsOf.set("a", [failed(1), failed(2)]);
      queue.notify("a");
      await page.locator("#stack-2").waitFor();
      expect(await page.locator("#stack-1").getAttribute("open")).not.toBeNull();
      expect(await page.locator("#stack-2").getAttribute("open")).toBeNull();
      expect(problems).toEqual([]);
      await context.close();
    },
    60_000,
  );

  test.concurrent(
    "an alarm shows at the top of an open page, readable on a phone, and goes when it is over",
    async () => {
      const { queue, url } = serve();
      const context = await browser.newContext({ viewport: { width: 390, height: 800 } });
      const { problems } = await watch(context, url);
      const page = await context.newPage();
      await page.goto(url);
      await page.locator('#connection[data-state="live"]').waitFor();
      expect(await page.locator("#banner .banner").count()).toBe(0);
      const sentences = [
        "the state of n3 is wrong: up to index 7 it has other rows on its disk than a majority of the members",
        "the disk of n1 has 512 MiB left, less than --disk-reserve: it takes no tasks until there is room",
        "the wall clock of n2 is 7 s ahead of the others",
      ];
      queue.healthNow = {
        status: "healthy",
        ready: true,
        notReady: null,
        alarms: sentences.map((sentence) => ({ kind: "low-disk", member: null, sentence })),
      };
      queue.notify("any");
      const banners = page.locator("#banner .banner");
      await banners.nth(2).waitFor();
      expect(await banners.allInnerTexts()).toEqual(
        sentences.map((sentence) => `Attention ${sentence}`),
      );
      for (let i = 0; i < sentences.length; i++) {
        const box = await banners.nth(i).boundingBox();
        expect(box === null ? 0 : box.x + box.width).toBeLessThanOrEqual(390);
        expect(await banners.nth(i).isVisible()).toBe(true);
      }
      if (process.env.SCREENSHOT !== undefined)
        await page.screenshot({ path: process.env.SCREENSHOT });
      queue.healthNow = { status: "healthy", ready: true, notReady: null, alarms: [] };
      queue.notify("any");
      await banners.first().waitFor({ state: "detached" });
      expect(problems).toEqual([]);
      await context.close();
    },
    60_000,
  );

  test.concurrent(
    "a page comes back by itself when its member does",
    async () => {
      const { queue, app, url, server } = serve();
      const context = await browser.newContext();
      const page = await context.newPage();
      await page.goto(url);
      await page.locator('#connection[data-state="live"]').waitFor();
      const { port } = server;
      await server.stop(true);
      await page.locator('#connection[data-state="waiting"]').waitFor();
      queue.add(fakeTask({ id: "meanwhile" }));
      const again = Bun.serve({ port: port ?? 0, hostname: "127.0.0.1", fetch: app.fetch });
      app.server = again;
      servers.push(again);
      await page.locator("#t-meanwhile").waitFor({ timeout: 20_000 });
      await page.locator('#connection[data-state="live"]').waitFor();
      await context.close();
    },
    60_000,
  );

  test.concurrent(
    "hostile names do nothing, and no page is wider than a small phone",
    async () => {
      const { queue, url } = serve();
      const evil = `"><script>alert(1)</script><img src=x onerror=alert(2)>${"wide".repeat(60)}`;
      queue.add(
        fakeTask({
          id: "evil",
          name: evil,
          queue: evil,
          status: "Failed",
          completed_at: START,
          payload: JSON.stringify(evil),
          last_error: { type: evil, message: evil, stack: evil, retryable: true },
          lease: { worker: evil, attempt: 1, fence: 1, expires_at: START },
        }),
      );
      const context = await browser.newContext({ viewport: { width: 360, height: 780 } });
      const { problems } = await watch(context, url);
      const page = await context.newPage();
      page.on("dialog", (dialog) => {
        problems.push(`dialog: ${dialog.message()}`);
        void dialog.dismiss();
      });
      for (const at of ["/", "/tasks", "/tasks/evil", "/submit"]) {
        await page.goto(url + at);
        if (at !== "/submit") await page.locator('#connection[data-state="live"]').waitFor();
        queue.notify("evil");
        expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(360);
      }
      expect(problems).toEqual([]);
      await context.close();
    },
    60_000,
  );

  test.concurrent(
    "every page can be read without JavaScript, and its forms work",
    async () => {
      const { queue, url } = serve();
      const context = await browser.newContext({ javaScriptEnabled: false });
      const page = await context.newPage();
      await page.goto(`${url}/submit`);
      await page.fill("#name", "plain");
      await page.click("#submit-form button[type=submit]");
      expect(await page.locator("h1").innerText()).toBe("plain");
      expect(await page.locator("#notice").innerText()).toContain("submitted");
      await page.click(".task-actions button");
      expect(await page.locator("#task-head .badge").innerText()).toContain("Cancelled");
      await page.goto(`${url}/tasks?status=Cancelled`);
      expect(await page.locator(".tasks tbody tr").count()).toBe(1);
      expect(queue.tasks[0]?.status).toBe("Cancelled");
      await context.close();
    },
    60_000,
  );

  test.concurrent(
    "the sign-in page is silent, and takes a token to the page that was asked for",
    async () => {
      const { url } = serve({ auth: tokenAuth });
      const context = await browser.newContext();
      const { problems } = await watch(context, url);
      const page = await context.newPage();
      await page.goto(`${url}/submit`);
      await page.fill("#token", "admin");
      await page.click("main button[type=submit]");
      await page.waitForURL(`${url}/submit`);
      await page.goto(url);
      await page.locator('#connection[data-state="live"]').waitFor();
      expect(problems).toEqual([]);
      await context.close();
    },
    60_000,
  );

  test.concurrent(
    "no page and no table is cut, on a wide screen, a small one and a phone, dark and light",
    async () => {
      const { queue, url } = serve();
      const long = "a-long-name-".repeat(21);
      queue.add(
        fakeTask({ id: "long", name: long, queue: long, payload: `"${"x".repeat(10_000)}"` }),
      );
      queue.add(fakeTask({ id: "plain", status: "Running", started_at: START }));
      const running = (name: string) => ({ task_id: name, name, attempt: 1, started_at: START });
      queue.workerList = ["n1/1", long].map((id) => ({
        id,
        member: "n1",
        principal: "executor",
        queues: null,
        names: null,
        slots: 10,
        running: ["report.render.1", "report.render.2", "report.render.3", long].map(running),
        stuck: 10,
        kills: 100,
        restarts: 100,
        directive: "ok" as const,
        last_seen_ms: 90_000,
      }));
      const context = await browser.newContext();
      const { problems } = await watch(context, url);
      const page = await context.newPage();
      for (const at of ["/", "/tasks", "/tasks/long", "/submit", "/tasks?name=none"]) {
        await page.goto(url + at);
        for (const colorScheme of ["dark", "light"] as const) {
          await page.emulateMedia({ colorScheme });
          for (const width of [1280, 800, 400]) {
            await page.setViewportSize({ width, height: 900 });
            const cut = await page.evaluate(() =>
              [document.documentElement, ...document.querySelectorAll(".table-scroll")]
                .filter((element) => element.scrollWidth > element.clientWidth)
                .map((element) => `${element.tagName}.${element.className}`),
            );
            expect({ at, width, cut }).toEqual({ at, width, cut: [] });
          }
        }
      }
      expect(problems).toEqual([]);
      await context.close();
    },
    60_000,
  );

  test.concurrent(
    "a real cluster's is silent, strict and live on the leader and on a follower",
    async () => {
      const cluster = await RealCluster.start();
      try {
        const leader = await cluster.leader();
        const [follower] = await cluster.followers();
        if (follower === undefined) throw new Error("no follower");
        const check = (member: Member, elsewhere: Member): Promise<void> =>
          checkDashboard(browser, member.url, {
            slowName: "sleep",
            slowPayload: '{"ms": 60000}',
            submitElsewhere: async () => {
              await elsewhere.post("/api/tasks", { name: "echo", payload: "elsewhere" });
            },
          });
        await Promise.all([check(leader, follower), check(follower, leader)]);
        await fitsAPhone(browser, follower.url);
        const { total_tasks } = await leader.json<{ total_tasks: number }>("/api/stats");
        expect(total_tasks).toBeGreaterThan(4);
      } finally {
        await cluster.stop();
      }
    },
    120_000,
  );
});
