/**
 * Preloaded by `bun test` (bunfig.toml), and puts a better started one in its place, once, before a test is loaded:
 *
 * - A run of all files has a process for each core, up to four: `--parallel`, which bunfig.toml cannot ask for. One process
 *   uses one core while it computes, and most files do; the scenarios of test/cluster wait meanwhile on the other. The
 *   processes keep what they have loaded from file to file (`--no-isolate`), as a single one does. What names files is run
 *   as it was asked for.
 * - A test has a minute, where it does not say itself how long. Whatever else the machine does, a test is slower, not wrong.
 * - The engine's last compiler (FTL) comes as late as in a member (src/system/engine.ts). Thousands of short tests never
 *   earn back what it costs: a quarter of the processor time of those that compute. Nor what the one before it (DFG) costs,
 *   which comes four times later than by the engine's own setting: a seventh, and a fifth of that of the members that a
 *   scenario starts for some seconds. Those of test/cluster/start-process.ts settle the engine themselves. As in a member, the
 *   runtime asks for no collections by the clock.
 *
 * Where the system cannot do it, the tests take longer and nothing else.
 */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { ENGINE_SETTINGS } from "../../src/system/engine.ts";

const ENGINE = { ...ENGINE_SETTINGS, BUN_JSC_thresholdForOptimizeAfterWarmUp: "4000" } as const;
/** A process takes half a GiB. */
const PROCESSES_MAX = 4;
const TIMEOUT_MS = 60_000;
/** Whoever says how the files are to be shared out has it so. */
const SHARES = /^--(?:parallel|isolate|no-isolate|shard|watch|hot|test-worker|randomize|bail)\b/;

/** The words behind `bun test`, with those that give time, and where all files are to run, those that share them out. */
function better(given: readonly string[]): readonly string[] {
  const words = [...given];
  if (!given.some((word) => word.startsWith("--timeout"))) words.unshift(`--timeout=${TIMEOUT_MS}`);
  const processes = Math.min(availableParallelism(), PROCESSES_MAX);
  // A word that is no flag names files, or is the value of the flag before it, which nothing here can tell.
  if (processes > 1 && given.every((word) => word.startsWith("-") && !SHARES.test(word)))
    words.unshift(`--parallel=${processes}`, "--no-isolate");
  return words;
}

function beginAgain(): void {
  try {
    const [program = "", test, ...given] = readFileSync("/proc/self/cmdline", "utf8")
      .split("\0")
      .slice(0, -1);
    const words = better(given);
    const isSettled =
      Object.keys(ENGINE).every((name) => process.env[name] !== undefined) &&
      words.length === given.length;
    // The sampling profiler's signal would end the process in its place.
    const isProfiled = given.some((word) => word.startsWith("--cpu-prof"));
    if (test !== "test" || isSettled || isProfiled || process.execve === undefined) return;
    process.execve(process.execPath, [program, test, ...words], {
      ...ENGINE,
      ...process.env,
    });
  } catch {
    // As it is, then.
  }
}

beginAgain();
