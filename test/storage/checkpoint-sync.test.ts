/** What a checkpoint calls durable outlives a loss of power (S3): the log is forgotten up to there. */
import { Database } from "bun:sqlite";
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { losePower, WriteJournal } from "../cluster/write-journal.ts";
import { canTrace, tracedLife } from "./traced-process.ts";

const PROCESS = join(import.meta.dir, "checkpoint-process.ts");
const folder = mkdtempSync(join(tmpdir(), "flotilla-checkpoint-sync-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test.skipIf(!canTrace)(
  "the state that a checkpoint called durable is on the disk when the power goes",
  async () => {
    const [printed, trace] = await tracedLife(join(folder, "trace"), PROCESS, folder);
    expect(printed).toBe("200");
    const journal = WriteJournal.of(trace);
    expect(await losePower(journal, folder, () => 0)).toBeGreaterThan(0);
    const db = new Database(join(folder, readFileSync(join(folder, "CURRENT"), "utf8").trim()));
    const rows = db.query<{ n: number }, []>("SELECT count(*) AS n FROM t").get()?.n;
    expect(db.query("PRAGMA integrity_check").values()).toEqual([["ok"]]);
    db.close(true);
    expect(rows).toBeWithin(200, 301);
  },
  60_000,
);
