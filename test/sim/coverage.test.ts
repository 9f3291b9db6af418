import { expect, test } from "bun:test";
import { branchTable, table } from "./coverage.ts";

test("coverage counts the lines of the core, and names those that were not reached", () => {
  const lcov = [
    "SF:src/raft/log.ts\nDA:1,3\nDA:2,0\nDA:3,0\nDA:4,0\nDA:7,0\nDA:9,1\nend_of_record",
    "SF:src/queue/queue.ts\nDA:1,0\nend_of_record",
  ].join("\n");
  expect(table(lcov).map((line) => line.replaceAll(/ +/g, " "))).toEqual([
    "src/raft/log.ts 33.3 % 2-4 7",
    "all of the core 33.3 %",
  ]);
});

test("branches that were not taken are named, and assertions that did not fail are counted apart", () => {
  const branch = { file: "src/raft/log.ts", line: 7, text: "a > b", fails: false };
  const lines = branchTable(
    [
      { ...branch, outcome: "true" },
      { ...branch, outcome: "false" },
      { ...branch, outcome: "false", fails: true },
    ],
    new Map([[0, 4]]),
  );
  expect(lines.map((line) => line.replaceAll(/ +/g, " "))).toEqual([
    "branches of the core 50.0 %: 1 of 2; 1 more are assertions that did not fail. Not taken:",
    " src/raft/log.ts:7 false: a > b",
  ]);
});
