import { expect, test } from "bun:test";
import { branchTable, faultLines, table } from "./coverage.ts";

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

test("branches that no seed takes are named, with the test that does; assertions are counted apart", () => {
  const branch = { file: "src/raft/log.ts", line: 7, text: "a > b", fails: false };
  const lines = branchTable(
    [
      { ...branch, outcome: "true" },
      { ...branch, outcome: "false" },
      { ...branch, outcome: "false", fails: true },
      { ...branch, outcome: "null" },
      { ...branch, outcome: "no turn" },
    ],
    new Map([[0, 4]]),
    new Map([
      ["one.test.ts", new Map()],
      ["two.test.ts", new Map([[1, 1]])],
    ]),
  );
  expect(lines.map((line) => line.replaceAll(/ +/g, " "))).toEqual([
    "branches",
    "taken by seeds 1",
    "taken by the core's own tests only 1",
    "taken by nothing 1",
    "loops over lists that were never empty 1",
    "of assertions, which would have to fail 1",
    "all of the core 5",
    "",
    "by the core's own tests only:",
    " src/raft/log.ts:7 false: a > b (two.test.ts)",
    "",
    "by nothing:",
    " src/raft/log.ts:7 null: a > b",
    "",
    "lists that were never empty:",
    " src/raft/log.ts:7 no turn: a > b",
  ]);
});

test("a fault that never struck is named", () => {
  const said = " N1 loss 4.0 % of seeds\n N2 duplicates 0.0 % of seeds\n2 seeds\n";
  expect(faultLines(said).at(-1)).toBe("never struck: N2 duplicates 0.0 % of seeds");
  expect(faultLines("N1 loss 10.0 % of seeds").at(-1)).toBe("every fault struck");
});
