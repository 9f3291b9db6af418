/**
 * The file `REMOVED`: this data folder was removed from its cluster. The log says so where it holds that change; a folder that
 * was told by its leader's word alone would ask to be let in again when it is started anew, of members that may have forgotten it.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { replaceFile } from "./durable-files.ts";

const REMOVED_FILE = "REMOVED";

/** Durable when it returns; the same again is not written. `sentence`: for people. @throws the system's error */
export function markRemoved(
  folder: string,
  clusterId: string,
  incarnation: string,
  sentence: string,
): void {
  if (readRemoved(folder, clusterId, incarnation) === sentence) return;
  replaceFile(join(folder, REMOVED_FILE), `${clusterId} ${incarnation}\n${sentence}\n`);
}

/** The sentence, if the folder with this incarnation was removed from that cluster; else null: of a rescued folder too. */
export function readRemoved(folder: string, clusterId: string, incarnation: string): string | null {
  const path = join(folder, REMOVED_FILE);
  if (!existsSync(path)) return null;
  const [whose, sentence] = readFileSync(path, "utf8").split("\n");
  return whose === `${clusterId} ${incarnation}` ? (sentence ?? "") : null;
}
