import { expect, test } from "bun:test";
import { counted } from "./branches.ts";

const outcomes = (text: string): string[] =>
  counted("a.ts", text, 0).branches.map(
    ({ text: what, outcome, fails }) => `${what}: ${outcome}${fails ? " fails" : ""}`,
  );

test("each operand of a condition is counted both ways, once", () => {
  expect(outcomes("if ((a && b) || c) d();")).toEqual([
    "a: true",
    "a: false",
    "b: true",
    "b: false",
    "c: true",
    "c: false",
  ]);
  expect(outcomes("const x = a ? b : c ?? d;")).toEqual([
    "a: true",
    "a: false",
    "c: null",
    "c: not null",
  ]);
  expect(outcomes("return a || b;")).toHaveLength(4);
});

test("a switch is counted by its cases", () => {
  expect(outcomes('switch (a) { case "x": case "y": b(); break; default: c(); }')).toEqual([
    'a: case "x"',
    'a: case "y"',
    "a: default",
  ]);
});

test("an assertion that fails is told from a branch", () => {
  expect(outcomes("invariant(a && (b || c), d);").filter((each) => each.includes("fails"))).toEqual(
    ["a: false fails", "c: false fails"],
  );
});

test("what is edited does what it did", () => {
  const { text } = counted(
    "a.ts",
    "export default (a, b, c) => (a > 1 && b) || (c ?? !a ? 7 : 8);",
    0,
  );
  const js = text.split("\n").slice(1).join("\n").replace("export default", "return");
  const pass = (...args: readonly unknown[]): unknown => args.at(-1);
  const run = new Function("$either", "$nullish", "$which", js)(pass, pass, pass) as (
    ...args: readonly unknown[]
  ) => unknown;
  const original = (a: number, b: unknown, c: unknown): unknown =>
    (a > 1 && b) || ((c ?? !a) ? 7 : 8);
  for (const a of [0, 1, 2])
    for (const b of [null, "b"])
      for (const c of [null, true, false]) expect(run(a, b, c)).toBe(original(a, b, c));
});
