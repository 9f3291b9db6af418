/** What a log in SQLite does about bits that flip in its file, and rows that are gone (docs/storage.md). */
import { Database } from "bun:sqlite";
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asIndex, asTerm } from "../../src/raft/types.ts";
import { FatalError } from "../../src/replica/ports.ts";
import { LogFile } from "../../src/storage/log-file.ts";
import { SqliteLog } from "../../src/storage/sqlite-log.ts";
import { entry, hard, MEMBER, run, write } from "./entries.ts";
import { failure } from "./log-suite.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(60_000);

const TAIL_BYTES = 1024 * 1024;

/** A folder with a log that nobody has open. */
class ClosedLog {
  readonly folder = mkdtempSync(join(tmpdir(), "flotilla-damage-"));

  /** Ten entries of term 2, a config at 4. */
  async fill(): Promise<void> {
    const log = new SqliteLog(this.folder, MEMBER);
    await log.open(TAIL_BYTES);
    const entries = [...run(1, 3, 2), entry(4, 2, "members", "config"), ...run(5, 10, 2)];
    await write(log, { hardState: hard(2, "n3"), entries });
    await log.close();
  }

  /** Changes one row behind the log's back. */
  tamper(sql: string): void {
    const db = new Database(join(this.folder, "log.db"), { strict: true });
    expect(db.run(sql).changes).toBe(1);
    db.close(true);
  }

  /** What an open says that refuses the file. */
  async refusal(): Promise<string> {
    const log = new SqliteLog(this.folder, MEMBER);
    const opening = log.open(TAIL_BYTES);
    const message = await failure(opening);
    await opening.catch((error: unknown) => expect(error).toBeInstanceOf(FatalError));
    return message;
  }
}

/** Each test has a folder for itself: what a real disk costs is waiting, so all run at the same time. */
function each(what: string, run: (at: ClosedLog) => Promise<void>): void {
  test.concurrent(what, async () => {
    const at = new ClosedLog();
    try {
      await run(at);
    } finally {
      rmSync(at.folder, { recursive: true, force: true });
    }
  });
}

describe("a damaged log", () => {
  /** Each with the entry that is found damaged, and what is said of it. */
  const damagedEntries: readonly (readonly [string, string, number, string])[] = [
    [
      "a flipped bit in an entry's data",
      "UPDATE entries SET data = CAST('Entry 7 of term 2' AS BLOB) WHERE idx = 7",
      7,
      "entry 7 has a wrong checksum",
    ],
    [
      "a flipped bit in an entry's term",
      "UPDATE entries SET term = 3 WHERE idx = 10",
      10,
      "entry 10 has a wrong checksum",
    ],
    [
      "a command that became a config",
      "UPDATE entries SET kind = 2 WHERE idx = 5",
      5,
      "entry 5 has a wrong checksum",
    ],
    [
      "an unknown kind",
      "UPDATE entries SET kind = 9 WHERE idx = 5",
      5,
      "entry 5 has a wrong checksum",
    ],
    [
      "a damaged newest entry",
      "UPDATE entries SET data = x'00' WHERE idx = 10",
      10,
      "entry 10 has a wrong checksum",
    ],
    [
      "a missing entry",
      "DELETE FROM entries WHERE idx = 6",
      6,
      "entry 6 is missing, the next one is 7",
    ],
    [
      "a missing first entry",
      "DELETE FROM entries WHERE idx = 1",
      1,
      "entry 1 is missing, the next one is 2",
    ],
  ];
  for (const [what, sql, index, said] of damagedEntries) {
    each(
      `${what} is not the end of the log: nothing is written until it is cut, and its promise is kept`,
      async (at) => {
        await at.fill();
        at.tamper(sql);
        const log = new SqliteLog(at.folder, MEMBER);
        const { damage, lastIndex, tail, hardState } = await log.open(TAIL_BYTES);
        expect(damage?.index).toBe(asIndex(index));
        expect(damage?.what).toContain(said);
        expect(damage?.promised).toEqual({ index: asIndex(10), term: asTerm(2) });
        expect(hardState).toEqual(hard(2, "n3"));
        expect(lastIndex).toBe(asIndex(index - 1));
        expect(tail.length).toBe(index - 1);
        await log.cut();
        await write(log, { hardState: null, entries: [entry(index, 2)] });
        await log.close();
        // As long as the log is shorter than what it promised, it says so.
        const again = new SqliteLog(at.folder, MEMBER);
        const later = await again.open(TAIL_BYTES);
        expect(later.damage).toBeNull();
        expect(later.lastIndex).toBe(asIndex(index));
        expect(later.promised).toEqual(index < 10 ? { index: asIndex(10), term: asTerm(2) } : null);
        if (index < 10) await write(again, { hardState: null, entries: run(index + 1, 10, 2) });
        await again.close();
        const last = new SqliteLog(at.folder, MEMBER);
        expect((await last.open(TAIL_BYTES)).promised).toBeNull();
        await last.close();
      },
    );
  }

  each("a damaged log takes no write before it is cut", async (at) => {
    await at.fill();
    at.tamper("UPDATE entries SET data = x'00' WHERE idx = 10");
    const { file } = LogFile.open(at.folder, MEMBER, TAIL_BYTES);
    expect(() => file.commit([{ hardState: hard(3), entries: [] }])).toThrow(
      "entry 10 has a wrong checksum",
    );
    file.close();
    expect(LogFile.open(at.folder, MEMBER, TAIL_BYTES).recovered.damage?.index).toBe(asIndex(10));
  });

  each("an entry that is found damaged while it is read ends the process", async (at) => {
    const log = new SqliteLog(at.folder, MEMBER);
    await log.open(0);
    // More than SQLite's cache holds, and folded out of the WAL: the first ones are read from the file.
    const filler = new Uint8Array(20_000).fill(7);
    for (let from = 1; from <= 1_000; from += 100) {
      const entries = run(from, from + 99, 2).map((each) => entry(each.index, 2, filler));
      if (from === 1) entries[6] = entry(7, 2, "seven ".repeat(3_000));
      await write(log, { hardState: hard(2), entries });
    }
    const path = join(at.folder, "log.db");
    const bytes = await Bun.file(path).bytes();
    const offset = Buffer.from(bytes).indexOf("seven seven");
    expect(offset).toBeGreaterThan(0);
    const descriptor = openSync(path, "r+");
    writeSync(descriptor, new Uint8Array([(bytes[offset] ?? 0) ^ 1]), 0, 1, offset);
    closeSync(descriptor);
    const failures: Error[] = [];
    log.onFailure((error) => failures.push(error));
    expect(await failure(log.read(asIndex(1), asIndex(10), TAIL_BYTES))).toContain(
      "entry 7 has a wrong checksum",
    );
    await log.close();
    expect(failures).toHaveLength(1);
    expect(String(failures[0])).toContain("entry 7 has a wrong checksum");
  });

  const damagedVotes: readonly (readonly [string, string])[] = [
    ["a flipped bit in the term", "UPDATE hard_state SET term = 3"],
    ["a vote for somebody else", "UPDATE hard_state SET vote = 'n2'"],
    ["a vote that is gone", "UPDATE hard_state SET vote = NULL"],
    ["a missing hard state", "DELETE FROM hard_state"],
    ["a flipped bit in the copy", "UPDATE hard_state_copy SET term = 3"],
    ["a missing copy", "DELETE FROM hard_state_copy"],
  ];
  for (const [what, sql] of damagedVotes) {
    each(`${what} is mended from the other of the two rows`, async (at) => {
      await at.fill();
      at.tamper(sql);
      for (let open = 1; open <= 2; open++) {
        const log = new SqliteLog(at.folder, MEMBER);
        expect((await log.open(TAIL_BYTES)).hardState).toEqual(hard(2, "n3"));
        await log.close();
        at.tamper(sql.replaceAll("hard_state_copy", "hard_state"));
      }
    });
  }

  each("with both rows damaged the member must not vote, and is refused", async (at) => {
    await at.fill();
    at.tamper("UPDATE hard_state SET vote = 'n2'");
    at.tamper("UPDATE hard_state_copy SET vote = 'n2'");
    const message = await at.refusal();
    expect(message).toContain("term and vote have a wrong checksum, and so does their copy");
    expect(message).toContain("remove the member from the cluster, and add it again");
  });

  each("a copy that an older build left behind is not believed", async (at) => {
    await at.fill();
    // A build without the copy counted a boot, voted again, and then the bit flipped.
    const crc = Bun.hash.crc32(JSON.stringify(["boot", "2"]));
    at.tamper(`UPDATE meta SET value = '2', crc = ${crc} WHERE key = 'boot'`);
    at.tamper("UPDATE hard_state SET vote = 'n2'");
    expect(await at.refusal()).toContain("term and vote have a wrong checksum");
  });

  const damages: readonly (readonly [string, string, string])[] = [
    [
      "a changed name",
      "UPDATE meta SET value = 'n2' WHERE key = 'id'",
      "its id has a wrong checksum",
    ],
    [
      "a missing incarnation",
      "DELETE FROM meta WHERE key = 'incarnation'",
      "does not say whose it is",
    ],
    [
      "a changed beginning",
      "UPDATE meta SET value = '1:2' WHERE key = 'compacted'",
      "its compacted has a wrong checksum",
    ],
    [
      "a missing beginning",
      "DELETE FROM meta WHERE key = 'compacted'",
      "does not say where it begins",
    ],
  ];
  for (const [what, sql, said] of damages) {
    each(`${what} is refused by name, and says what to do`, async (at) => {
      await at.fill();
      at.tamper(sql);
      const message = await at.refusal();
      expect(message).toContain(said);
      expect(message).toContain("remove the member from the cluster, and add it again");
    });
  }

  each("damage in what compaction kept is refused", async (at) => {
    const log = new SqliteLog(at.folder, MEMBER);
    await log.open(TAIL_BYTES);
    await write(log, { hardState: hard(1), entries: [entry(1, 1, "founding", "bootstrap")] });
    await log.compact(asIndex(1), asTerm(1));
    await log.close();
    at.tamper("UPDATE foundations SET data = x'00'");
    expect(await at.refusal()).toContain("entry 1 has a wrong checksum");
  });

  each("a file that is no database is refused", async (at) => {
    writeFileSync(
      join(at.folder, "log.db"),
      "not a database, but long enough to look at ".repeat(200),
    );
    expect(await at.refusal()).toContain("is damaged");
  });

  each("the format of a later build is refused in one sentence", async (at) => {
    await at.fill();
    const value = "2";
    const crc = Bun.hash.crc32(JSON.stringify(["format", value]));
    at.tamper(`UPDATE meta SET value = '${value}', crc = ${crc} WHERE key = 'format'`);
    expect(await at.refusal()).toContain("has format 2, this build reads 1");
  });

  each(
    "a bit that flips anywhere in the file never makes the log shorter in silence",
    async (at) => {
      await at.fill();
      const path = join(at.folder, "log.db");
      const whole = await Bun.file(path).bytes();
      const outcomes = { whole: 0, told: 0, refused: 0 };
      for (let offset = 7; offset < whole.length; offset += 1_901) {
        const flipped = new Uint8Array(whole);
        flipped[offset] = (whole[offset] ?? 0) ^ (1 << (offset % 8));
        rmSync(`${path}-wal`, { force: true });
        writeFileSync(path, flipped);
        try {
          const { file, recovered } = LogFile.open(at.folder, MEMBER, TAIL_BYTES);
          file.close();
          expect(recovered.hardState).toEqual(hard(2, "n3"));
          if (recovered.damage === null) expect(recovered.lastIndex).toBe(asIndex(10));
          outcomes[recovered.damage === null ? "whole" : "told"] += 1;
        } catch (error) {
          expect(error).toBeInstanceOf(FatalError);
          outcomes.refused += 1;
        }
      }
      expect(outcomes.whole + outcomes.told + outcomes.refused).toBeGreaterThan(10);
    },
  );
});
