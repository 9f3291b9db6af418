/**
 * The file `CURRENT`: the name of the state database in use. Switching it is the moment at which an install
 * has happened: what opens the folder afterwards, after a crash too, goes by it alone (S5).
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { replaceFile } from "./durable-files.ts";

const CURRENT_FILE = "CURRENT";
const STATE_NAME = /^state-\d+-[0-9a-f]+\.db$/;

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

export function isStateName(name: string): boolean {
  return STATE_NAME.test(name);
}
