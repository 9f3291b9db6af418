import { Database } from "bun:sqlite";
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BadFilter, listTasks, SCAN_STEP } from "../../src/queue/queries.ts";
import type { TaskFilter } from "../../src/queue/service.ts";
import { InlineReader, ThreadReader } from "../../src/queue/task-reader.ts";
import { complete, Harness, idAt, newTask, START } from "./machine-harness.ts";

const folder = mkdtempSync(join(tmpdir(), "flotilla-queries-"));
afterAll(() => rmSync(folder, { recursive: true }));

const ids = (h: Harness, filter: TaskFilter, limit = 100): string[] =>
  listTasks(h.db, filter, limit, null).tasks.map((task) => task.id);

/** Every id of a filter, page by page. */
function walk(h: Harness, filter: TaskFilter, limit: number): string[] {
  const found: string[] = [];
  let cursor: string | null = null;
  do {
    const page = listTasks(h.db, filter, limit, cursor);
    expect(page.tasks.length).toBeLessThanOrEqual(limit);
    for (const task of page.tasks) found.push(task.id);
    cursor = page.next;
  } while (cursor !== null);
  return found;
}

describe("lists", () => {
  test("come newest first, in pages that neither miss nor repeat a task", () => {
    const h = new Harness();
    const all = Array.from({ length: 25 }, () => h.submit()).reverse();
    expect(ids(h, {})).toEqual(all);
    expect(walk(h, {}, 7)).toEqual(all);
    expect(walk(h, {}, 5)).toEqual(all);
    const page = listTasks(h.db, {}, 10, null);
    const later = h.submit();
    expect(listTasks(h.db, {}, 100, page.next).tasks.map((task) => task.id)).toEqual(all.slice(10));
    expect(ids(h, {}, 1)).toEqual([later]);
  });

  test("filter by status, detail, queue and name, alone and together", () => {
    const h = new Harness();
    const done = h.submit({ name: "a", queue: "q1" });
    h.end(h.claimOne(), complete);
    const running = h.submit({ name: "b", queue: "q1" });
    h.claimOne();
    const later = h.submit({ name: "a", queue: "q2", run_at: START + 5_000 });
    const ready = h.submit({ name: "b", queue: "q2" });
    expect(ids(h, { statuses: ["Completed"] })).toEqual([done]);
    expect(ids(h, { statuses: ["Running", "Pending"] })).toEqual([ready, later, running]);
    expect(ids(h, { details: ["scheduled"] })).toEqual([later]);
    expect(ids(h, { queue: "q1" })).toEqual([running, done]);
    expect(ids(h, { name: "a" })).toEqual([later, done]);
    expect(ids(h, { name: "a", queue: "q2", statuses: ["Pending"] })).toEqual([later]);
    expect(ids(h, { statuses: ["Failed"] })).toEqual([]);
    expect(ids(h, { statuses: [] })).toEqual([]);
    const lease = listTasks(h.db, { statuses: ["Running"] }, 1, null).tasks[0]?.lease;
    expect(lease?.expires_at).toBe(START + 15_000);
  });

  test("find by the beginning of an id or a name, with no wildcard in it", () => {
    const h = new Harness();
    const a = h.submit({ name: "über-mail" });
    const b = h.submit({ name: "100%_x" });
    expect(ids(h, { q: "über" })).toEqual([a]);
    expect(ids(h, { q: "100%" })).toEqual([b]);
    expect(ids(h, { q: "%" })).toEqual([]);
    expect(ids(h, { q: a.toUpperCase() })).toEqual([a]);
    expect(ids(h, { q: a.slice(0, 8) })).toEqual([b, a]);
  });

  test("compare payload paths as JSON scalars", () => {
    const h = new Harness();
    const payloads = [
      '{"a":{"b":"x"}}',
      '{"a":{"b":5}}',
      '{"a":{"b":"5"}}',
      '{"a":{"b":true}}',
      '{"a":{"b":null}}',
      '{"a":["p","q"]}',
      '{"a":{"1":"q"}}',
      JSON.stringify({ big: "y".repeat(5_000), a: { b: "large" } }),
      '{"a":{"b":2.50}}',
      `${"[".repeat(3_000)}${"]".repeat(3_000)}`,
    ];
    const made = payloads.map((payload) => h.submit({ payload }));
    h.submit({ payload: null });
    const match = (path: string, value: string): number[] =>
      ids(h, { payload: [{ path, value }] })
        .map((id) => made.indexOf(id))
        .sort((a, b) => a - b);
    expect(match("a.b", "x")).toEqual([0]);
    expect(match("a.b", "5")).toEqual([1, 2]);
    expect(match("a.b", "true")).toEqual([3]);
    expect(match("a.b", "null")).toEqual([4]);
    expect(match("a.1", "q")).toEqual([5, 6]);
    expect(match("a.b", "large")).toEqual([7]);
    expect(match("a.b", "2.5")).toEqual([8]);
    expect(match("a.b", "1")).toEqual([]);
    expect(match("a.b'); DROP TABLE tasks; --", "1")).toEqual([]);
    expect(() => match('a."b', "1")).toThrow(BadFilter);
    expect(() => match("a..b", "1")).toThrow(BadFilter);
    expect(() => match("", "1")).toThrow(BadFilter);
  });

  test("bound by the time of creation, gaps of deleted tasks included", () => {
    const h = new Harness();
    const made: string[] = [];
    for (let i = 0; i < 20; i++) {
      h.now = START + i * 10;
      made.push(h.submit({ name: i % 3 === 0 ? "gone" : "kept" }));
    }
    h.db.run("DELETE FROM tasks WHERE name = 'gone'");
    for (let after = -1; after < 20; after++) {
      for (let before = 0; before <= 20; before += 3) {
        const expected = made.filter(
          (_, i) => i % 3 !== 0 && START + i * 10 > START + after * 10 && i < before,
        );
        const filter = { createdAfter: START + after * 10, createdBefore: START + before * 10 };
        expect(ids(h, filter)).toEqual(expected.reverse());
      }
    }
  });

  test("hide what a clear made vanish, before its rows are gone", () => {
    const h = new Harness();
    const old = h.submit();
    h.claimOne();
    h.submit();
    h.value({ type: "clear", status: "Pending" });
    const fresh = h.submit();
    expect(ids(h, {})).toEqual([fresh, old]);
    expect(ids(h, { statuses: ["Pending"] })).toEqual([fresh]);
  });

  test("a filter that matches little is scanned in steps and still finds it", () => {
    const h = new Harness();
    const rare = h.submit({ payload: '{"k":"rare"}' });
    for (let n = 0; n < 24; n++) {
      const tasks = Array.from({ length: 1_000 }, (_, i) =>
        newTask(idAt(START + 1, n * 1_000 + i)),
      );
      h.value({ type: "submit", tasks });
    }
    let steps = 0;
    const filter = { payload: [{ path: "k", value: "rare" }] };
    const page = listTasks(h.db, filter, 10, null, () => steps++);
    expect(page.tasks.map((task) => task.id)).toEqual([rare]);
    expect(page.next).toBeNull();
    expect(steps).toBe(Math.ceil(24_001 / SCAN_STEP));
  });

  test("pages end early where bodies are large, and hold one task at least", () => {
    const h = new Harness();
    const payload = JSON.stringify("z".repeat(5 * 1024 * 1024));
    const made = [0, 1, 2].map(() => h.submit({ payload })).reverse();
    expect(listTasks(h.db, {}, 100, null).tasks).toHaveLength(1);
    expect(walk(h, {}, 100)).toEqual(made);
  });

  test("a cursor that was not made here is refused", () => {
    const h = new Harness();
    for (const cursor of [
      "",
      "x",
      "c2Fi",
      "%%%",
      Buffer.from("s99999999999999999").toString("base64url"),
    ]) {
      expect(() => listTasks(h.db, {}, 10, cursor)).toThrow(BadFilter);
    }
  });
});

/** What a promise was rejected with; null when it was not. */
const failureOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => null,
    (error: unknown) => error,
  );

describe("readers", () => {
  const open = (name: string): { h: Harness; path: string } => {
    const path = join(folder, name);
    const db = new Database(path);
    db.run("PRAGMA journal_mode = WAL");
    return { h: new Harness({}, db), path };
  };

  test("the thread sees every transaction committed before the call", async () => {
    const { h, path } = open("fresh.db");
    const reader = new ThreadReader(path, () => {});
    for (let i = 0; i < 20; i++) {
      const id = h.submit();
      const page = await reader.list({}, 1, null);
      expect(page.tasks[0]?.id).toBe(id);
    }
    const inline = new InlineReader(h.db);
    expect(await reader.list({}, 100, null)).toEqual(await inline.list({}, 100, null));
    reader.close();
    h.db.close();
  });

  test("a bad filter is the caller's fault on the thread too, and it goes on", async () => {
    const { h, path } = open("bad.db");
    h.submit();
    const deaths: Error[] = [];
    const reader = new ThreadReader(path, (error) => deaths.push(error));
    const bad = reader.list({ payload: [{ path: "", value: "1" }] }, 1, null);
    expect(await failureOf(bad)).toBeInstanceOf(BadFilter);
    expect((await reader.list({}, 1, null)).tasks).toHaveLength(1);
    expect(deaths).toEqual([]);
    reader.close();
    expect(String(await failureOf(reader.list({}, 1, null)))).toContain("closed");
    h.db.close();
  });

  test("a thread that dies fails what waits, is reported once, and is replaced", async () => {
    const path = join(folder, "late.db");
    const deaths: Error[] = [];
    const reader = new ThreadReader(path, (error) => deaths.push(error));
    // There is no such file yet: opening it takes the thread down.
    expect(String(await failureOf(reader.list({}, 1, null)))).toContain("reader thread");
    expect(deaths).toHaveLength(1);
    const db = new Database(path);
    db.run("PRAGMA journal_mode = WAL");
    const h = new Harness({}, db);
    const id = h.submit();
    expect((await reader.list({}, 1, null)).tasks[0]?.id).toBe(id);
    expect(deaths).toHaveLength(1);
    reader.close();
    db.close();
  });

  test("a pause that is never lifted delays a read and does not stop it", async () => {
    const { h, path } = open("pause.db");
    h.submit();
    const pause = new SharedArrayBuffer(4);
    Atomics.store(new Int32Array(pause), 0, 1);
    const reader = new ThreadReader(path, () => {}, pause);
    const asked = performance.now();
    expect((await reader.list({}, 1, null)).tasks).toHaveLength(1);
    // The longest pause there is: a reader that holds an old page keeps the WAL from starting over.
    expect(performance.now() - asked).toBeGreaterThan(240);
    reader.close();
    h.db.close();
  });
});
