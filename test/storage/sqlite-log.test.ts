import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asIndex, asTerm } from "../../src/raft/types.ts";
import { FatalError } from "../../src/replica/ports.ts";
import { switchCurrent } from "../../src/storage/current-file.ts";
import { LogFile } from "../../src/storage/log-file.ts";
import { SqliteLog } from "../../src/storage/sqlite-log.ts";
import { entry, hard, MEMBER, plain, run, write } from "./entries.ts";
import { failure, logSuite } from "./log-suite.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const TAIL_BYTES = 1024 * 1024;

function temporaryFolder(): string {
  return mkdtempSync(join(tmpdir(), "flotilla-log-"));
}

logSuite("SQLite on a thread", () => {
  const folder = temporaryFolder();
  return {
    store: (member = MEMBER) => new SqliteLog(folder, member),
    makeCurrent: (state) => switchCurrent(folder, state),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
});

describe("the log in SQLite", () => {
  let folder: string;
  beforeEach(() => {
    folder = temporaryFolder();
  });
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  /** Ten entries of term 2, a config at 4, compacted up to 2 when asked. */
  async function fill(compacted = false): Promise<void> {
    const log = new SqliteLog(folder, MEMBER);
    await log.open(TAIL_BYTES);
    const entries = [...run(1, 3, 2), entry(4, 2, "members", "config"), ...run(5, 10, 2)];
    await write(log, { hardState: hard(2, "n3"), entries });
    if (compacted) await log.compact(asIndex(2), asTerm(2));
    await log.close();
  }

  /** Changes one row of the closed file behind the log's back. */
  function tamper(sql: string): void {
    const db = new Database(join(folder, "log.db"), { strict: true });
    expect(db.run(sql).changes).toBe(1);
    db.close(true);
  }

  async function refusal(): Promise<string> {
    const log = new SqliteLog(folder, MEMBER);
    const opening = log.open(TAIL_BYTES);
    const message = await failure(opening);
    await opening.catch((error: unknown) => expect(error).toBeInstanceOf(FatalError));
    return message;
  }

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
    test(`${what} is not the end of the log: nothing is written until it is cut, and its promise is kept`, async () => {
      await fill();
      tamper(sql);
      const log = new SqliteLog(folder, MEMBER);
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
      const again = new SqliteLog(folder, MEMBER);
      const later = await again.open(TAIL_BYTES);
      expect(later.damage).toBeNull();
      expect(later.lastIndex).toBe(asIndex(index));
      expect(later.promised).toEqual(index < 10 ? { index: asIndex(10), term: asTerm(2) } : null);
      if (index < 10) await write(again, { hardState: null, entries: run(index + 1, 10, 2) });
      await again.close();
      const last = new SqliteLog(folder, MEMBER);
      expect((await last.open(TAIL_BYTES)).promised).toBeNull();
      await last.close();
    });
  }

  test("a damaged log takes no write before it is cut", async () => {
    await fill();
    tamper("UPDATE entries SET data = x'00' WHERE idx = 10");
    const { file } = LogFile.open(folder, MEMBER, TAIL_BYTES);
    expect(() => file.commit([{ hardState: hard(3), entries: [] }])).toThrow(
      "entry 10 has a wrong checksum",
    );
    file.close();
    expect(LogFile.open(folder, MEMBER, TAIL_BYTES).recovered.damage?.index).toBe(asIndex(10));
  });

  test("an entry that is found damaged while it is read ends the process", async () => {
    const log = new SqliteLog(folder, MEMBER);
    await log.open(0);
    // More than SQLite's cache holds, and folded out of the WAL: the first ones are read from the file.
    const filler = new Uint8Array(20_000).fill(7);
    for (let from = 1; from <= 1_000; from += 100) {
      const entries = run(from, from + 99, 2).map((each) => entry(each.index, 2, filler));
      if (from === 1) entries[6] = entry(7, 2, "seven ".repeat(3_000));
      await write(log, { hardState: hard(2), entries });
    }
    const path = join(folder, "log.db");
    const bytes = await Bun.file(path).bytes();
    const at = Buffer.from(bytes).indexOf("seven seven");
    expect(at).toBeGreaterThan(0);
    const descriptor = openSync(path, "r+");
    writeSync(descriptor, new Uint8Array([(bytes[at] ?? 0) ^ 1]), 0, 1, at);
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
    test(`${what} is mended from the other of the two rows`, async () => {
      await fill();
      tamper(sql);
      for (let open = 1; open <= 2; open++) {
        const log = new SqliteLog(folder, MEMBER);
        expect((await log.open(TAIL_BYTES)).hardState).toEqual(hard(2, "n3"));
        await log.close();
        tamper(sql.replaceAll("hard_state_copy", "hard_state"));
      }
    });
  }

  test("with both rows damaged the member must not vote, and is refused", async () => {
    await fill();
    tamper("UPDATE hard_state SET vote = 'n2'");
    tamper("UPDATE hard_state_copy SET vote = 'n2'");
    const message = await refusal();
    expect(message).toContain("term and vote have a wrong checksum, and so does their copy");
    expect(message).toContain("remove the member from the cluster, and add it again");
  });

  test("a copy that an older build left behind is not believed", async () => {
    await fill();
    // A build without the copy counted a boot, voted again, and then the bit flipped.
    const crc = Bun.hash.crc32(JSON.stringify(["boot", "2"]));
    tamper(`UPDATE meta SET value = '2', crc = ${crc} WHERE key = 'boot'`);
    tamper("UPDATE hard_state SET vote = 'n2'");
    expect(await refusal()).toContain("term and vote have a wrong checksum");
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
    test(`${what} is refused by name, and says what to do`, async () => {
      await fill();
      tamper(sql);
      const message = await refusal();
      expect(message).toContain(said);
      expect(message).toContain("remove the member from the cluster, and add it again");
    });
  }

  test("damage in what compaction kept is refused", async () => {
    const log = new SqliteLog(folder, MEMBER);
    await log.open(TAIL_BYTES);
    await write(log, { hardState: hard(1), entries: [entry(1, 1, "founding", "bootstrap")] });
    await log.compact(asIndex(1), asTerm(1));
    await log.close();
    tamper("UPDATE foundations SET data = x'00'");
    expect(await refusal()).toContain("entry 1 has a wrong checksum");
  });

  test("a file that is no database is refused", async () => {
    writeFileSync(
      join(folder, "log.db"),
      "not a database, but long enough to look at ".repeat(200),
    );
    expect(await refusal()).toContain("is damaged");
  });

  test("the format of a later build is refused in one sentence", async () => {
    await fill();
    const value = "2";
    const crc = Bun.hash.crc32(JSON.stringify(["format", value]));
    tamper(`UPDATE meta SET value = '${value}', crc = ${crc} WHERE key = 'format'`);
    expect(await refusal()).toContain("has format 2, this build reads 1");
  });

  test("an open log holds its file against others, in this process and outside", async () => {
    await fill();
    const log = new SqliteLog(folder, MEMBER);
    await log.open(TAIL_BYTES);
    const outside = Bun.spawnSync([
      process.execPath,
      "-e",
      `const { Database } = require("bun:sqlite");
       try { new Database(process.argv[1]).query("SELECT count(*) FROM entries").get(); console.log("read"); }
       catch (error) { console.log(error.code); }`,
      join(folder, "log.db"),
    ]);
    expect(outside.stdout.toString().trim()).toBe("SQLITE_BUSY");
    await log.close();
  });

  test("a close really ends it: the next open finds it free, many times over", async () => {
    for (let boot = 1; boot <= 20; boot++) {
      const log = new SqliteLog(folder, MEMBER);
      expect((await log.open(TAIL_BYTES)).identity.boot).toBe(boot);
      log.append({ hardState: null, entries: [entry(boot, 0)] }, () => {});
      await log.close();
    }
  });

  test("a log in the way of steps is compacted whole, and its file shrinks", async () => {
    const log = new SqliteLog(folder, MEMBER);
    await log.open(TAIL_BYTES);
    const count = 12_000;
    const data = new Uint8Array(2_000).fill(7);
    for (let from = 1; from <= count; from += 1_000) {
      const entries = Array.from({ length: 1_000 }, (_, i) => entry(from + i, 1, data));
      await write(log, { hardState: hard(1), entries });
    }
    const before = log.stats();
    expect(before.entries).toBe(count);
    // Writes pass between the steps.
    const compacted = log.compact(asIndex(count - 10), asTerm(1)).then(() => "compacted");
    const written = write(log, { entries: [entry(count + 1, 1)] }).then(() => "written");
    expect(await Promise.race([compacted, written])).toBe("written");
    await compacted;
    const after = log.stats();
    expect(after.entries).toBe(11);
    expect(after.bytes).toBeLessThan(before.bytes / 2);
    await log.close();
    const again = new SqliteLog(folder, MEMBER);
    const recovered = await again.open(TAIL_BYTES);
    expect(recovered.lastIndex).toBe(asIndex(count + 1));
    expect(recovered.tail).toHaveLength(11);
    await again.close();
  });

  test("a compaction that a crash cut short leaves a shorter log without a gap", () => {
    const { file } = LogFile.open(folder, MEMBER, TAIL_BYTES);
    file.commit([{ hardState: hard(1), entries: run(1, 12_000, 1) }]);
    expect(file.compactStep(asIndex(11_000), asTerm(1))).toBe(true);
    file.close();
    const { file: again, recovered } = LogFile.open(folder, MEMBER, TAIL_BYTES);
    expect(recovered.compacted.index).toBe(asIndex(5_000));
    expect(recovered.lastIndex).toBe(asIndex(12_000));
    again.close();
  });

  test("a write of which one part is refused changes nothing of the rest", () => {
    const { file } = LogFile.open(folder, MEMBER, TAIL_BYTES);
    file.commit([{ hardState: hard(1), entries: run(1, 5, 1) }]);
    expect(() =>
      file.commit([
        { hardState: hard(2, "n2"), entries: run(3, 6, 2) },
        { hardState: null, entries: [entry(9, 2)] },
      ]),
    ).toThrow("entry 9 does not fit");
    expect(plain(file.read(asIndex(1), asIndex(9), TAIL_BYTES))).toEqual(plain(run(1, 5, 1)));
    file.close();
    expect(LogFile.open(folder, MEMBER, TAIL_BYTES).recovered.hardState).toEqual(hard(1));
  });

  test("many small writes keep the WAL short", async () => {
    const log = new SqliteLog(folder, MEMBER);
    await log.open(TAIL_BYTES);
    const data = new Uint8Array(64 * 1024);
    let bytesMax = 0;
    for (let i = 1; i <= 600; i++) {
      // The same place again and again: the file stays small, only the WAL could grow.
      await write(log, { entries: [entry(1, 0, data)] });
      if (i % 50 === 0) bytesMax = Math.max(bytesMax, walSize());
    }
    expect(bytesMax).toBeGreaterThan(0);
    expect(bytesMax).toBeLessThan(16 * 1024 * 1024);
    await log.close();
  });

  function walSize(): number {
    return Bun.file(join(folder, "log.db-wal")).size;
  }

  test("a process that is killed in the middle of its appends has lost nothing that it acknowledged", async () => {
    for (let round = 0; round < 3; round++) {
      const child = Bun.spawn(
        [process.execPath, Bun.fileURLToPath(import.meta.resolve("./appender.ts")), folder],
        {
          stdout: "pipe",
          stderr: "inherit",
        },
      );
      let text = "";
      const decoder = new TextDecoder();
      for await (const chunk of child.stdout) {
        text += decoder.decode(chunk, { stream: true });
        if (text.length > 2_000 * (round + 1)) child.kill("SIGKILL");
      }
      await child.exited;
      const lines = text.slice(0, text.lastIndexOf("\n")).split("\n");
      const acknowledged = Number(lines.at(-1));
      expect(acknowledged).toBeGreaterThan(0);
      const log = new SqliteLog(folder, MEMBER);
      const recovered = await log.open(64 * 1024 * 1024);
      expect(Number(recovered.lastIndex)).toBeGreaterThanOrEqual(acknowledged);
      // Term and entries of one write came together: the appender raises the term with every entry.
      expect(Number(recovered.hardState.term)).toBe(Number(recovered.lastIndex));
      await log.close();
    }
  }, 30_000);

  test("a disk that takes no more is told once, and everything acknowledged before is there", async () => {
    // A limit on the size of files stands for the disk; its signal is ignored, so that the write fails instead.
    const child = Bun.spawn(
      [
        "bash",
        "-c",
        'trap "" XFSZ; ulimit -f 512; exec "$0" "$@"',
        process.execPath,
        Bun.fileURLToPath(import.meta.resolve("./appender.ts")),
        folder,
      ],
      { stdout: "pipe", stderr: "inherit" },
    );
    const text = await new Response(child.stdout).text();
    expect(await child.exited).toBe(0);
    const lines = text.trim().split("\n");
    expect(lines.at(-1)).toStartWith("FatalError the log cannot be written: ");
    expect(lines.filter((line) => line.startsWith("FatalError"))).toHaveLength(1);
    const acknowledged = Number(lines.at(-2));
    expect(acknowledged).toBeGreaterThan(0);
    const log = new SqliteLog(folder, MEMBER);
    const { lastIndex } = await log.open(0);
    expect(Number(lastIndex)).toBeGreaterThanOrEqual(acknowledged);
    await log.close();
  });

  test("a bit that flips anywhere in the file never makes the log shorter in silence", async () => {
    await fill();
    const path = join(folder, "log.db");
    const whole = await Bun.file(path).bytes();
    const outcomes = { whole: 0, told: 0, refused: 0 };
    for (let at = 7; at < whole.length; at += 1_901) {
      const flipped = new Uint8Array(whole);
      flipped[at] = (whole[at] ?? 0) ^ (1 << (at % 8));
      rmSync(`${path}-wal`, { force: true });
      writeFileSync(path, flipped);
      try {
        const { file, recovered } = LogFile.open(folder, MEMBER, TAIL_BYTES);
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
  });
});
