/**
 * What of the Raft core a number of seeds reaches: lines, by the test runner's own counters, and branches, by counters
 * in a copy of the sources (branches.ts).
 */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Branch } from "./branches.ts";
import { copySources } from "./mutants.ts";

/** `FROM:COUNT`, for `sim.test.ts`. */
export const SEEDS_VARIABLE = "FLOTILLA_SIM_SEEDS";

const CORE = "src/raft/";

/** Prints each file's share of lines and the lines that no seed reached. @throws Error when a seed fails */
export async function reportCoverage(from: number, seeds: number): Promise<void> {
  const root = new URL("../..", import.meta.url).pathname;
  const folder = await mkdtemp(join(tmpdir(), "flotilla-coverage-"));
  try {
    const flags = ["--coverage", "--coverage-reporter=lcov", `--coverage-dir=${folder}`];
    const child = Bun.spawn(
      [
        process.execPath,
        "--no-orphans",
        "test",
        ...flags,
        "-t",
        "fresh seeds",
        "test/sim/sim.test.ts",
      ],
      {
        cwd: root,
        env: { ...process.env, [SEEDS_VARIABLE]: `${from}:${seeds}` },
        stdout: "ignore",
        stderr: "pipe",
      },
    );
    const said = await new Response(child.stderr).text();
    if ((await child.exited) !== 0) throw new Error(said.slice(-2_000));
    for (const line of table(await Bun.file(join(folder, "lcov.info")).text())) console.log(line);
    for (const line of await branchesOf(join(folder, "copy"), from, seeds)) console.log(line);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Runs the seeds once more, in a copy that counts. @throws Error when it does not run to its end */
async function branchesOf(copy: string, from: number, seeds: number): Promise<readonly string[]> {
  const root = new URL("../..", import.meta.url).pathname;
  // The compiler takes long to load, and nobody else needs it.
  const { BRANCHES_VARIABLE, countBranches } = await import("./branches.ts");
  await mkdir(copy);
  await copySources(root, copy);
  const branches = await countBranches(copy, CORE);
  const file = join(copy, "branches.json");
  const args = ["--seeds", String(seeds), "--from", String(from)];
  const child = Bun.spawn([process.execPath, "--no-orphans", "run", "test/sim/main.ts", ...args], {
    cwd: copy,
    env: { ...process.env, [BRANCHES_VARIABLE]: file },
    stdout: "pipe",
    stderr: "pipe",
  });
  const said = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  await child.exited;
  if (!(await Bun.file(file).exists())) throw new Error(said.join("\n").slice(-2_000));
  return branchTable(branches, new Map((await Bun.file(file).json()) as [number, number][]));
}

/** The share of branches that were taken, and each that was not; assertions that would have to fail apart. */
export function branchTable(
  branches: readonly Branch[],
  counts: ReadonlyMap<number, number>,
): string[] {
  const due = branches.filter(({ fails }) => !fails).length;
  const missed = branches.filter((_, id) => (counts.get(id) ?? 0) === 0);
  const missing = missed.filter(({ fails }) => !fails);
  const share = ((100 * (due - missing.length)) / Math.max(1, due)).toFixed(1);
  return [
    `branches of the core ${share} %: ${due - missing.length} of ${due}; ${missed.length - missing.length} more are assertions that did not fail. Not taken:`,
    ...missing.map(
      ({ file, line, text, outcome }) => `  ${`${file}:${line}`.padEnd(38)} ${outcome}: ${text}`,
    ),
  ];
}

/** One line a file of the core. */
export function table(lcov: string): string[] {
  const lines: string[] = [];
  let all = 0;
  let reached = 0;
  for (const record of lcov.split("end_of_record")) {
    const file = /^SF:(.*)$/m.exec(record)?.[1] ?? "";
    if (!file.includes(CORE)) continue;
    const counted = [...record.matchAll(/^DA:(\d+),(\d+)/gm)];
    const missed = counted.filter(([, , count]) => count === "0").map(([, line]) => Number(line));
    all += counted.length;
    reached += counted.length - missed.length;
    const name = file.slice(file.indexOf(CORE)).padEnd(38);
    const share = (100 * (counted.length - missed.length)) / Math.max(1, counted.length);
    lines.push(`${name} ${share.toFixed(1).padStart(5)} %  ${ranges(missed)}`.trimEnd());
  }
  lines.push(
    `${"all of the core".padEnd(38)} ${((100 * reached) / Math.max(1, all)).toFixed(1)} %`,
  );
  return lines;
}

/** 3, 4, 5, 9 as "3-5 9". */
function ranges(lines: readonly number[]): string {
  const found: string[] = [];
  for (let at = 0; at < lines.length;) {
    let end = at;
    while (lines[end + 1] === (lines[end] ?? 0) + 1) end += 1;
    found.push(end === at ? `${lines[at]}` : `${lines[at]}-${lines[end]}`);
    at = end + 1;
  }
  return found.join(" ");
}
