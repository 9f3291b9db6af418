/** File descriptors: what a process has open, its clients' connections too, is limited (`ulimit -n`). */
import { closeSync, openSync } from "node:fs";

/** A thread needs those of its event loop and its modules, and three for a database: about ten. */
const FOR_A_THREAD = 16;

/**
 * Whether there are enough of them left to start a thread. The runtime ends the whole process when a thread finds none, so
 * this is asked before; connections that come in between are the remaining risk.
 */
export function hasDescriptorsForThread(): boolean {
  const opened: number[] = [];
  try {
    while (opened.length < FOR_A_THREAD) opened.push(openSync("/dev/null", "r"));
    return true;
  } catch (error) {
    // Where the file itself cannot be opened, nothing is known: a thread may start.
    const code = error instanceof Error && "code" in error ? error.code : null;
    return code !== "EMFILE" && code !== "ENFILE";
  } finally {
    for (const descriptor of opened) closeSync(descriptor);
  }
}
