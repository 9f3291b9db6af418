import { afterEach, beforeEach, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ThreadAuditor } from "../../src/queue/auditor.ts";
import { StateDamage } from "../../src/replica/ports.ts";
import { openStateDatabase } from "../../src/storage/state-database.ts";
import { Harness } from "./machine-harness.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "flotilla-audit-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

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
