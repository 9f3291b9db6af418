/**
 * Puts figures into docs/benchmarks.md, between its two marks, as tables: from the files that `bun run bench --json FILE` wrote.
 *
 *     bun run test/bench/report.ts FILE…
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Row } from "./bench.ts";
import { type Conditions, conditionsText } from "./conditions.ts";
import { tables } from "./table.ts";

const PAGE = join(import.meta.dir, "..", "..", "docs", "benchmarks.md");
const BEGIN = "<!-- figures: made by test/bench/report.ts -->";
const END = "<!-- end of the figures -->";

interface Run {
  readonly conditions: Conditions;
  readonly command: string;
  readonly rows: readonly Row[];
  readonly faults: readonly string[];
}

const files = process.argv.slice(2);
const page = readFileSync(PAGE, "utf8");
const [before, rest] = page.split(BEGIN);
const after = rest?.split(END)[1];
if (files.length === 0 || before === undefined || after === undefined) {
  console.error(`usage: bun run test/bench/report.ts FILE…   (${PAGE} needs its two marks)`);
  process.exit(2);
}
const sections = files.map((file) => {
  const { conditions, command, rows, faults } = JSON.parse(readFileSync(file, "utf8")) as Run;
  const lines = conditionsText(conditions).split("\n");
  const notes = [`\`${command}\``, ...lines, ...faults].map((line) => `- ${line}`);
  return `${notes.join("\n")}\n\n${tables(rows)}`;
});
writeFileSync(PAGE, `${before}${BEGIN}\n\n${sections.join("\n\n")}\n\n${END}${after}`);
await Bun.spawn(["bun", "fmt", "--no-script", PAGE], { stdio: ["ignore", "ignore", "inherit"] })
  .exited;
