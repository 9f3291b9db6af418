/**
 * Where the time of a CPU profile went: by function itself, and by function with all that it called.
 * `bun run test/bench/profile.ts FILE.cpuprofile [rows]`; profiles come from `bun run bench --profile`.
 */
import { readFileSync } from "node:fs";

interface Node {
  readonly id: number;
  readonly callFrame: { functionName: string; url: string; lineNumber: number };
  readonly children?: readonly number[];
}

interface Profile {
  readonly nodes: readonly Node[];
  readonly samples: readonly number[];
  /** µs. */
  readonly timeDeltas: readonly number[];
}

const [path, rows = "40"] = process.argv.slice(2);
if (path === undefined) {
  console.error("usage: bun run test/bench/profile.ts FILE.cpuprofile [rows]");
  process.exit(2);
}
const profile = JSON.parse(readFileSync(path, "utf8")) as Profile;
const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
const selfUs = new Map<number, number>();
for (const [i, id] of profile.samples.entries())
  selfUs.set(id, (selfUs.get(id) ?? 0) + (profile.timeDeltas[i] ?? 0));
const root = profile.nodes[0];
if (root === undefined) throw new Error("an empty profile");

const own = new Map<string, number>();
const whole = new Map<string, number>();

function nameOf({ callFrame: { functionName, url, lineNumber } }: Node): string {
  const file = url.replace(/^.*\/(src|node_modules)\//, "$1/");
  return `${functionName === "" ? "(anonymous)" : functionName} ${file}${file === "" ? "" : `:${lineNumber + 1}`}`;
}

/** A function that is on the stack already is counted once. */
function visit(node: Node, above: ReadonlySet<string>): number {
  const name = nameOf(node);
  const self = selfUs.get(node.id) ?? 0;
  own.set(name, (own.get(name) ?? 0) + self);
  const inside = new Set(above).add(name);
  let sum = self;
  for (const child of node.children ?? []) {
    const next = nodes.get(child);
    if (next !== undefined) sum += visit(next, inside);
  }
  if (!above.has(name)) whole.set(name, (whole.get(name) ?? 0) + sum);
  return sum;
}

const total = visit(root, new Set());
const idle = [...own].filter(([name]) => name.startsWith("(idle)"));
const busy = total - idle.reduce((sum, [, us]) => sum + us, 0);
function print(title: string, times: ReadonlyMap<string, number>): void {
  console.log(`\n${title}`);
  for (const [name, us] of [...times].sort((a, b) => b[1] - a[1]).slice(0, Number(rows)))
    console.log(`${((us / busy) * 100).toFixed(1).padStart(5)} %  ${name}`);
}
console.log(`${(busy / 1e6).toFixed(2)} s busy of ${(total / 1e6).toFixed(2)} s`);
print("itself", own);
print("with what it called", whole);
