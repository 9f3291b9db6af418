/**
 * A member's data folder: private, and locked for the life of the process. The lock is an open transaction
 * of SQLite, which the kernel drops with the process, however it dies.
 */
import { Database } from "bun:sqlite";
import { chmodSync, closeSync, existsSync, fsyncSync, mkdirSync, openSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { FatalError } from "../replica/ports.ts";

export interface DataFolder {
  /** Absolute. */
  readonly path: string;
  /** Lets another process have it; the end of this one does the same. */
  release(): void;
}

/** Creates what is missing. @throws FatalError when the folder cannot be made, or another process has it */
export function openDataFolder(path: string): DataFolder {
  const folder = resolve(path);
  create(folder);
  const lock = new Database(join(folder, "lock.db"), { create: true, strict: true });
  try {
    lock.run("PRAGMA locking_mode=EXCLUSIVE");
    lock.run("BEGIN EXCLUSIVE");
  } catch {
    lock.close();
    throw new FatalError(
      `another process uses the data folder ${folder}: stop it, or give --data another folder.`,
    );
  }
  return { path: folder, release: () => lock.close() };
}

function create(folder: string): void {
  if (existsSync(folder)) return;
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    chmodSync(folder, 0o700);
    syncFolder(dirname(folder));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new FatalError(
      `the data folder ${folder} cannot be made (${reason}): give --data a folder that this user may write.`,
    );
  }
}

/** Makes the names in a folder durable: a file that was synced but whose name was not can be gone. */
export function syncFolder(path: string): void {
  syncFile(path);
}

export function syncFile(path: string): void {
  const handle = openSync(path, "r");
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}
