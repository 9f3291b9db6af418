/** File operations that have happened when they return: written, synced, and their folder entry too. */
import { closeSync, fstatSync, fsyncSync, openSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";

/** Syncs a file's content, or a folder's entries (creations, renames, removals). @throws the system's error */
export function syncPath(path: string): void {
  const file = openSync(path, "r");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/**
 * Replaces the content of `path`: after a loss of power it holds the old text or the new one, never a part.
 * @throws the system's error; `path` is then as it was
 */
export function replaceFile(path: string, text: string): void {
  const fresh = `${path}.new`;
  const file = openSync(fresh, "w", 0o600);
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(fresh, path);
  syncPath(dirname(path));
}

/**
 * Fills a file up to `bytes` with zeros, durably, so that what is written there later changes no size: a sync of
 * a file that grows has to commit its new length too, which costs several times as much, and processes on one
 * file system wait for each other's. A file that is as long already is left alone. @throws the system's error
 */
export function growFile(path: string, bytes: number): void {
  const file = openSync(path, "r+");
  try {
    const zeros = new Uint8Array(1024 * 1024);
    for (let at = fstatSync(file).size; at < bytes; at += zeros.length) {
      writeSync(file, zeros, 0, Math.min(zeros.length, bytes - at), at);
    }
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
