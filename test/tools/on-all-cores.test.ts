import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";

const PRELOAD = join(import.meta.dir, "on-all-cores.ts");

/** A folder with two files of tests, of which one fails, run by `bun test` with these words. */
async function run(...words: readonly string[]): Promise<{ code: number; said: string }> {
  const folder = mkdtempSync(join(tmpdir(), "flotilla-tests-"));
  try {
    writeFileSync(join(folder, "bunfig.toml"), `[test]\npreload = ["${PRELOAD}"]\n`);
    for (const [name, result] of [
      ["good", 1],
      ["bad", 2],
    ] as const)
      writeFileSync(
        join(folder, `${name}.test.ts`),
        `import { expect, test } from "bun:test";
        test("${name}", () => {
          console.log("DFG", process.env.BUN_JSC_thresholdForOptimizeAfterWarmUp);
          console.log("FTL", process.env.BUN_JSC_thresholdForFTLOptimizeAfterWarmUp);
          expect(${result}).toBe(1);
        });`,
      );
    const outer = Object.entries(process.env).filter(
      ([name]) => !/^BUN_JSC_|^(?:BUN|JEST)_(?:TEST_)?WORKER_ID$/.test(name),
    );
    const child = Bun.spawn(["bun", "test", ...words], {
      cwd: folder,
      env: Object.fromEntries(outer),
      stdout: "pipe",
      stderr: "pipe",
    });
    const said = await Promise.all(
      [child.stdout, child.stderr].map((stream) => new Response(stream).text()),
    );
    return { code: await child.exited, said: said.join("\n") };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("all files run on all cores, each with the late compilers, and a failure is a failure", async () => {
  const { code, said } = await run();
  expect(said.includes("PARALLEL")).toBe(availableParallelism() > 1);
  expect(said.match(/DFG 4000\nFTL 1000000/g)).toHaveLength(2);
  expect(said).toContain("\n 1 pass\n 1 fail\n");
  expect(said).toContain("Ran 2 tests across 2 files.");
  expect(code).toBe(1);
});

test("files that are named run in one process, as they were asked for", async () => {
  const { code, said } = await run("good");
  expect(said).not.toContain("PARALLEL");
  expect(said.match(/FTL 1000000/g)).toHaveLength(1);
  expect(said).toContain("Ran 1 test across 1 file.");
  expect(code).toBe(0);
});
