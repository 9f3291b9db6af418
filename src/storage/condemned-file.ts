/**
 * The file `CONDEMNED`: the state database that it names was found to differ from the other members' (T9). A
 * process that is started on it again must not answer either. Another state in its place ends it, by an install
 * or an empty folder.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { replaceFile } from "./durable-files.ts";

const CONDEMNED_FILE = "CONDEMNED";

/** Durable when it returns. `state`: its name; `sentence`: for people. @throws the system's error */
export function condemnState(folder: string, state: string, sentence: string): void {
  replaceFile(join(folder, CONDEMNED_FILE), `${state}\n${sentence}\n`);
}

/** The sentence, if this state was condemned; else null. */
export function readCondemned(folder: string, state: string): string | null {
  const path = join(folder, CONDEMNED_FILE);
  if (!existsSync(path)) return null;
  const [name, sentence] = readFileSync(path, "utf8").split("\n");
  return name === state ? (sentence ?? "") : null;
}
