/**
 * The folder of a member's files, locked for the life of its process: two processes on one folder would
 * each be a member of the same name.
 */
import { Database } from "bun:sqlite";
import { accessSync, constants, existsSync, mkdirSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { FatalError } from "../replica/ports.ts";
import { syncPath } from "./durable-files.ts";
import { noRoomAtStart } from "./no-room.ts";

const LOCK_FILE = "lock.db";

export interface DataFolder {
  /** Absolute. */
  readonly path: string;
  /** Gives the lock back; the process ending, however it ends, does too. */
  release(): void;
}

/**
 * Creates the folder (mode 0700, its entries synced up to the first parent that existed) and locks it.
 * @throws FatalError with one sentence that names the folder: in use, not a folder, cannot be written, no room
 */
export function openDataFolder(path: string): DataFolder {
  const absolute = resolve(path);
  createFolder(absolute);
  const lock = takeLock(absolute);
  return { path: absolute, release: () => lock.close(true) };
}

function createFolder(path: string): void {
  try {
    if (existsSync(path)) {
      if (!statSync(path).isDirectory()) throw new Error("there is a file of that name");
      // SQLite would open the files of a read-only folder, and say so at the first write only.
      accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK);
      return;
    }
    let existing = dirname(path);
    while (!existsSync(existing)) existing = dirname(existing);
    mkdirSync(path, { recursive: true, mode: 0o700 });
    for (let folder = dirname(path); ; folder = dirname(folder)) {
      syncPath(folder);
      if (folder === existing) return;
    }
  } catch (error) {
    const full = noRoomAtStart(path, error);
    if (full !== null) throw full;
    throw new FatalError(
      `cannot use the data folder ${path} (${reasonOf(error)}): give --data a folder that can be written`,
    );
  }
}

/**
 * The lock is an exclusive transaction on a database of its own: the kernel drops it when the process dies,
 * kill -9 included, so no stale lock is ever left to remove by hand. The file is never opened otherwise:
 * closing any descriptor of it would drop the lock.
 */
function takeLock(folder: string): Database {
  let lock: Database | null = null;
  try {
    lock = new Database(join(folder, LOCK_FILE), { create: true, strict: true });
    lock.run("PRAGMA locking_mode = EXCLUSIVE");
    lock.run("BEGIN EXCLUSIVE");
    return lock;
  } catch (error) {
    lock?.close(true);
    if (error instanceof Error && "code" in error && error.code === "SQLITE_BUSY") {
      throw new FatalError(
        `the data folder ${folder} is in use by another process: end that one, or give this member a --data of its own`,
      );
    }
    const full = noRoomAtStart(folder, error);
    if (full !== null) throw full;
    throw new FatalError(
      `cannot lock the data folder ${folder} (${reasonOf(error)}): give --data a folder whose files can be written`,
    );
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
