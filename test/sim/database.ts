/**
 * The state database of a simulated member: SQLite in memory, made cheap to open again and again.
 *
 * A member that restarts opens the same database as before. Its statements are compiled once for each
 * database and not once for each start: the machine that had them is dead by then, and holds none half-way.
 */
import { Database, type SQLQueryBindings, type Statement } from "bun:sqlite";
import { TaskMachine } from "../../src/queue/machine.ts";

/** As the task machine makes it at its first start; made once for all. */
let born: Uint8Array | null = null;

/**
 * An empty state, or the one that `image` holds; the image stays as it is. `committed` runs after each transaction,
 * and may throw: the process dies there.
 */
export function openState(
  image: Uint8Array = (born ??= birth()),
  committed: (() => void) | null = null,
): Database {
  const db = Database.deserialize(image);
  const compile: (sql: string) => Compiled = db.prepare.bind(db);
  const compiled = new Map<string, LazyStatement>();
  const prepare = (sql: string): LazyStatement => {
    let statement = compiled.get(sql);
    if (statement === undefined) {
      const then = sql === "COMMIT" ? committed : null;
      statement = lazily(() => compile(sql), then);
      compiled.set(sql, statement);
    }
    return statement;
  };
  return Object.assign(db, { prepare, query: prepare });
}

type Compiled = Statement<unknown, SQLQueryBindings[]>;
type LazyStatement = Pick<Compiled, "run" | "get" | "all" | "values" | "iterate" | "finalize">;

/**
 * Compiled when it is first used: a member opens its state some ten times in a run, and a third of what it prepares is
 * never used. `then` runs after each run.
 */
function lazily(compile: () => Compiled, then: (() => void) | null): LazyStatement {
  const use = (): Compiled => {
    const statement = compile();
    lazy.get = statement.get.bind(statement);
    lazy.all = statement.all.bind(statement);
    lazy.values = statement.values.bind(statement);
    lazy.iterate = statement.iterate.bind(statement);
    const run = statement.run.bind(statement);
    lazy.run =
      then === null
        ? run
        : (...values) => {
            const changes = run(...values);
            then();
            return changes;
          };
    return statement;
  };
  const lazy: LazyStatement = {
    run: (...values) => {
      use();
      return lazy.run(...values);
    },
    get: (...values) => use().get(...values),
    all: (...values) => use().all(...values),
    values: (...values) => use().values(...values),
    iterate: (...values) => use().iterate(...values),
    // Whoever is done with it is not the last one.
    finalize: () => undefined,
  };
  return lazy;
}

function birth(): Uint8Array {
  const db = new Database(":memory:");
  TaskMachine.open(db);
  const image = db.serialize();
  db.close();
  return image;
}
