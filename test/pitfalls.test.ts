/** docs/pitfalls.md names a test for each pitfall: they exist, under these names. */
import { expect, test } from "bun:test";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");

test("every pitfall has a rule, and every test that stands before one exists", async () => {
  const text = await Bun.file(join(ROOT, "docs", "pitfalls.md")).text();
  // The formatter may break a line in two: what is indented goes on with it.
  const lines = text.replaceAll(/\n {5,}(?=\S)/g, " ").split("\n");
  const numbers = lines.flatMap((line) => /^(\d+)\. /.exec(line)?.[1] ?? []).map(Number);
  expect(numbers).toEqual(Array.from({ length: 35 }, (_, i) => i + 1));
  const missing: string[] = [];
  let named = 0;
  for (const line of lines) {
    const found = /^ +- `([^`]+)`(?:: (.+))?$/.exec(line);
    if (found === null) continue;
    const [, path = "", name] = found;
    named += 1;
    const file = Bun.file(join(ROOT, path));
    if (!(await file.exists())) missing.push(path);
    else if (name !== undefined && !(await file.text()).includes(name)) missing.push(line.trim());
  }
  expect(missing).toEqual([]);
  expect(named).toBeGreaterThan(60);
});
