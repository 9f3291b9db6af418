import { expect, test } from "bun:test";
import { MUTANTS } from "./mutant-list.ts";
import { mutated } from "./mutants.ts";

const ROOT = new URL("../..", import.meta.url).pathname;

test("every mutant fits the sources as they are, and is still a program", async () => {
  const transpiler = new Bun.Transpiler({ loader: "ts" });
  for (const mutant of MUTANTS)
    for (const text of (await mutated(ROOT, mutant)).values()) transpiler.transformSync(text);
});

test("no two mutants have one name", () => {
  const names = MUTANTS.map(({ name }) => name);
  expect(names.filter((name, i) => names.indexOf(name) < i)).toEqual([]);
});
