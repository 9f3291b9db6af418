/**
 * Appends to the log in the given folder, and prints each index once it is durable: until it is killed, or
 * the log fails; then it prints the failure, waits for a second one, and ends.
 */
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

log.onFailure((error) => {
  process.stdout.write(`${error.name} ${error.message}\n`);
  setTimeout(() => process.exit(0), 100);
});
for (let i = 0; i < 16; i++) appendOne();
