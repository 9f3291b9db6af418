/**
 * Looks at a dashboard with a real browser: nothing is reported on the console, nothing breaks the content
 * policy, nothing comes from elsewhere, and the pages are live. Works against any open member: its handlers
 * must take their time over `slowName` or not know it, so that a task of that name can be cancelled.
 */
import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";
import type { Browser, BrowserContext, Page } from "playwright-core";

const CHROMIUM = process.env["CHROMIUM_PATH"] ?? "/usr/bin/chromium";

/** Null where there is no browser; the tests then skip with a sentence. */
export function browserPath(): string | null {
  return existsSync(CHROMIUM) ? CHROMIUM : null;
}

export async function launchBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

/** What a page said or asked for that it should not have. */
export interface Watch {
  readonly problems: string[];
}

/** Pages of this context report to `problems`: console, exceptions, foreign requests, 404s, policy breaches. */
export async function watch(context: BrowserContext, baseUrl: string): Promise<Watch> {
  const problems: string[] = [];
  const { origin } = new URL(baseUrl);
  await context.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`policy breach: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  context.on("console", (message) => problems.push(`console ${message.type()}: ${message.text()}`));
  context.on("weberror", (error) => problems.push(`exception: ${error.error().message}`));
  context.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "data:" && url.origin !== origin) problems.push(`foreign: ${url.href}`);
  });
  context.on("response", (response) => {
    if (response.status() >= 400) problems.push(`${response.status()} for ${response.url()}`);
  });
  return { problems };
}

export interface CheckOptions {
  /** A task of this name stays cancellable for at least ten seconds. */
  readonly slowName: string;
  readonly slowPayload: string;
  /** Submits one task by other means than the page. */
  submitElsewhere(): Promise<void>;
}

const WAIT_MS = 30_000;

async function total(page: Page): Promise<number> {
  const text = await page.locator('#counts [data-status="total"]').innerText();
  return Number(text.replaceAll(",", ""));
}

async function untilLive(page: Page): Promise<void> {
  await page.locator('#connection[data-state="live"]').waitFor({ timeout: WAIT_MS });
}

/** The whole check. Rejects with what was wrong. */
export async function checkDashboard(
  browser: Browser,
  baseUrl: string,
  options: CheckOptions,
): Promise<void> {
  const base = baseUrl.replace(/\/$/, "");
  const context = await browser.newContext();
  try {
    const { problems } = await watch(context, base);
    const page = await context.newPage();
    await countsMoveByThemselves(page, base, options);
    const id = await submitWorks(page, base, options);
    await typedTextSurvives(page, base, options);
    await cancelWorks(page, base, id);
    await pauseWorks(page, base, options);
    expect(problems).toEqual([]);
  } finally {
    await context.close();
  }
}

/** A mark on the document tells a live update from a reload. */
async function mark(page: Page): Promise<void> {
  await page.evaluate(() => document.documentElement.setAttribute("data-mark", "kept"));
}

async function expectMarked(page: Page): Promise<void> {
  expect(await page.locator("html").getAttribute("data-mark")).toBe("kept");
}

async function untilTotalAbove(page: Page, count: number): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  while ((await total(page)) <= count) {
    if (performance.now() > deadline) throw new Error(`The total stayed at ${count}`);
    await Bun.sleep(50);
  }
}

async function countsMoveByThemselves(
  page: Page,
  base: string,
  options: CheckOptions,
): Promise<void> {
  await page.goto(`${base}/`);
  await untilLive(page);
  await mark(page);
  const before = await total(page);
  await options.submitElsewhere();
  await untilTotalAbove(page, before);
  await expectMarked(page);
}

async function submitWorks(page: Page, base: string, options: CheckOptions): Promise<string> {
  await page.goto(`${base}/submit`);
  await mark(page);
  await page.fill("#name", options.slowName);
  await page.fill("#payload", "{not json");
  await page.click("#submit-form button[type=submit]");
  await page.locator("#payload-error p").waitFor({ timeout: WAIT_MS });
  expect(await page.inputValue("#payload")).toBe("{not json");
  await page.fill("#payload", options.slowPayload);
  await page.click("#submit-form button[type=submit]");
  const link = page.locator("#submit-outcome a");
  await link.waitFor({ timeout: WAIT_MS });
  await expectMarked(page);
  const id = /\/tasks\/([^/?]+)/.exec((await link.getAttribute("href")) ?? "")?.[1];
  if (id === undefined) throw new Error("The form did not link to the task");
  return id;
}

async function typedTextSurvives(page: Page, base: string, options: CheckOptions): Promise<void> {
  await page.goto(`${base}/tasks`);
  await untilLive(page);
  const search = page.locator("#filter-q");
  await search.click();
  await search.pressSequentially("half a wo");
  await page.evaluate(() => document.getElementById("filter-q")?.setAttribute("data-mark", "kept"));
  const count = async () =>
    Number((await page.locator('[data-status="All"]').innerText()).replaceAll(",", ""));
  const before = await count();
  await options.submitElsewhere();
  const deadline = performance.now() + WAIT_MS;
  while ((await count()) <= before) {
    if (performance.now() > deadline) throw new Error("The list did not move");
    await Bun.sleep(50);
  }
  expect(await search.inputValue()).toBe("half a wo");
  expect(await search.getAttribute("data-mark")).toBe("kept");
  expect(await page.evaluate(() => document.activeElement?.id)).toBe("filter-q");
  await search.pressSequentially("rd");
  expect(await search.inputValue()).toBe("half a word");
}

async function cancelWorks(page: Page, base: string, id: string): Promise<void> {
  await page.goto(`${base}/tasks/${id}`);
  await untilLive(page);
  await mark(page);
  page.once("dialog", (dialog) => void dialog.accept());
  await page.locator(`#cancel-${id}`).click();
  await page.locator("#notice.notice-done").waitFor({ timeout: WAIT_MS });
  await page.locator("#task-head .status-cancelled").waitFor({ timeout: WAIT_MS });
  await expectMarked(page);
}

async function pauseWorks(page: Page, base: string, options: CheckOptions): Promise<void> {
  await page.goto(`${base}/`);
  await untilLive(page);
  await page.click("#pause");
  await page.locator('#connection[data-state="paused"]').waitFor({ timeout: WAIT_MS });
  const before = await total(page);
  await options.submitElsewhere();
  await Bun.sleep(1_000);
  expect(await total(page)).toBe(before);
  await page.click("#pause");
  await untilTotalAbove(page, before);
}
