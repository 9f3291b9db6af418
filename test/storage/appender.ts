/** Appends to the log in the given folder until it is killed, and prints each index once it is durable. */
import { asIndex } from "../../src/raft/types.ts";
import { SqliteLog } from "../../src/storage/sqlite-log.ts";
import { entry, hard, MEMBER } from "./entries.ts";

const folder = process.argv[2];
if (folder === undefined) throw new Error("appender.ts FOLDER");
const log = new SqliteLog(folder, MEMBER);
const { lastIndex } = await log.open(0);
let next = asIndex(lastIndex + 1);

function appendOne(): void {
  const index = next;
  next = asIndex(next + 1);
  log.append({ hardState: hard(index, "n2"), entries: [entry(index, index)] }, () => {
    process.stdout.write(`${index}\n`);
    appendOne();
  });
}

for (let i = 0; i < 16; i++) appendOne();
