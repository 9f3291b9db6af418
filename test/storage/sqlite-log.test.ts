import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asIndex, asTerm } from "../../src/raft/types.ts";
import { switchCurrent } from "../../src/storage/current-file.ts";
import { LogFile } from "../../src/storage/log-file.ts";
import { SqliteLog } from "../../src/storage/sqlite-log.ts";
import { catchUp } from "../../src/system/clock.ts";
import { entry, hard, MEMBER, plain, run, write } from "./entries.ts";
import { logSuite } from "./log-suite.ts";

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

  /** Ten entries of term 2, a config at 4. */
  async function fill(): Promise<void> {
    const log = new SqliteLog(folder, MEMBER);
    await log.open(TAIL_BYTES);
    const entries = [...run(1, 3, 2), entry(4, 2, "members", "config"), ...run(5, 10, 2)];
    await write(log, { hardState: hard(2, "n3"), entries });
    await log.close();
  }

  test("what became durable is acknowledged in the middle of a turn, once and in its order", async () => {
    const log = new SqliteLog(folder, MEMBER);
    await log.open(TAIL_BYTES);
    const acknowledged: number[] = [];
    const append = (index: number): void =>
      log.append({ hardState: null, entries: [entry(index, 2)] }, () => acknowledged.push(index));
    append(1);
    append(2);
    log.flush();
    // No turn ends here, so nothing arrives by itself.
    const until = performance.now() + 20_000;
    while (acknowledged.length < 2 && performance.now() < until) catchUp();
    expect(acknowledged).toEqual([1, 2]);
    append(3);
    while (acknowledged.length < 3) await Bun.sleep(1);
    expect(acknowledged).toEqual([1, 2, 3]);
    expect(log.stats().writes).toBe(3);
    await log.close();
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

  test("a step of compaction that dies before it says how far it came has forgotten nothing", () => {
    const { file } = LogFile.open(folder, MEMBER, TAIL_BYTES);
    file.commit([{ hardState: hard(1), entries: run(1, 100, 1) }]);
    file.close();
    const raw = (sql: string): void => {
      const db = new Database(join(folder, "log.db"));
      db.run(sql);
      db.close(true);
    };
    raw(
      "CREATE TRIGGER dies BEFORE INSERT ON meta WHEN NEW.key = 'compacted' BEGIN SELECT RAISE(ABORT, 'here'); END",
    );
    const { file: dying } = LogFile.open(folder, MEMBER, TAIL_BYTES);
    expect(() => dying.compactStep(asIndex(90), asTerm(1))).toThrow("here");
    dying.close();
    raw("DROP TRIGGER dies");
    const { file: again, recovered } = LogFile.open(folder, MEMBER, TAIL_BYTES);
    expect(recovered.damage).toBeNull();
    expect(recovered.compacted.index).toBe(asIndex(0));
    expect(plain(again.read(asIndex(1), asIndex(100), TAIL_BYTES))).toEqual(plain(run(1, 100, 1)));
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
});
