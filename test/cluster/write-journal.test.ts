import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { losePower, WriteJournal } from "./write-journal.ts";

const write = (path: string, length: number, offset: number, pid = 7): string =>
  `${pid} pwrite64(3<${path}>, ""..., ${length}, ${offset}) = ${length}`;

describe("a write journal", () => {
  test("knows a write as lost until a sync of the same file succeeded", () => {
    const journal = WriteJournal.of(
      [
        write("/d/log.db-wal", 4096, 32),
        write("/d/state.db-wal", 24, 0),
        "7 fdatasync(3</d/log.db-wal>) = 0",
        write("/d/log.db-wal", 24, 4128),
      ].join("\n"),
    );
    expect([...journal.unsynced()].map(([path, [first]]) => [path, first?.offset])).toEqual([
      ["/d/log.db-wal", 4128],
      ["/d/state.db-wal", 0],
    ]);
    expect(journal.syncs).toBe(1);
  });

  test("does not let a sync cover what was written while it ran, nor one that failed or never returned", () => {
    const journal = WriteJournal.of(
      [
        write("/d/a", 10, 0),
        "8 fdatasync(4</d/a> <unfinished ...>",
        write("/d/a", 10, 10),
        "8 <... fdatasync resumed>) = 0",
        write("/d/b", 10, 0),
        "7 fsync(5</d/b>) = -1 EIO (Input/output error)",
        write("/d/c", 10, 0),
        "9 fsync(6</d/c> <unfinished ...>",
        "9 +++ killed by SIGKILL +++",
      ].join("\n"),
    );
    const offsets = [...journal.unsynced()].map(([path, ranges]) => [path, ranges.length]);
    expect(offsets).toEqual([
      ["/d/a", 1],
      ["/d/b", 1],
      ["/d/c", 1],
    ]);
    expect(journal.ended).toBe(true);
  });

  test("does not let a sync cover a write that had not returned", () => {
    const journal = WriteJournal.of(
      [
        '7 pwrite64(3</d/a>, ""..., 10, 0 <unfinished ...>',
        "8 fdatasync(3</d/a>) = 0",
        "7 <... pwrite64 resumed>) = 10",
      ].join("\n"),
    );
    expect(journal.unsynced().size).toBe(1);
  });

  test("keeps what a killed process left unsynced until its successor syncs the file", () => {
    const killed = [
      write("/d/a", 10, 0),
      '7 pwrite64(3</d/b>, ""..., 10, 0 <unfinished ...>',
      "7 +++ killed by SIGKILL +++",
    ].join("\n");
    expect([...WriteJournal.of(killed, "").unsynced().keys()]).toEqual(["/d/a", "/d/b"]);
    const synced = ["9 fsync(3</d/a>) = 0", "9 fsync(4</d/b>) = 0"].join("\n");
    expect(WriteJournal.of(killed, synced).unsynced().size).toBe(0);
    expect(WriteJournal.of(killed, synced).ended).toBe(false);
  });

  test("follows a rename and forgets what was removed", () => {
    const journal = WriteJournal.of(
      [
        write("/d/CURRENT.new", 20, 0),
        '7 rename("/d/CURRENT.new", "/d/CURRENT") = 0',
        write("/d/gone", 20, 0),
        '7 unlink("/d/gone") = 0',
      ].join("\n"),
    );
    expect([...journal.unsynced().keys()]).toEqual(["/d/CURRENT"]);
  });
});

describe("a loss of power", () => {
  const folder = mkdtempSync(join(tmpdir(), "flotilla-power-"));
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  test("takes what was not synced, and nothing else", async () => {
    const path = join(folder, "file");
    writeFileSync(path, new Uint8Array(4096).fill(7));
    const journal = WriteJournal.of([write(path, 1024, 1024), write(path, 4096, 3072)].join("\n"));
    expect(await losePower(journal, folder, () => 0.5)).toBe(512 + 0);
    const bytes = readFileSync(path);
    expect(bytes.subarray(0, 1536).every((byte) => byte === 7)).toBe(true);
    expect(bytes.subarray(1536, 2048).every((byte) => byte === 0)).toBe(true);
    expect(bytes.subarray(2048).every((byte) => byte === 7)).toBe(true);
    expect(await losePower(journal, folder, () => 1)).toBe(0);
  });
});
