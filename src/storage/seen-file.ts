/**
 * The file `SEEN`: how far this member has seen the others, so that an older copy of a folder is refused after a
 * start of all members too. Best effort: written now and then, beside the thread that ticks, and a file that
 * cannot be read is no more than the loss of that memory.
 */
import { readFileSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { join } from "node:path";
import type { Log, SeenStore } from "../replica/ports.ts";

const SEEN_FILE = "SEEN";

export class SeenFile implements SeenStore {
  readonly #path: string;
  readonly #log: Log;
  #writing = false;
  /** What is to be written once the write under way is over. */
  #next: string | null = null;

  constructor(folder: string, log: Log) {
    this.#path = join(folder, SEEN_FILE);
    this.#log = log;
  }

  load(): unknown {
    try {
      return JSON.parse(readFileSync(this.#path, "utf8")) as unknown;
    } catch {
      return null;
    }
  }

  keep(seen: unknown): void {
    this.#next = JSON.stringify(seen);
    if (!this.#writing) void this.#write();
  }

  async #write(): Promise<void> {
    this.#writing = true;
    while (this.#next !== null) {
      const text = this.#next;
      this.#next = null;
      try {
        await this.#replace(text);
      } catch (error) {
        this.#log.warn("what was seen of the other members could not be kept", {
          error: error instanceof Error ? error.message : String(error),
        });
      }
    }
    this.#writing = false;
  }

  async #replace(text: string): Promise<void> {
    const fresh = `${this.#path}.new`;
    const file = await open(fresh, "w", 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(fresh, this.#path);
  }
}
