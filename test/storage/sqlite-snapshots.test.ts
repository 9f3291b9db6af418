import type { Database } from "bun:sqlite";
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readCurrent } from "../../src/storage/current-file.ts";
import { SqliteLog } from "../../src/storage/sqlite-log.ts";
import { SqliteSnapshots } from "../../src/storage/sqlite-snapshots.ts";
import { connectState, openStateDatabase } from "../../src/storage/state-database.ts";
import { MEMBER } from "./entries.ts";
import { type MemberPlace, snapshotSuite } from "./snapshot-suite.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const POSITION = "SELECT applied AS 'index', term, 1 AS machineVersion FROM position";

function advance(db: Database, index: number, term: number, bytes: number): void {
  db.transaction(() => {
    db.run("CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY, applied, term, filler)");
    db.run("INSERT OR REPLACE INTO position VALUES (1, ?, ?, randomblob(?))", [index, term, bytes]);
  })();
}

function createPlace(): MemberPlace & { readonly folder: string } {
  const folder = mkdtempSync(join(tmpdir(), "flotilla-snapshots-"));
  return {
    folder,
    open: async (onStep) => {
      let state = openStateDatabase(folder);
      const log = new SqliteLog(folder, MEMBER);
      const recovered = await log.open(1_000);
      const snapshots = new SqliteSnapshots({
        folder,
        log,
        currentState: () => state.name,
        positionQuery: POSITION,
        reopen: (name) => {
          state.db.close(true);
          state = connectState(folder, name);
        },
        ...(onStep === undefined ? {} : { onStep }),
      });
      return {
        log,
        snapshots,
        recovered,
        position: () => {
          const row = state.db.query<{ index: number; term: number }, []>(POSITION).get();
          return { index: row?.index ?? 0, term: row?.term ?? 0 };
        },
        advance: (index, term, bytes) => advance(state.db, index, term, bytes),
        close: async () => {
          await snapshots.close();
          await log.close();
          state.db.close(true);
        },
      };
    },
    leftOvers: () =>
      readdirSync(folder).filter(
        (name) =>
          !/^(?:CURRENT|log\.db(?:-wal|-shm)?)$/.test(name) &&
          !name.startsWith(readCurrent(folder) ?? "nothing"),
      ),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

snapshotSuite("files", createPlace);

test("a copy keeps the incremental vacuum, and an installed state gives its disk back", async () => {
  const places = [createPlace(), createPlace()] as const;
  const source = await places[0].open();
  const target = await places[1].open();
  source.advance(40, 3, 400_000);
  const copy = await source.snapshots.create();
  const manifest = {
    ...copy,
    configuration: { voters: [], outgoing: [], learners: [], learnersNext: [], members: {} },
    bootstrap: { clusterId: "c", createdAt: 0, members: [], settings: null, machineVersion: 1 },
  };
  await target.snapshots.receive(manifest);
  await target.snapshots.write(copy.id, 0, await source.snapshots.read(copy.id, 0, copy.bytes));
  await target.snapshots.verify(copy.id);
  await target.snapshots.install(manifest, []);
  await source.close();
  await target.close();
  const { db } = openStateDatabase(places[1].folder);
  const pragma = (name: string): unknown =>
    Object.values(db.prepare<Record<string, unknown>, []>(`PRAGMA ${name}`).get() ?? {})[0];
  expect(pragma("auto_vacuum")).toBe(2);
  expect(pragma("journal_mode")).toBe("wal");
  db.close(true);
  for (const place of places) place.remove();
});

test("a state that was wrong is kept beside the one that replaced it, and only the newest of its kind", async () => {
  const places = [createPlace(), createPlace()] as const;
  const source = await places[0].open();
  const target = await places[1].open();
  const names: (string | null)[] = [];
  for (let i = 1; i <= 2; i++) {
    source.advance(40 * i, 3, 1_000);
    target.advance(50 * i, 3, 777);
    const copy = await source.snapshots.create();
    const manifest = {
      ...copy,
      configuration: { voters: [], outgoing: [], learners: [], learnersNext: [], members: {} },
      bootstrap: { clusterId: "c", createdAt: 0, members: [], settings: null, machineVersion: 1 },
    };
    await target.snapshots.receive(manifest);
    await target.snapshots.write(copy.id, 0, await source.snapshots.read(copy.id, 0, copy.bytes));
    await target.snapshots.verify(copy.id);
    names.push(readCurrent(places[1].folder));
    await target.snapshots.replaceState(manifest);
    expect(target.position()).toEqual({ index: 40 * i, term: 3 });
  }
  await source.close();
  await target.close();
  const kept = `wrong-${names[1]}`;
  expect(places[1].leftOvers().filter((file) => file.endsWith(".db"))).toEqual([kept]);
  const { db } = connectState(places[1].folder, kept);
  expect(db.query<{ index: number }, []>(POSITION).get()?.index).toBe(100);
  db.close(true);
  for (const place of places) place.remove();
});
