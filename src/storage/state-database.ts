/**
 * The state database: tasks and all else that the machine keeps. It can always be replayed from the log, so
 * it never waits for the disk (`synchronous=NORMAL`).
 *
 * Its name is written in the file `CURRENT`. A database is never renamed over a live name, because a left-over
 * `-wal` of the old one would be replayed into the new one (S5): a new one gets a new name, `CURRENT` is
 * switched, and the old one is deleted with its `-wal` and `-shm`.
 */
import { Database } from "bun:sqlite";
import { existsSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FatalError } from "../replica/ports.ts";
import {
  currentPath,
  freshStateName,
  isStateName,
  readCurrent,
  switchCurrent,
} from "./current-file.ts";
import { syncPath } from "./durable-files.ts";
import { noRoomAtStart } from "./no-room.ts";
import { isLeftOver } from "./snapshot-files.ts";

/** A database without a table is not larger than a few pages of 4 KiB. */
const UNUSED_BYTES_MAX = 12 * 1024;
/** Between two checkpoints a busy member writes more than this; an idle one needs none of it. */
const WAL_BYTES_KEPT = 4 * 1024 * 1024;
/** Checking takes about 7 ms a MiB in full and half of it quickly, before the member serves; larger ones are not. */
const FULL_CHECK_BYTES_MAX = 128 * 1024 * 1024;
const QUICK_CHECK_BYTES_MAX = 512 * 1024 * 1024;
/** Beside a database that is not to be believed. */
const MARK = ".damaged";
/** A checkpoint, or a reader that recovers the WAL, holds the file for moments. */
const BUSY_TIMEOUT_MS = 5_000;

export interface StateDatabase {
  /** The writer's connection; whoever opened it closes it. */
  readonly db: Database;
  /** Absolute when `folder` is. For readers and the checkpointer. */
  readonly path: string;
  /** The file's name within the folder. */
  readonly name: string;
  /**
   * A sentence when what the file holds cannot be believed; `db` is then an empty one in memory, and the file is as it
   * was. Whoever knows the log decides what becomes of it.
   */
  readonly damage: string | null;
}

/**
 * Opens the database that `CURRENT` names, creating both in an empty folder, checks it, and removes state files that
 * nothing refers to any more. @throws FatalError when CURRENT names what is not there, or SQLite refuses
 */
export function openStateDatabase(folder: string): StateDatabase {
  const name = currentName(folder) ?? createFirst(folder);
  removeStale(folder, name);
  const path = join(folder, name);
  const broken = (damage: string): StateDatabase => ({
    db: new Database(":memory:", { strict: true }),
    path,
    name,
    damage: `${path} is damaged (${damage})`,
  });
  if (existsSync(`${path}${MARK}`)) return broken("found when it was used");
  let db: Database | null = null;
  try {
    db = connect(path, { readwrite: true, create: false, strict: true });
    const damage = whatIsWrong(db, sizeOf(path));
    if (damage === null) return { db, path, name, damage };
    db.close(true);
    return broken(damage);
  } catch (error) {
    db?.close(true);
    if (isDamage(error)) return broken(error.message);
    throw refusal(path, error);
  }
}

/** Opens this database of the folder, whatever CURRENT says. @throws FatalError when SQLite refuses */
export function connectState(folder: string, name: string): StateDatabase {
  const path = join(folder, name);
  try {
    const db = connect(path, { readwrite: true, create: false, strict: true });
    return { db, path, name, damage: null };
  } catch (error) {
    throw refusal(path, error);
  }
}

/** SQLite says that a file is not what it wrote. */
export function isDamage(error: unknown): error is Error {
  if (!(error instanceof Error) || !("code" in error)) return false;
  return /^SQLITE_(?:CORRUPT|NOTADB)/.test(String(error.code));
}

/** The state turned out to be damaged while it was used: the next start does not believe it. Best effort. */
export function markDamaged(path: string): void {
  try {
    writeFileSync(`${path}${MARK}`, "");
  } catch {
    // A disk that takes no file is the greater trouble.
  }
}

/** Null when SQLite finds nothing. A bit that flipped inside a text is nothing to SQLite: see docs/storage.md. */
function whatIsWrong(db: Database, bytes: number): string | null {
  if (bytes > QUICK_CHECK_BYTES_MAX) return null;
  const check = bytes > FULL_CHECK_BYTES_MAX ? "quick_check" : "integrity_check";
  const row = db.prepare<Record<string, unknown>, []>(`PRAGMA ${check}(1)`).get();
  const said = String(Object.values(row ?? {})[0]);
  return said === "ok" ? null : said.replaceAll("\n", " ");
}

function refusal(path: string, error: unknown): FatalError {
  const reason = error instanceof Error ? error.message : String(error);
  const full = noRoomAtStart(path, error);
  if (full !== null) return full;
  return new FatalError(
    `cannot open ${path} (${reason}): if it is damaged, remove this member from the cluster and add it again with an empty folder`,
  );
}

function currentName(folder: string): string | null {
  const file = currentPath(folder);
  const name = readCurrent(folder);
  if (name === null) {
    refuseOrphans(folder, file);
    return null;
  }
  if (!isStateName(name)) {
    throw new FatalError(`${file} does not hold the name of a state database, but "${name}"`);
  }
  if (!existsSync(join(folder, name))) {
    throw new FatalError(
      `${file} names ${name}, which is not there: put it back, or remove this member from the cluster and add it again with an empty folder`,
    );
  }
  return name;
}

/**
 * Without CURRENT only the empty beginning of a first start is swept away: a state that was in use may be the
 * only copy of what the log has forgotten since.
 */
function refuseOrphans(folder: string, file: string): void {
  for (const name of readdirSync(folder)) {
    if (!isStateName(name)) continue;
    const path = join(folder, name);
    const used = statSync(path).size > UNUSED_BYTES_MAX || sizeOf(`${path}-wal`) > 0;
    if (!used) continue;
    throw new FatalError(
      `${file} is missing and ${name} holds a state: write that name into CURRENT, or move the file away to start without it`,
    );
  }
}

function sizeOf(path: string): number {
  return existsSync(path) ? statSync(path).size : 0;
}

/** The name becomes current once the file behind it is on the disk; before, it is swept away at the next start. */
function createFirst(folder: string): string {
  const name = freshStateName(0);
  createState(folder, name);
  switchCurrent(folder, name);
  return name;
}

/** An empty database, on the disk when this returns; nothing refers to it yet. @throws SQLite's, the system's error */
export function createState(folder: string, name: string): void {
  const path = join(folder, name);
  connect(path, { readwrite: true, create: true, strict: true }).close(true);
  syncPath(path);
}

function connect(
  path: string,
  options: { readwrite: true; create: boolean; strict: true },
): Database {
  const db = new Database(path, options);
  try {
    db.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
    db.run("PRAGMA auto_vacuum = INCREMENTAL");
    db.run("PRAGMA journal_mode = WAL");
    db.run("PRAGMA synchronous = NORMAL");
    // The checkpointer's work: by itself SQLite would do it, or try in vain, inside every commit (S3).
    db.run("PRAGMA wal_autocheckpoint = 0");
    // A WAL keeps the length of its busiest moment, unless it is told what to go back to when it starts over.
    db.run(`PRAGMA journal_size_limit = ${WAL_BYTES_KEPT}`);
    return db;
  } catch (error) {
    db.close(true);
    throw error;
  }
}

function removeStale(folder: string, current: string): void {
  for (const file of readdirSync(folder)) {
    const base = file.replace(/-(?:wal|shm)$|\.damaged$/, "");
    if ((isStateName(base) && base !== current) || isLeftOver(file)) {
      rmSync(join(folder, file), { force: true });
    }
  }
}
