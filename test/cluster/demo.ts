/** `bun run demo [FOLDER]`: the main job on a real tree, told step by step; `node_modules` if none is named. */
import { join } from "node:path";
import { mainJob } from "./main-job.ts";

const root = process.argv[2] ?? join(import.meta.dir, "..", "..", "node_modules");
/** Keeps the demo of a large folder at a minute or two. What is left out is said. */
const FILES_MAX = 10_000;
const report = await mainJob(root, FILES_MAX, (line) => console.log(line));
console.table(report);
const good =
  report.completed === report.acknowledged &&
  report.acknowledged === report.files &&
  report.wrongDigests + report.missing + report.listedTwice === 0 &&
  report.returnedMemberApplied >= report.leaderApplied - 100;
console.log(
  good
    ? `Nothing lost: ${report.completed} tasks completed, ${report.executions - report.completed} ran more than once.`
    : "SOMETHING IS WRONG: see the table.",
);
process.exit(good ? 0 : 1);
