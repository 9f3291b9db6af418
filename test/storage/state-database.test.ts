import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isComplete, StateCheckpointer } from "../../src/storage/state-checkpointer.ts";
import { openStateDatabase } from "../../src/storage/state-database.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "flotilla-state-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe("the state database", () => {
  test("is created under a name that CURRENT holds, and found again", () => {
    const first = openStateDatabase(folder);
    first.db.run("CREATE TABLE t (n INTEGER) STRICT");
    first.db.run("INSERT INTO t VALUES (7)");
    first.db.close(true);
    const name = readFileSync(join(folder, "CURRENT"), "utf8").trim();
    expect(name).toMatch(/^state-0-[0-9a-f]+\.db$/);
    const again = openStateDatabase(folder);
    expect(again.path).toBe(join(folder, name));
    expect(again.db.query<{ n: number }, []>("SELECT n FROM t").get()).toEqual({ n: 7 });
    again.db.close(true);
  });

  test("has the settings that its promises rest on", () => {
    const { db } = openStateDatabase(folder);
    const read = (name: string): unknown =>
      Object.values(db.query<Record<string, unknown>, []>(`PRAGMA ${name}`).get() ?? {})[0];
    expect(read("journal_mode")).toBe("wal");
    expect(read("synchronous")).toBe(1);
    expect(read("wal_autocheckpoint")).toBe(0);
    expect(read("auto_vacuum")).toBe(2);
    db.close(true);
  });

  test("follows CURRENT to an installed one and sweeps the old one away with its -wal and -shm", () => {
    const old = openStateDatabase(folder);
    old.db.run("CREATE TABLE t (n INTEGER) STRICT");
    const installed = "state-42-00ff.db";
    const copy = new Database(join(folder, installed));
    copy.run("CREATE TABLE installed (n INTEGER) STRICT");
    copy.close(true);
    writeFileSync(join(folder, "CURRENT"), `${installed}\n`);
    // The old one was never closed: its -wal still holds the table.
    expect(readdirSync(folder).some((name) => name.endsWith("-wal"))).toBe(true);
    const now = openStateDatabase(folder);
    expect(now.path).toBe(join(folder, installed));
    now.db.run("INSERT INTO installed VALUES (1)");
    now.db.close(true);
    expect(readdirSync(folder).sort()).toEqual(["CURRENT", installed]);
    old.db.close(true);
  });

  test("a name in CURRENT that is not there is refused, and nothing is deleted", () => {
    writeFileSync(join(folder, "CURRENT"), "state-9-aa.db\n");
    writeFileSync(join(folder, "state-8-bb.db"), "precious");
    expect(() => openStateDatabase(folder)).toThrow("names state-9-aa.db, which is not there");
    expect(readdirSync(folder)).toContain("state-8-bb.db");
  });

  test("CURRENT that names anything else is refused", () => {
    writeFileSync(join(folder, "CURRENT"), "../log.db\n");
    expect(() => openStateDatabase(folder)).toThrow("does not hold the name of a state database");
  });

  test("without CURRENT a state that was in use is never swept away", () => {
    const { db } = openStateDatabase(folder);
    for (let i = 0; i < 20; i++) db.run(`CREATE TABLE t${i} (n INTEGER) STRICT`);
    db.close(true);
    rmSync(join(folder, "CURRENT"));
    expect(() => openStateDatabase(folder)).toThrow("CURRENT is missing");
    expect(readdirSync(folder)).toHaveLength(1);
  });

  test("what a first start left before it wrote CURRENT is swept away", () => {
    openStateDatabase(folder).db.close(true);
    rmSync(join(folder, "CURRENT"));
    openStateDatabase(folder).db.close(true);
    expect(readdirSync(folder)).toHaveLength(2);
  });
});

describe("the state checkpointer", () => {
  test("busy = 0 alone is not done: all of the WAL must be in the file", () => {
    expect(isComplete({ busy: 0, log: 10, checkpointed: 10 })).toBe(true);
    expect(isComplete({ busy: 0, log: 10, checkpointed: 4 })).toBe(false);
    expect(isComplete({ busy: 1, log: 10, checkpointed: 10 })).toBe(false);
    expect(isComplete({ busy: 0, log: -1, checkpointed: -1 })).toBe(false);
  });

  test("a reader that pins the WAL keeps the applied index from being called durable", async () => {
    const { db, path } = openStateDatabase(folder);
    db.run("CREATE TABLE t (n INTEGER) STRICT");
    let applied = 1;
    const checkpointer = new StateCheckpointer({
      path,
      appliedIndex: () => applied,
      hold: () => () => {},
    });
    expect((await checkpointer.run()).durableApplied).toBe(1);
    const reader = new Database(path, { readonly: true });
    reader.run("BEGIN");
    reader.query("SELECT count(*) FROM t").get();
    for (applied = 2; applied < 50; applied++) db.run("INSERT INTO t VALUES (1)");
    expect((await checkpointer.run()).durableApplied).toBeNull();
    reader.run("COMMIT");
    expect((await checkpointer.run()).durableApplied).toBe(50);
    await checkpointer.close();
    reader.close(true);
    db.close(true);
  });

  test("readers that settle before the last step do not keep it from its end, and are waited for before applies are held", async () => {
    const { db, path } = openStateDatabase(folder);
    db.run("CREATE TABLE t (n INTEGER) STRICT");
    const reader = new Database(path, { readonly: true });
    const order: string[] = [];
    const checkpointer = new StateCheckpointer({
      path,
      appliedIndex: () => 7,
      settle: async () => {
        await Bun.sleep(20);
        reader.run("COMMIT");
        order.push("settled");
      },
      hold: () => {
        order.push("held");
        return () => {};
      },
    });
    reader.run("BEGIN");
    reader.query("SELECT count(*) FROM t").get();
    for (let n = 0; n < 50; n++) db.run("INSERT INTO t VALUES (1)");
    expect((await checkpointer.run()).durableApplied).toBe(7);
    expect(order).toEqual(["settled", "held"]);
    await checkpointer.close();
    reader.close(true);
    db.close(true);
  });

  test("what is called durable was applied before the checkpoint that moved it, whatever is applied meanwhile", async () => {
    const { db, path } = openStateDatabase(folder);
    db.run("CREATE TABLE t (n INTEGER) STRICT");
    let applied = 0;
    const seen: number[] = [];
    const checkpointer = new StateCheckpointer({
      path,
      // An owner that holds nothing: each look finds one more.
      appliedIndex: () => ++applied,
      hold: () => {
        seen.push(applied + 1);
        return () => void (applied += 1_000);
      },
    });
    for (let i = 0; i < 5; i++) {
      db.run("INSERT INTO t VALUES (1)");
      const { durableApplied } = await checkpointer.run();
      expect(durableApplied).toBe(seen.at(-1) ?? -1);
    }
    await checkpointer.close();
    db.close(true);
  });

  test("the WAL stays bounded under writes that never pause but for the hold", async () => {
    const { db, path } = openStateDatabase(folder);
    db.run("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT) STRICT");
    const insert = db.prepare("INSERT OR REPLACE INTO t VALUES (?, ?)");
    let applied = 0;
    let held = false;
    let resume: (() => void) | null = null;
    const stop = new AbortController();
    const text = "x".repeat(2_000);
    const writer = (async () => {
      while (!stop.signal.aborted) {
        if (held) await new Promise<void>((resolve) => (resume = resolve));
        db.transaction(() => {
          for (let i = 0; i < 20; i++) insert.run((applied * 20 + i) % 2_000, text);
        })();
        applied += 1;
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    const checkpointer = new StateCheckpointer({
      path,
      appliedIndex: () => applied,
      hold: () => {
        held = true;
        return () => {
          held = false;
          resume?.();
        };
      },
    });
    let appliedAtHold = 0;
    for (let i = 0; i < 15; i++) {
      const { durableApplied } = await checkpointer.run();
      expect(durableApplied).not.toBeNull();
      expect(durableApplied ?? 0).toBeGreaterThanOrEqual(appliedAtHold);
      appliedAtHold = applied;
      await Bun.sleep(20);
    }
    stop.abort();
    await writer;
    const written = applied * 20 * text.length;
    const wal = Bun.file(`${path}-wal`).size;
    // It started over many times: its file is a fraction of what went through it.
    expect(wal).toBeLessThan(written / 4);
    await checkpointer.close();
    db.close(true);
  }, 20_000);

  test("applies go on when the checkpoint fails, and calls at once share one run", async () => {
    let holds = 0;
    let released = 0;
    const { db, path } = openStateDatabase(folder);
    const target = { path };
    const checkpointer = new StateCheckpointer({
      path: () => target.path,
      appliedIndex: () => 1,
      hold: () => {
        holds += 1;
        target.path = join(folder, "missing.db");
        return () => (released += 1);
      },
    });
    const [first, second] = [checkpointer.run(), checkpointer.run()];
    expect(first).toBe(second);
    let message = "";
    await first.catch((error: unknown) => (message = String(error)));
    expect(message).toContain("the state checkpoint failed");
    expect([holds, released]).toEqual([1, 1]);
    // The thread lives on: the next run may find the disk well.
    target.path = path;
    await checkpointer.run().catch(() => undefined);
    expect(released).toBe(2);
    await checkpointer.close();
    await checkpointer.run().then(
      () => expect.unreachable(),
      (error: unknown) => expect(String(error)).toContain("the checkpointer is closed"),
    );
    db.close(true);
  });
});
