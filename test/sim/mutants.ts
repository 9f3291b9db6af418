/**
 * Known bugs, put into a copy of the sources, to see whether the simulator finds them. A mutant is an edit
 * of text: production code holds no switch for it, and cannot reach one. An edit that no longer fits the
 * sources is an error, so the list cannot rot in silence.
 */
import { cp, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Mutant, MUTANTS } from "./mutant-list.ts";

/** Tests that a mutant has to pass that no seed has killed: ring 1, and those of single parts. */
const TESTS = ["test/raft", "test/queue", "test/replica"];
/** Of this the simulator has models instead: no seed can kill what is in there. */
const REAL_FILES = "src/storage/";
const TESTS_OF_FILES = ["test/storage"];

/**
 * Runs each mutant until a seed fails, or `seeds` have passed; then, if it lives, the tests of the folders that
 * it may be in. One in the real files is given to their tests at once. Resolves with how many survived both.
 */
export async function runMutants(
  seeds: number,
  from: number,
  only: readonly string[],
): Promise<number> {
  const root = new URL("../..", import.meta.url).pathname;
  let survived = 0;
  for (const mutant of MUTANTS) {
    if (only.length > 0 && !only.includes(mutant.name)) continue;
    const folder = await mkdtemp(join(tmpdir(), "flotilla-mutant-"));
    try {
      await copy(root, folder);
      await mutate(folder, mutant);
      const inFiles = mutant.edits.every(({ file }) => file.startsWith(REAL_FILES));
      const { killed, said } = inFiles
        ? { killed: false, said: "lives in real files" }
        : await hunt(folder, seeds, from);
      const killer = killed ? null : await test(folder, inFiles ? TESTS_OF_FILES : TESTS);
      if (!killed && killer === null) survived += 1;
      const also = killed
        ? ""
        : killer === null
          ? ", and the tests"
          : `; killed by the test ${killer}`;
      console.log(`${mutant.name.padEnd(7)} ${mutant.what.padEnd(64)} ${said}${also}`);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  return survived;
}

async function copy(root: string, folder: string): Promise<void> {
  for (const each of ["src", "views", "test", "docs", "package.json", "tsconfig.json"])
    await cp(join(root, each), join(folder, each), { recursive: true });
  await symlink(join(root, "node_modules"), join(folder, "node_modules"));
}

async function mutate(folder: string, { name, edits }: Mutant): Promise<void> {
  for (const { file, find, replace } of edits) {
    const path = join(folder, file);
    const text = await Bun.file(path).text();
    if (text.split(find).length !== 2)
      throw new Error(`mutant ${name} no longer fits ${file}: its text is not there exactly once`);
    await Bun.write(
      path,
      text.replace(find, () => replace),
    );
  }
}

async function hunt(
  folder: string,
  seeds: number,
  from: number,
): Promise<{ killed: boolean; said: string }> {
  const args = [
    "run",
    "test/sim/main.ts",
    "--seeds",
    String(seeds),
    "--from",
    String(from),
    "--first",
  ];
  const child = Bun.spawn([process.execPath, ...args], {
    cwd: folder,
    stdout: "pipe",
    stderr: "pipe",
  });
  const text = await new Response(child.stdout).text();
  const code = await child.exited;
  const broke = /^seed (\d+) broke (.*) at [\d.]+ s, event (\d+)$/m.exec(text);
  if (code === 0) return { killed: false, said: `survived ${seeds} seeds` };
  if (broke === null) return { killed: true, said: `seed ? (the process ended with code ${code})` };
  const [, seed, rule, event] = broke;
  return {
    killed: true,
    said: `killed by seed ${seed} (number ${Number(seed) - from + 1}), event ${event}: ${rule}`,
  };
}

/** The first test that fails on the mutant, or null. */
async function test(folder: string, all: readonly string[]): Promise<string | null> {
  for (const tests of all) {
    const child = Bun.spawn([process.execPath, "test", "--bail", tests], {
      cwd: folder,
      stdout: "pipe",
      stderr: "pipe",
    });
    const [out, err] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ]);
    if ((await child.exited) === 0) continue;
    const failed = /^\(fail\) (.*?)(?: \[[\d.]+ms\])?$/m.exec(`${err}\n${out}`);
    return `"${failed?.[1] ?? "?"}" (${tests})`;
  }
  return null;
}
