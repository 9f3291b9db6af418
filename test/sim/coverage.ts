/** What of the Raft core a number of seeds reaches: runs them under the test runner's line counters. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

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
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
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
