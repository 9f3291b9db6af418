import { expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BRANCHES_VARIABLE, countBranches, counted } from "./branches.ts";

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
  expect(outcomes("return a || b;")).toEqual(["a: true", "a: false"]);
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

test("optional chaining, what is caught and what is taken by default are counted", () => {
  expect(outcomes("const x = a?.b.c;")).toEqual(["a?.: null", "a?.: not null"]);
  expect(outcomes("try { a(); } catch { b(); }")).toEqual(["catch: caught"]);
  expect(outcomes("const a = (b = 1) => b;")).toEqual(["b = 1: by default"]);
  expect(outcomes("for (const a of b) c();")).toEqual([
    "const a of b: no turn",
    "const a of b: a turn",
  ]);
  expect(outcomes("if (a || b) throw new InvariantViolation(c);")).toEqual([
    "a: true fails",
    "a: false",
    "b: true fails",
    "b: false",
  ]);
});

test("what is edited does what it did, and its counts are written when it ends", async () => {
  const folder = await mkdtemp(join(tmpdir(), "flotilla-branches-"));
  try {
    const text = `
      const of = (a: number, b: string | null, c: boolean | null): unknown =>
        (a > 1 && b) || ((c ?? !a) ? 7 : 8);
      for (const a of [0, 1, 2]) for (const b of [null, "b"]) console.log(a, b, of(a, b, null));`;
    await Bun.write(join(folder, "src/a.ts"), text);
    const run = (): string =>
      Bun.spawnSync([process.execPath, "src/a.ts"], {
        cwd: folder,
        env: { ...process.env, [BRANCHES_VARIABLE]: join(folder, "counts.json") },
      }).stdout.toString();
    const before = run();
    const branches = await countBranches(folder, "src/");
    expect(run()).toBe(before);
    const counts = new Map(
      (await Bun.file(join(folder, "counts.json")).json()) as [number, number][],
    );
    expect(
      branches.map(({ text: what, outcome }, id) => `${what} ${outcome} ${counts.get(id) ?? 0}`),
    ).toEqual([
      "a > 1 true 2",
      "a > 1 false 4",
      "b true 1",
      "b false 1",
      "c ?? !a true 2",
      "c ?? !a false 3",
      "c null 5",
      "c not null 0",
      "const a of [0, 1, 2] no turn 0",
      "const a of [0, 1, 2] a turn 1",
      'const b of [null, "b"] no turn 0',
      'const b of [null, "b"] a turn 3',
    ]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
