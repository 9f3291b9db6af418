/**
 * Known bugs, put into a copy of the sources, to see whether the simulator finds them. A mutant is an edit
 * of text: production code holds no switch for it, and cannot reach one. An edit that no longer fits the
 * sources is an error, so the list cannot rot in silence.
 */
import { readFileSync, rmSync } from "node:fs";
import { cp, mkdtemp, realpath, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Millis } from "../../src/replica/ports.ts";
import { ANNOUNCEMENT } from "./batch.ts";
import type { Mutant } from "./mutant.ts";
import { MUTANTS } from "./mutant-list.ts";

/** Tests that a mutant has to pass that no seed has killed: those of the core, and of single parts. */
const TESTS = ["test/raft", "test/queue", "test/replica"];
/** Of this the simulator has models instead: no seed can kill what is in there. */
const REAL_FILES = "src/storage/";
const TESTS_OF_FILES = ["test/storage"];

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
/** How `report` tells of a failure: seed, rule, event. */
const BROKE = /^seed (\d+) broke (.*) at [\d.]+ s, event (\d+)$/m;
const ANNOUNCED = new RegExp(`^${ANNOUNCEMENT}\\d+$`, "gm");

/** Processor time that one seed may take before its process counts as hanging; they take a second or two. */
const SEED_MS: Millis = 60_000;

/** What became of one mutant. `seeds`: killed by a seed; `tests`: by a test; `nothing`: it lives; `untried`: by nobody. */
interface Verdict {
  readonly by: "seeds" | "tests" | "nothing" | "untried";
  /** How many seeds it took. */
  readonly number: number;
  readonly said: string;
}

/**
 * Runs each mutant until a seed fails on it that does not fail on the unchanged sources, or `seeds` have passed; then,
 * if it lives, the tests of the folders that it may be in. One in the real files is given to their tests at once. With
 * `seedsOnly` no tests are run, and those in the real files are not tried. Resolves with how many survived.
 */
export async function runMutants(
  seeds: number,
  from: number,
  only: readonly string[],
  seedsOnly: boolean,
): Promise<number> {
  const children = new Children();
  const verdicts: Verdict[] = [];
  try {
    const unchanged = new Unchanged(await children.folder(), children);
    await copySources(new URL("../..", import.meta.url).pathname, unchanged.folder);
    for (const mutant of MUTANTS) {
      if (only.length > 0 && !only.includes(mutant.name)) continue;
      const folder = await children.folder();
      await copySources(unchanged.folder, folder);
      await mutate(folder, mutant);
      const inFiles = mutant.edits.every(({ file }) => file.startsWith(REAL_FILES));
      const hunted: Verdict = inFiles
        ? { by: "untried", number: 0, said: "is in real files, of which seeds have models instead" }
        : await hunt(children, folder, unchanged, seeds, from);
      const verdict =
        hunted.by === "seeds" || seedsOnly
          ? hunted
          : await test(children, folder, inFiles ? TESTS_OF_FILES : TESTS, hunted.said);
      verdicts.push(verdict);
      console.log(`${mutant.name.padEnd(9)} ${mutant.what.padEnd(64)} ${verdict.said}`);
      await rm(folder, { recursive: true, force: true });
    }
  } finally {
    await children.end();
  }
  return summed(verdicts);
}

function summed(verdicts: readonly Verdict[]): number {
  const by = (what: Verdict["by"]): Verdict[] => verdicts.filter((each) => each.by === what);
  const soon = by("seeds").filter(({ number }) => number <= 200).length;
  const untried = by("untried").length;
  const aside =
    untried === 0 ? "" : `, ${untried} in real files were not tried: no seed runs those`;
  console.log(
    `${verdicts.length} mutants: ${by("seeds").length} killed by seeds (${soon} by one of the first 200), ${by("tests").length} by tests, ${by("nothing").length} survived${aside}`,
  );
  return by("nothing").length;
}

/** Processes and folders of this run: none is left when it ends, by a signal too. */
class Children {
  readonly #folders: string[] = [];
  #running: Bun.Subprocess | null = null;
  readonly #stop = (): void => {
    this.#running?.kill("SIGKILL");
    for (const folder of this.#folders) rmSync(folder, { recursive: true, force: true });
    process.exit(130);
  };

  constructor() {
    for (const signal of SIGNALS) process.on(signal, this.#stop);
  }

  async folder(): Promise<string> {
    const folder = await mkdtemp(join(tmpdir(), "flotilla-mutant-"));
    this.#folders.push(folder);
    return folder;
  }

  /** Runs Bun to its end; what says nothing for `silentMs` of processor time is killed. */
  async run(
    args: readonly string[],
    cwd: string,
    silentMs: Millis,
  ): Promise<{ readonly code: number; readonly text: string; readonly hung: boolean }> {
    // Without a parent it ends by itself: nobody can catch every signal.
    const command = [process.execPath, "--no-orphans", ...args];
    const child = Bun.spawn(command, { cwd, stdout: "pipe", stderr: "pipe" });
    this.#running = child;
    let hung = false;
    let usedMs = 0;
    const watch = (): Timer =>
      setTimeout(() => {
        // On a busy machine it may only have waited for its turn.
        const now = processorMs(child.pid);
        if (now === null || now - usedMs >= silentMs) {
          hung = true;
          child.kill("SIGKILL");
        } else timer = watch();
      }, silentMs);
    let timer = watch();
    const read = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> => {
      const decoder = new TextDecoder();
      let text = "";
      for await (const bytes of stream) {
        text += decoder.decode(bytes, { stream: true });
        clearTimeout(timer);
        usedMs = processorMs(child.pid) ?? 0;
        timer = watch();
      }
      return text;
    };
    const [code, out, err] = await Promise.all([
      child.exited,
      read(child.stdout),
      read(child.stderr),
    ]);
    clearTimeout(timer);
    this.#running = null;
    return { code, text: `${err}\n${out}`, hung };
  }

  async end(): Promise<void> {
    this.#running?.kill("SIGKILL");
    for (const signal of SIGNALS) process.off(signal, this.#stop);
    for (const folder of this.#folders) await rm(folder, { recursive: true, force: true });
  }
}

/** Processor time of a process so far; null where the system does not tell, or it is over. */
function processorMs(pid: number): Millis | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // Behind the name, which may hold anything: user and system time are the 12th and 13th, in hundredths of a second.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return 10 * (Number(fields[11]) + Number(fields[12]));
  } catch {
    return null;
  }
}

/** The sources as they are: a seed that fails there too says nothing about a mutant. */
class Unchanged {
  readonly #failures = new Map<number, string | null>();

  constructor(
    readonly folder: string,
    readonly children: Children,
  ) {}

  /** Null: the seed is clean; else the rule that it breaks. */
  async failureOf(seed: number): Promise<string | null> {
    const known = this.#failures.get(seed);
    if (known !== undefined) return known;
    const args = ["run", "test/sim/main.ts", "--seed", String(seed)];
    const { code, text, hung } = await this.children.run(args, this.folder, SEED_MS);
    const rule = hung ? "nothing: it hangs" : (BROKE.exec(text)?.[2] ?? `nothing: code ${code}`);
    const failure = code === 0 ? null : rule;
    this.#failures.set(seed, failure);
    return failure;
  }
}

/** What a run of the simulator needs, into an empty folder. */
export async function copySources(from: string, to: string): Promise<void> {
  for (const each of ["src", "views", "test", "docs", "package.json", "tsconfig.json"])
    await cp(join(from, each), join(to, each), { recursive: true });
  await symlink(await realpath(join(from, "node_modules")), join(to, "node_modules"));
}

async function mutate(folder: string, mutant: Mutant): Promise<void> {
  for (const [file, text] of await mutated(folder, mutant))
    await Bun.write(join(folder, file), text);
}

/** The files that it changes, as they are then. @throws Error the sources have changed, and the edit with them */
export async function mutated(
  root: string,
  { name, edits }: Mutant,
): Promise<ReadonlyMap<string, string>> {
  const texts = new Map<string, string>();
  for (const { file, find, replace } of edits) {
    const text = texts.get(file) ?? (await Bun.file(join(root, file)).text());
    if (text.split(find).length !== 2)
      throw new Error(`mutant ${name} no longer fits ${file}: its text is not there exactly once`);
    texts.set(
      file,
      text.replace(find, () => replace),
    );
  }
  return texts;
}

async function hunt(
  children: Children,
  folder: string,
  unchanged: Unchanged,
  seeds: number,
  from: number,
): Promise<Verdict> {
  let skipped = 0;
  const aside = (): string =>
    skipped === 0 ? "" : ` (${skipped} seeds before it fail on the unchanged sources too)`;
  for (let next = from; next < from + seeds;) {
    const flags = { seeds: from + seeds - next, from: next };
    const args = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, String(value)]);
    const { code, text, hung } = await children.run(
      ["run", "test/sim/main.ts", ...args, "--first", "--announce"],
      folder,
      SEED_MS,
    );
    if (code === 0) break;
    const broke = BROKE.exec(text);
    // One that ended without a word, or did not end at all, did so in the seed that it announced last.
    const seed = Number(broke?.[1] ?? text.match(ANNOUNCED)?.at(-1)?.slice(ANNOUNCEMENT.length));
    if (!Number.isSafeInteger(seed))
      throw new Error(`the mutated sources do not run: ${text.slice(-1_000)}`);
    if ((await unchanged.failureOf(seed)) === null) {
      const number = seed - from + 1;
      const how =
        broke !== null
          ? `${broke[2]}, event ${broke[3]}`
          : hung
            ? "it does not end"
            : `the process ends with code ${code}`;
      return {
        by: "seeds",
        number,
        said: `killed by seed ${seed} (number ${number}): ${how}${aside()}`,
      };
    }
    skipped += 1;
    next = seed + 1;
  }
  return { by: "nothing", number: seeds, said: `survived ${seeds - skipped} seeds${aside()}` };
}

/** Killed by the first test that fails on the mutant, or by none. */
async function test(
  children: Children,
  folder: string,
  all: readonly string[],
  said: string,
): Promise<Verdict> {
  for (const tests of all) {
    const { code, text } = await children.run(["test", "--bail", tests], folder, SEED_MS);
    if (code === 0) continue;
    const failed = /^\(fail\) (.*?)(?: \[[\d.]+ms\])?$/m.exec(text);
    return {
      by: "tests",
      number: 0,
      said: `${said}; killed by the test "${failed?.[1] ?? "?"}" (${tests})`,
    };
  }
  return { by: "nothing", number: 0, said: `${said}, and the tests` };
}
