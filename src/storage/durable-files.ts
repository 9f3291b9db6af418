/** File operations that have happened when they return: written, synced, and their folder entry too. */
import { closeSync, fsyncSync, openSync, renameSync, writeSync } from "node:fs";
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
