/**
 * The file `CURRENT`: the name of the state database in use. Switching it is the moment at which an install
 * has happened: what opens the folder afterwards, after a crash too, goes by it alone (S5).
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { replaceFile } from "./durable-files.ts";

const CURRENT_FILE = "CURRENT";
const STATE_NAME = /^state-\d+-[0-9a-f]+\.db$/;
/** Before the name of a state that was found wrong, and of which another one has taken the place. */
const ASIDE = "wrong-";

export function currentPath(folder: string): string {
  return join(folder, CURRENT_FILE);
}

/** What CURRENT says, whatever that is; null when there is no such file. */
export function readCurrent(folder: string): string | null {
  const file = currentPath(folder);
  return existsSync(file) ? readFileSync(file, "utf8").trim() : null;
}

/** Durable when it returns. The database named must be on the disk by then. @throws the system's error */
export function switchCurrent(folder: string, name: string): void {
  replaceFile(currentPath(folder), `${name}\n`);
}

/** A name that no state database of this folder ever had; `index`: of the last entry that it holds. */
export function freshStateName(index: number): string {
  return `state-${index}-${crypto.getRandomValues(new Uint8Array(4)).toHex()}.db`;
}

/** Where a wrong state is kept. */
export function asideName(state: string): string {
  return `${ASIDE}${state}`;
}

/** Of such a database, or of a file beside it. */
export function isAsideName(file: string): boolean {
  return file.startsWith(`${ASIDE}state-`);
}

export function isStateName(name: string): boolean {
  return STATE_NAME.test(name);
}
