/**
 * One life of a process that ends with SIGKILL, for log-open-sync.test.ts: `bun open-log-process.ts FOLDER write|open`.
 *
 * `write`: makes a log of three entries, and adds a fourth that nobody syncs: what a kill between a write and its sync
 * leaves in the page cache. `open`: opens the log, and prints the last entry that it believes in.
 */
import { Database } from "bun:sqlite";
import { join } from "node:path";
import { asIndex, asTerm } from "../../src/raft/types.ts";
import { LogFile } from "../../src/storage/log-file.ts";
import { entryCrc, kindNumber } from "../../src/storage/log-format.ts";
import { entry, hard, MEMBER } from "./entries.ts";

const [folder = "", what = ""] = process.argv.slice(2);

const { file, recovered } = LogFile.open(folder, MEMBER, 0);
if (what === "write") {
  file.commit([{ hardState: hard(1), entries: [1, 2, 3].map((index) => entry(index, 1, "kept")) }]);
  file.close();
  const db = new Database(join(folder, "log.db"));
  db.run("PRAGMA wal_autocheckpoint = 0");
  db.run("PRAGMA synchronous = OFF");
  const { term, data } = entry(4, 1, "never synced");
  const kind = kindNumber("command");
  db.run("INSERT INTO entries (idx, term, kind, crc, data) VALUES (4, ?, ?, ?, ?)", [
    term,
    kind,
    entryCrc(asTerm(term), asIndex(4), kind, data),
    data,
  ]);
} else {
  console.log(recovered.lastIndex);
}
process.kill(process.pid, "SIGKILL");
