import { Database } from "bun:sqlite";
import { afterEach, beforeEach, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, readSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ThreadAuditor } from "../../src/queue/auditor.ts";
import { indexFault } from "../../src/queue/index-check.ts";
import { StateDamage } from "../../src/replica/ports.ts";
import { openStateDatabase } from "../../src/storage/state-database.ts";
import { Harness } from "./machine-harness.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "flotilla-audit-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** The file of a state with so many waiting tasks. */
function stateOf(tasks: number): string {
  const { db, path } = openStateDatabase(folder);
  const harness = new Harness({}, db);
  for (let i = 0; i < tasks; i++) harness.submit();
  harness.machine.flush();
  db.close(true);
  return path;
}

/** The index' page goes back to what it was before `change`, as when a disk loses a write. It is one page. */
function loseIndexWrite(path: string, index: string, change: string): void {
  const db = new Database(path);
  const page = db
    .query<{ rootpage: number }, [string]>("SELECT rootpage FROM sqlite_schema WHERE name = ?")
    .get(index)?.rootpage;
  db.run("PRAGMA wal_checkpoint(TRUNCATE)");
  const at = ((page ?? 0) - 1) * 4_096;
  const before = new Uint8Array(4_096);
  const file = openSync(path, "r+");
  readSync(file, before, 0, before.length, at);
  expect(before[0]).toBe(LEAF);
  db.run(change);
  // A reader that is still there would keep the change in the WAL, over what is put back below.
  expect(db.query("PRAGMA wal_checkpoint(TRUNCATE)").get()).toMatchObject({ busy: 0 });
  db.close(true);
  writeSync(file, before, 0, before.length, at);
  closeSync(file);
}

/** First byte of a page that is the whole of an index. */
const LEAF = 10;

test.each([
  ["sqlite_autoindex_tasks_1", "id", "UPDATE tasks SET id = 'another' WHERE seq = 5"],
  ["tasks_due", "tasks_due", "UPDATE tasks SET due_at = due_at + 1 WHERE seq = 15"],
  ["tasks_ready", "tasks_ready", "UPDATE tasks SET priority = 6 WHERE seq = 10"],
  ["tasks_running", "tasks_running", "UPDATE tasks SET status = 1 WHERE seq = 20"],
  ["tasks_final", "tasks_final", "UPDATE tasks SET completed_at = 7 WHERE seq = 19"],
])("an index that lost a write is damage: %s", async (index, name, change) => {
  const { db, path } = openStateDatabase(folder);
  const harness = new Harness({}, db);
  for (let i = 0; i < 30; i++) harness.submit(i % 2 === 0 ? { run_at: harness.now + 60_000 } : {});
  harness.machine.flush();
  db.close(true);
  const auditor = new ThreadAuditor(path);
  try {
    expect(await auditor.read(null, () => undefined)).toMatchObject({ next: null });
    auditor.reopen(path);
    loseIndexWrite(path, index, change);
    const said = await auditor.read(null, () => undefined).catch((error: unknown) => error);
    expect(said).toBeInstanceOf(StateDamage);
    expect(String(said)).toMatch(new RegExp(`the index ${name} of the tasks lacks row \\d+`));
  } finally {
    auditor.close();
  }
});

test("a lost write is found behind the first piece of a slice, too", async () => {
  const path = stateOf(600);
  loseIndexWrite(path, "tasks_running", "UPDATE tasks SET status = 1 WHERE seq = 580");
  const read = new Database(path, { readonly: true });
  let rests = 0;
  const rest = (): number => (rests += 1);
  expect(indexFault(read, 0, 579, rest)).toBeNull();
  expect(rests).toBe(3);
  expect(indexFault(read, 0, 600)).toBe("the index tasks_running of the tasks lacks row 580");
  expect(indexFault(read, 580, Number.MAX_SAFE_INTEGER)).toBeNull();
  read.close(true);
});

test("who waits for the slice that is being read hears of its end, also where it fails", async () => {
  const auditor = new ThreadAuditor(stateOf(500));
  await auditor.settled();
  const read = auditor.read(null, () => undefined);
  await auditor.settled();
  // Or this one would be refused: a slice was being read already.
  await auditor.read(null, () => undefined);
  await read;
  const failing = auditor.read(null, () => undefined).catch((error: unknown) => String(error));
  const waiting = auditor.settled();
  auditor.close();
  await waiting;
  expect(await failing).toContain("the audit is closed");
});

test("rows are read on a thread, and a file that SQLite finds malformed is damaged", async () => {
  const { db, path } = openStateDatabase(folder);
  const harness = new Harness({}, db);
  for (let i = 0; i < 100; i++) harness.submit({ payload: JSON.stringify("x".repeat(500)) });
  harness.machine.flush();
  db.run("PRAGMA wal_checkpoint(TRUNCATE)");
  db.close(true);
  const read = async (): Promise<unknown> => {
    const auditor = new ThreadAuditor(path);
    try {
      return await auditor.read(null, () => undefined).catch((error: unknown) => error);
    } finally {
      auditor.close();
    }
  };
  expect(await read()).toMatchObject({ next: null });

  // The head of every page that a b-tree may have here.
  const file = openSync(path, "r+");
  for (let at = 4_096; at < statSync(path).size; at += 4_096)
    writeSync(file, new Uint8Array(64).fill(0xa5), 0, 64, at);
  closeSync(file);
  expect(await read()).toBeInstanceOf(StateDamage);
});
