/**
 * The state database: tasks and all else that the machine keeps. It can always be replayed from the log, so
 * it never waits for the disk (`synchronous=NORMAL`).
 *
 * Its name is written in the file `CURRENT`. A database is never renamed over a live name, because a left-over
 * `-wal` of the old one would be replayed into the new one (S5): a new one gets a new name, `CURRENT` is
 * switched, and the old one is deleted with its `-wal` and `-shm`.
 */
import { Database } from "bun:sqlite";
import { existsSync, readdirSync, rmSync, statSync } from "node:fs";
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
import { isLeftOver } from "./snapshot-files.ts";

/** A database without a table is not larger than a few pages of 4 KiB. */
const UNUSED_BYTES_MAX = 12 * 1024;
/** Between two checkpoints a busy member writes more than this; an idle one needs none of it. */
const WAL_BYTES_KEPT = 4 * 1024 * 1024;
/** A checkpoint, or a reader that recovers the WAL, holds the file for moments. */
const BUSY_TIMEOUT_MS = 5_000;

export interface StateDatabase {
  /** The writer's connection; whoever opened it closes it. */
  readonly db: Database;
  /** Absolute when `folder` is. For readers and the checkpointer. */
  readonly path: string;
  /** The file's name within the folder. */
  readonly name: string;
}

/**
 * Opens the database that `CURRENT` names, creating both in an empty folder, and removes state files that
 * nothing refers to any more. @throws FatalError when CURRENT names what is not there, or SQLite refuses
 */
export function openStateDatabase(folder: string): StateDatabase {
  const name = currentName(folder) ?? createFirst(folder);
  removeStale(folder, name);
  return connectState(folder, name);
}

/** Opens this database of the folder, whatever CURRENT says. @throws FatalError when SQLite refuses */
export function connectState(folder: string, name: string): StateDatabase {
  const path = join(folder, name);
  try {
    return { db: connect(path, { readwrite: true, create: false, strict: true }), path, name };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new FatalError(
      `cannot open ${path} (${reason}): if it is damaged, remove this member from the cluster and add it again with an empty folder`,
    );
  }
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
  const path = join(folder, name);
  connect(path, { readwrite: true, create: true, strict: true }).close(true);
  syncPath(path);
  switchCurrent(folder, name);
  return name;
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
    const base = file.replace(/-(?:wal|shm)$/, "");
    if ((isStateName(base) && base !== current) || isLeftOver(file)) {
      rmSync(join(folder, file), { force: true });
    }
  }
}
