/**
 * The state database of a simulated member: SQLite in memory, made cheap to open again and again.
 *
 * A member that restarts opens the same database as before. Its statements are compiled once for each
 * database and not once for each start: the machine that had them is dead by then, and holds none half-way.
 */
import { Database, type Statement } from "bun:sqlite";
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
  const compile = db.prepare.bind(db);
  const compiled = new Map<string, Statement>();
  const prepare = (sql: string): Statement => {
    let statement = compiled.get(sql);
    if (statement === undefined) {
      statement = compile(sql);
      // Whoever is done with it is not the last one.
      statement.finalize = () => undefined;
      compiled.set(sql, statement);
      if (sql === "COMMIT" && committed !== null) runAfter(statement, committed);
    }
    return statement;
  };
  return Object.assign(db, { prepare, query: prepare });
}

function birth(): Uint8Array {
  const db = new Database(":memory:");
  TaskMachine.open(db);
  const image = db.serialize();
  db.close();
  return image;
}

function runAfter(statement: Statement, then: () => void): void {
  const run = statement.run.bind(statement);
  statement.run = () => {
    const changes = run();
    then();
    return changes;
  };
}
