/**
 * Fails when a page holds text that is not escaped (`safe` missing), by the scanner of the JSX library.
 *
 * The scanner works by types, and types that do not resolve make it find nothing: so each run must also find
 * the mistake planted in xss-canary.tsx, and only that.
 */
import { resolve } from "node:path";

const ROOT = resolve(import.meta.dir, "../..");
const CANARY = "test/tools/xss-canary.tsx";

const pages = [...new Bun.Glob("{views,src}/**/*.{tsx,jsx}").scanSync(ROOT)].toSorted();
if (pages.length === 0) fail("found no pages to scan");

const scanner = Bun.fileURLToPath(import.meta.resolve("@kitajs/ts-html-plugin/dist/cli.js"));
const scan = Bun.spawn([process.execPath, scanner, "--simplified", ...pages, CANARY], {
  cwd: ROOT,
  stdin: "ignore",
  stdout: "pipe",
  stderr: "pipe",
});
const [output, problems] = await Promise.all([
  new Response(scan.stdout).text(),
  new Response(scan.stderr).text(),
]);
await scan.exited;

const findings = `${output}\n${problems}`.split("\n").filter((line) => line.trim() !== "");
const planted = `${CANARY}(`;
const real = findings.filter((line) => !line.startsWith(planted));
if (real.length > 0) fail(real.join("\n"));
if (findings.length === 0) fail(`the scanner is blind: it did not find the mistake in ${CANARY}`);
process.stdout.write(`No unescaped text in ${pages.length} files of pages\n`);

function fail(reason: string): never {
  process.stderr.write(`xss-scan: ${reason}\n`);
  process.exit(1);
}
