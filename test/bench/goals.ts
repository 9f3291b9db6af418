/**
 * The table of goals: three members and one, and other systems beside them, by turns in one run.
 *
 *     bun run test/bench/goals.ts [--peers DIR] [--systems A,B] [--rounds N] [--minutes N] [--short] [--out FILE.md] [--json FILE]
 *     bun run test/bench/goals.ts --from FILE.json        the tables again, of what was measured
 *
 * `--peers`: a harness of other systems (`DIR/bench.ts MODULE --only … --out FILE`, `DIR/systems/NAME.ts`), in which this
 * queue is measured too, by peers-module.ts and peers-module-one.ts. Without it: this queue alone.
 * A round takes about ten minutes with three systems, and after `--minutes` none of its steps begins any more; `--short` is
 * for seeing that everything works.
 * What was measured is written after each step, so that a run that ends early is not lost.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { readConditions } from "./conditions.ts";
import { goalsPage, type GoalsRun, type OwnRun, type PeerFigures } from "./goals-page.ts";

const SYSTEMS = "rabbitmq,bullmq-everysec,bullmq-always";
/** A step that hangs must not cost the others their time. */
const STEP_MAX_MS = 420_000;
/** Of the members before the first figure: as long as it takes the engine to compile what they run. */
const WARM_SECONDS = 10;

const { values } = parseArgs({
  options: {
    peers: { type: "string" },
    systems: { type: "string", default: SYSTEMS },
    rounds: { type: "string", default: "2" },
    minutes: { type: "string", default: "25" },
    short: { type: "boolean", default: false },
    out: { type: "string", default: "goals.md" },
    json: { type: "string", default: "goals.json" },
    from: { type: "string" },
  },
});
const { peers, short, out, json, from } = values;
const rounds = short ? 1 : wholeFrom1("rounds", values.rounds);
const minutes = wholeFrom1("minutes", values.minutes);

if (from !== undefined) {
  writeFileSync(out, goalsPage(JSON.parse(readFileSync(from, "utf8")) as GoalsRun));
  process.exit(0);
}
if (peers !== undefined && !existsSync(join(peers, "bench.ts"))) {
  console.error(`--peers ${peers}: there is no bench.ts`);
  process.exit(2);
}

const folder = mkdtempSync(join(process.env.BENCH_DIR ?? tmpdir(), "flotilla-goals-"));
const run: GoalsRun = {
  conditions: await readConditions(),
  command: `bun run test/bench/goals.ts ${process.argv.slice(2).join(" ")}`.trim(),
  own: [],
  peers: [],
  steps: [],
  faults: [],
};

/** Ends the process with a sentence for anything else: by a NaN no round would run, and no step would be late. */
function wholeFrom1(flag: string, text: string): number {
  if (/^[1-9]\d{0,5}$/.test(text)) return Number(text);
  console.error(`--${flag} takes a whole number from 1, not "${text}"`);
  return process.exit(2);
}

/** Figures of `bun run bench` for so many members. */
async function measureOwn(members: 3 | 1): Promise<void> {
  const file = join(folder, "own.json");
  // That of the turn before would be taken for this one's when this one ends without any.
  rmSync(file, { force: true });
  const only = "submit,client,batch,e2e,latency,reads,fsync,memory,own,failover";
  const sizes = short
    ? ["--quick", "--tasks", "2000", "--warm", "1"]
    : ["--reps", "1", "--seconds", "3", "--tasks", "20000", "--warm", String(WARM_SECONDS)];
  const args = ["--members", String(members), "--only", only, "--json", file, ...sizes];
  await step(`${members} of ours`, [join(import.meta.dir, "main.ts"), ...args], {});
  const { rows, faults } = JSON.parse(readFileSync(file, "utf8")) as OwnRun;
  run.own.push({ members, rows, faults });
  run.faults.push(...faults);
}

/** Figures of one system in the other harness. */
async function measurePeer(harness: string, module: string, failover: boolean): Promise<void> {
  const file = join(folder, "peer.json");
  rmSync(file, { force: true });
  const only = `submit,batch,e2e,latency${failover ? ",failover" : ""}`;
  const args = [join(harness, "bench.ts"), module, "--only", only, "--out", file];
  const sizes = { REPS: "1", SUBMIT_MS: "3000", E2E_N: "20000", LIGHT_MS: "8000" };
  await step(module, short ? [...args, "--quick"] : args, short ? {} : sizes);
  const { systems } = JSON.parse(readFileSync(file, "utf8")) as {
    systems: Record<string, PeerFigures>;
  };
  for (const [name, figures] of Object.entries(systems)) run.peers.push({ name, figures });
}

/** One process, its output on standard error. @throws when it ends badly or takes too long */
async function step(
  name: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<void> {
  const startedAt = performance.now();
  console.error(`\n== ${new Date().toISOString().slice(11, 19)} ${name}`);
  const child = Bun.spawn([process.execPath, ...args], {
    stdio: ["ignore", "ignore", "inherit"],
    env: { ...process.env, ...env },
    timeout: STEP_MAX_MS,
  });
  const code = await child.exited;
  run.steps.push({ name, seconds: Math.round((performance.now() - startedAt) / 1_000) });
  // What could not be measured stands in the file; the rest of it counts.
  if (code !== 0) run.faults.push(`${name}: ended with ${child.signalCode ?? code}`);
}

/** Whatever fails is noted, and the next one has its turn. */
async function attempt(what: string, measure: () => Promise<void>): Promise<void> {
  try {
    await measure();
  } catch (error) {
    run.faults.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
  }
  writeFileSync(json, `${JSON.stringify(run, null, 1)}\n`);
  writeFileSync(out, goalsPage(run));
}

/** Monotonic ms. */
const endAt = performance.now() + minutes * 60_000;
for (let round = 0; round < rounds; round++) {
  // A failover takes the other harness half a minute: one for each system is enough.
  const failover = round === 0 && !short;
  const others = values.systems.split(",").filter((name) => name !== "");
  const turns: [string, () => Promise<void>][] = [
    ["3 of ours", () => measureOwn(3)],
    ["1 of ours", () => measureOwn(1)],
  ];
  if (peers !== undefined) {
    const own = ["peers-module.ts", "peers-module-one.ts"].map((name) =>
      join(import.meta.dir, name),
    );
    const theirs = others.map((name) => join(peers, "systems", `${name}.ts`));
    // Ours and the others' by turns: what disturbs the machine for a minute does not hit one side alone.
    const modules = theirs.flatMap((module, i) => [module, ...own.slice(i, i + 1)]);
    for (const module of [...modules, ...own.slice(theirs.length)])
      turns.push([module, () => measurePeer(peers, module, failover)]);
  }
  for (const [what, measure] of turns) {
    if (performance.now() < endAt) await attempt(what, measure);
    else console.error(`no time is left for ${what} in round ${round + 1}`);
  }
}
rmSync(folder, { recursive: true, force: true });
console.log(readFileSync(out, "utf8"));
process.exit(run.faults.length === 0 ? 0 : 1);
