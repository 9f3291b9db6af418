/**
 * Fills a state database, checkpoints it as a member does, prints what is durable by that, and ends with SIGKILL:
 * `bun checkpoint-process.ts FOLDER`, for checkpoint-sync.test.ts.
 */
import { StateCheckpointer } from "../../src/storage/state-checkpointer.ts";
import { openStateDatabase } from "../../src/storage/state-database.ts";

const [folder = ""] = process.argv.slice(2);
const { db, path } = openStateDatabase(folder);
db.run("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT) STRICT");
const insert = db.prepare<unknown, [number, string]>("INSERT INTO t VALUES (?, ?)");
let applied = 0;
while (applied < 200) insert.run(++applied, "x".repeat(1_000));
const checkpointer = new StateCheckpointer({
  path,
  appliedIndex: () => applied,
  hold: () => () => undefined,
});
console.log((await checkpointer.run()).durableApplied);
// Not part of it.
while (applied < 300) insert.run(++applied, "x".repeat(1_000));
process.kill(process.pid, "SIGKILL");
