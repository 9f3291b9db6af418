/** `bun run demo [FOLDER]`: the main job on a real tree, told step by step; `node_modules` if none is named. */
import { statSync } from "node:fs";
import { join, resolve } from "node:path";
import { mainJob } from "./main-job.ts";

const given = process.argv.slice(2);
// Absolute: the members would take a relative one from a folder of their own.
const root = resolve(given[0] ?? join(import.meta.dir, "..", "..", "node_modules"));
if (given.length > 1 || statSync(root, { throwIfNoEntry: false })?.isDirectory() !== true) {
  console.error(`usage: bun run demo [FOLDER]; ${given.join(" ")} is not a folder.`);
  process.exit(2);
}
/** Keeps the demo of a large folder at a minute or two. What is left out is said. */
const FILES_MAX = 10_000;
const report = await mainJob(root, FILES_MAX, (line) => console.log(line));
if (report.files === 0) {
  console.error(`There is no file below ${root}: nothing was shown.`);
  process.exit(2);
}
console.table(report);
const good =
  report.completed === report.acknowledged &&
  report.acknowledged === report.files &&
  report.wrongDigests + report.missing + report.listedTwice === 0 &&
  report.returnedMemberApplied >= report.leaderApplied - 100;
console.log(
  good
    ? `Nothing lost: ${report.completed} tasks completed, with ${report.executions - report.completed} claims more than tasks: their member died with them, or handed them back.`
    : "SOMETHING IS WRONG: see the table.",
);
process.exit(good ? 0 : 1);
