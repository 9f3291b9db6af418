/**
 * Names that a module or an explicit claim ever named. The built-in "*" takes only what is not here, so
 * that an echo never swallows the work of a worker that happens to be away.
 */
import type { Database, Statement } from "bun:sqlite";

/** Each one is kept for ever; a cluster with more handlers than this generates their names. */
const NAMES_MAX = 10_000;

export class NamedNames {
  readonly #names: Set<string>;
  readonly #insert: Statement<unknown, [string]>;
  readonly #max: number;

  constructor(db: Database, max: number = NAMES_MAX) {
    this.#max = max;
    const rows = db.query<{ name: string }, []>("SELECT name FROM named ORDER BY name").all();
    this.#names = new Set(rows.map((row) => row.name));
    this.#insert = db.prepare("INSERT INTO named (name) VALUES (?)");
  }

  all(): ReadonlySet<string> {
    return this.#names;
  }

  /** Adds all of them, or none when they do not all fit. */
  add(names: readonly string[]): boolean {
    const fresh = new Set<string>();
    for (const name of names) if (!this.#names.has(name)) fresh.add(name);
    if (fresh.size === 0) return true;
    if (this.#names.size + fresh.size > this.#max) return false;
    for (const name of fresh) {
      this.#names.add(name);
      this.#insert.run(name);
    }
    return true;
  }
}
