/**
 * The state database: the file that CURRENT names. A state is never renamed over a live name, or the WAL that
 * is left of the old one would be replayed into the new (S5).
 *
 * `synchronous=NORMAL`: whatever a loss of power takes can be replayed from the log, because state and applied
 * index share a transaction. `wal_autocheckpoint=0`: with a reader beside it every commit would retry a
 * checkpoint; the checkpointer does it instead (S3).
 */
import { Database } from "bun:sqlite";
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { FatalError } from "../replica/ports.ts";
import { syncFolder } from "./data-folder.ts";

const NAME = /^state-\d+-[0-9a-f]{8}\.db$/;

export interface StateDatabase {
  /** The writer's connection. */
  readonly db: Database;
  readonly path: string;
}

/** `folder`: the locked data folder. @throws FatalError when CURRENT names no file that is there */
export function openStateDatabase(folder: string): StateDatabase {
  const name = currentName(folder);
  removeOthers(folder, name);
  const path = join(folder, name);
  const db = new Database(path, { create: true, strict: true });
  db.run("PRAGMA busy_timeout=5000");
  db.run("PRAGMA auto_vacuum=INCREMENTAL");
  db.run("PRAGMA journal_mode=WAL");
  db.run("PRAGMA synchronous=NORMAL");
  db.run("PRAGMA wal_autocheckpoint=0");
  return { db, path };
}

function currentName(folder: string): string {
  const current = join(folder, "CURRENT");
  if (!existsSync(current)) {
    const name = `state-0-${crypto.randomUUID().slice(0, 8)}.db`;
    switchCurrent(folder, name);
    return name;
  }
  const name = readFileSync(current, "utf8").trim();
  if (NAME.test(name)) return name;
  throw new FatalError(
    `${current} names no state database: remove this member and add it again with an empty folder.`,
  );
}

/** Makes `name` the current state, durably: the old one or the new one, never neither. */
export function switchCurrent(folder: string, name: string): void {
  const current = join(folder, "CURRENT");
  const handle = openSync(`${current}.new`, "w", 0o600);
  try {
    writeSync(handle, `${name}\n`);
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
  renameSync(`${current}.new`, current);
  syncFolder(folder);
}

/** What an install that was cut short has left. */
function removeOthers(folder: string, name: string): void {
  for (const file of readdirSync(folder)) {
    if (/^state-\d+-[0-9a-f]{8}\.db(-wal|-shm)?$/.test(file) && !file.startsWith(name))
      rmSync(join(folder, file));
  }
}
