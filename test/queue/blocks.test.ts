import { describe, expect, test } from "bun:test";
import { BLOCK_ROWS } from "../../src/queue/blocks.ts";
import { listTasks } from "../../src/queue/queries.ts";
import {
  complete,
  Harness,
  idAt,
  misplaced,
  newTask,
  recountBlocks,
  refOf,
  START,
} from "./machine-harness.ts";

/** Submits `count` tasks; `name` by their number. */
function fill(h: Harness, count: number, name: (i: number) => string = () => "work"): string[] {
  const tasks = Array.from({ length: count }, (_, i) => newTask(idAt(START, i), { name: name(i) }));
  for (let from = 0; from < count; from += 500)
    h.value({ type: "submit", tasks: tasks.slice(from, from + 500) });
  return tasks.map(({ id }) => id);
}

function agree(h: Harness): void {
  h.machine.flush();
  const { kept, counted } = recountBlocks(h.db);
  expect(kept).toEqual(counted);
  expect(misplaced(h.db)).toEqual([]);
}

/** How many statements a list took, and what it found. */
function steps(h: Harness, filter: Parameters<typeof listTasks>[1]): { ids: string[]; n: number } {
  let n = 1;
  const { tasks, next } = listTasks(h.db, filter, 100, null, () => n++);
  expect(next).toBeNull();
  return { ids: tasks.map(({ id }) => id), n };
}

describe("blocks", () => {
  test("count the rows of each status, whatever happens to them, and after a restart", () => {
    for (const writeBehind of [0, 100_000]) {
      const h = new Harness({ writeBehind });
      fill(h, 3 * BLOCK_ROWS, (i) => (i % 700 === 0 ? "rare" : "work"));
      agree(h);
      const claimed = h.claim(1_000);
      for (const task of claimed.slice(0, 50)) h.end(refOf(task), complete);
      h.end(refOf(claimed[60] ?? fail()), { kind: "release" });
      agree(h);
      h.reopen();
      for (const task of claimed.slice(100, 120)) h.end(refOf(task), complete);
      h.submit({ id: idAt(START + 1, 1), name: "new" });
      agree(h);
      h.value({ type: "clear", status: "Pending" });
      while (h.machine.clearing()) h.value({ type: "clear-step", term: h.term, max: 1_000 });
      agree(h);
      h.submit({ id: idAt(START + 2, 1), name: "newer" });
      agree(h);
    }
  });

  test("an emptied block is gone with its queues and names, and may be begun again", () => {
    const h = new Harness();
    const table = (): unknown[] => h.db.query("SELECT value FROM places ORDER BY value").all();
    h.submit({ name: "a", queue: "q" });
    expect(table()).toEqual([{ value: "a" }, { value: "q" }]);
    h.value({ type: "clear", status: null });
    h.value({ type: "clear-step", term: h.term, max: 10 });
    expect(table()).toEqual([]);
    expect(h.db.query("SELECT * FROM blocks").all()).toEqual([]);
    const again = h.submit({ name: "a", queue: "q" });
    expect(table()).toEqual([{ value: "a" }, { value: "q" }]);
    expect(steps(h, { name: "a" }).ids).toEqual([again]);
  });

  test("lists read only blocks that hold the status, the queue or the name they ask for", () => {
    const h = new Harness();
    const rare = 5 * BLOCK_ROWS + 7;
    const ids = fill(h, 12 * BLOCK_ROWS, (i) => (i === rare || i === 3 ? "rare" : "work"));
    // Sequences begin at 1, so the numbers of the tasks lie one before them.
    expect(steps(h, { name: "rare" })).toEqual({ ids: [ids[rare] ?? "", ids[3] ?? ""], n: 3 });
    expect(steps(h, { name: "nobody" })).toEqual({ ids: [], n: 1 });
    expect(steps(h, { queue: "nobody" })).toEqual({ ids: [], n: 1 });
    expect(steps(h, { statuses: ["Completed"] })).toEqual({ ids: [], n: 1 });
    const task = h.claim(1, { names: ["rare"] })[0] ?? fail();
    h.end(refOf(task), complete);
    expect(steps(h, { statuses: ["Completed", "Failed"] })).toEqual({ ids: [ids[3] ?? ""], n: 2 });
    expect(steps(h, { name: "rare", statuses: ["Pending"] }).ids).toEqual([ids[rare] ?? ""]);
    expect(steps(h, { name: "rare", statuses: ["Running"] })).toEqual({ ids: [], n: 1 });
  });

  test("a clear of few among many reads some blocks a step, and comes to its end", () => {
    const h = new Harness({ writeBehind: 100_000 });
    fill(h, 20 * BLOCK_ROWS);
    const done: string[] = [];
    for (let left = 20; left > 0; left--) {
      const claimed = h.claim(1_000);
      const last = claimed.at(-1) ?? fail();
      done.push(last.id);
      h.end(refOf(last), complete);
    }
    expect(h.value({ type: "clear", status: "Completed" })).toEqual({
      type: "cleared",
      cleared: 20,
    });
    let steps = 0;
    let removed = 0;
    while (h.machine.clearing()) {
      const value = h.value({ type: "clear-step", term: h.term, max: 1_000 });
      removed += value.type === "done" ? value.count : 0;
      steps++;
    }
    expect(removed).toBe(20);
    expect(steps).toBeGreaterThan(1);
    expect(done.map((id) => h.state(id))).toEqual(Array<string>(20).fill("none"));
    agree(h);
  });
});

function fail(): never {
  throw new Error("there should have been one");
}
