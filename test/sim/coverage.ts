/**
 * What of the Raft core a number of seeds reaches: lines, by the test runner's own counters, and branches, by counters
 * in a copy of the sources (branches.ts). What no seed reaches is looked for in the tests of the core (test/raft), which
 * use it as a library: each of those branches is printed with the test file that takes it.
 */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Branch } from "./branches.ts";
import { copySources } from "./mutants.ts";

/** `FROM:COUNT`, for `sim.test.ts`. */
export const SEEDS_VARIABLE = "FLOTILLA_SIM_SEEDS";

const CORE = "src/raft/";
/** Use the core as a library, by its public face. */
const TESTS = "test/raft/";

/** The outcome of a loop over an empty list. */
export const NO_TURN = "no turn";

/** How often each branch was taken, by its number. */
type Counts = ReadonlyMap<number, number>;

/**
 * Prints each file's share of lines and the lines that no seed reached, which faults struck, and the branches by what took
 * them. Nothing is printed before all of it has run, but for what is under way, on standard error. @throws Error when a seed fails, or takes more than a minute
 */
export async function reportCoverage(from: number, seeds: number): Promise<void> {
  const root = new URL("../..", import.meta.url).pathname;
  const folder = await mkdtemp(join(tmpdir(), "flotilla-coverage-"));
  try {
    console.error(`lines: ${seeds} seeds from ${from} under the test runner's counters`);
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
  const { COUNTS_AFTER_TESTS, countBranches } = await import("./branches.ts");
  await mkdir(copy);
  await copySources(root, copy);
  const branches = await countBranches(copy, CORE);
  console.error("branches: the same seeds in a copy that counts");
  const args = ["test/sim/main.ts", "--seeds", String(seeds), "--from", String(from)];
  const { said, counts } = await countedRun(copy, ["run", ...args]);
  const tests = new Map<string, Counts>();
  const preload = `./${CORE}${COUNTS_AFTER_TESTS}`;
  for (const file of [...new Bun.Glob("*.test.ts").scanSync({ cwd: join(copy, TESTS) })].sort()) {
    console.error(`branches: ${TESTS}${file}`);
    const run = await countedRun(copy, ["test", "--preload", preload, `./${TESTS}${file}`]);
    tests.set(TESTS + file, run.counts);
  }
  return [...faultLines(said), "", ...branchTable(branches, counts, tests)];
}

/** @throws Error with the end of what it said, when it counted nothing */
async function countedRun(
  copy: string,
  args: readonly string[],
): Promise<{ readonly said: string; readonly counts: Counts }> {
  const { BRANCHES_VARIABLE } = await import("./branches.ts");
  const file = join(copy, "branches.json");
  await rm(file, { force: true });
  const child = Bun.spawn([process.execPath, "--no-orphans", ...args], {
    cwd: copy,
    env: { ...process.env, [BRANCHES_VARIABLE]: file },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [said, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  await child.exited;
  if (!(await Bun.file(file).exists())) throw new Error(`${said}\n${errors}`.slice(-2_000));
  return { said, counts: new Map((await Bun.file(file).json()) as [number, number][]) };
}

/** What a batch of seeds said of the faults that struck in it, and of any seed that failed. */
export function faultLines(said: string): string[] {
  const lines = said.trimEnd().split("\n");
  const never = lines.filter((line) => line.endsWith(" 0.0 % of seeds")).map((line) => line.trim());
  return [
    ...lines,
    never.length === 0 ? "every fault struck" : `never struck: ${never.join("; ")}`,
  ];
}

/**
 * By what each branch was taken, and which were not; assertions that would have to fail apart, and loops without a turn,
 * since most lists cannot be empty.
 */
export function branchTable(
  branches: readonly Branch[],
  seeds: Counts,
  tests: ReadonlyMap<string, Counts>,
): string[] {
  const due = [...branches.entries()].filter(([, { fails }]) => !fails);
  const missed = due.filter(([id]) => (seeds.get(id) ?? 0) === 0);
  const byTests: string[] = [];
  const never: string[] = [];
  const neverEmpty: string[] = [];
  for (const [id, { file, line, text, outcome }] of missed) {
    const said = `  ${`${file}:${line}`.padEnd(38)} ${outcome}: ${text}`;
    const test = [...tests.keys()].find((name) => (tests.get(name)?.get(id) ?? 0) > 0);
    if (test === undefined) (outcome === NO_TURN ? neverEmpty : never).push(said);
    else byTests.push(`${said}  (${test})`);
  }
  const rows = [
    ["taken by seeds", due.length - missed.length],
    ["taken by the core's own tests only", byTests.length],
    ["taken by nothing", never.length],
    ["loops over lists that were never empty", neverEmpty.length],
    ["of assertions, which would have to fail", branches.length - due.length],
    ["all of the core", branches.length],
  ] as const;
  return [
    "branches",
    ...rows.map(([what, count]) => `${what.padEnd(40)} ${String(count).padStart(5)}`),
    ...(byTests.length === 0 ? [] : ["", "by the core's own tests only:", ...byTests]),
    ...(never.length === 0 ? [] : ["", "by nothing:", ...never]),
    ...(neverEmpty.length === 0 ? [] : ["", "lists that were never empty:", ...neverEmpty]),
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
