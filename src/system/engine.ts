/**
 * Settings of the JavaScript engine, which it reads from the environment when a process starts and never again. So a
 * member that was started without them puts itself in its own place, before it has loaded or opened anything.
 *
 * A member's code is wide and flat: some thousand functions take part in a task, and none of them is hot for long. So the
 * engine's thresholds fit it badly at both ends (measured: docs/profile.md). The compiler before the last one (DFG) comes
 * sooner here: a member that gets few requests ran its first thousand in slow code, at twice the cost. And the last one
 * (FTL) comes sixteen times later: it took one to two seconds of CPU in the first seconds under load, on the cores that
 * serve, and what it made was no faster. A handler's loop over numbers gets there within milliseconds all the same.
 *
 * The runtime also asks for a collection of each heap that has changed, once a second, beside those that the engine begins by
 * itself when enough was allocated. Under a light load they were most of all collections: lone submits met them, and an idle member
 * spent a fifth of its CPU on them. What a load leaves in the main heap is collected when it is over (memory-return.ts).
 */
import { readFileSync, realpathSync } from "node:fs";

/**
 * Calls count 15, turns of a loop 1. The engine's own: 1,000 and 64,000. Each executor compiles for itself: where the first
 * one is lower still, ten of them cost more than a young member saves.
 */
export const ENGINE_SETTINGS = {
  BUN_JSC_thresholdForOptimizeAfterWarmUp: "600",
  BUN_JSC_thresholdForFTLOptimizeAfterWarmUp: "1000000",
  BUN_GC_TIMER_DISABLE: "1",
} as const;

/**
 * Replaces this process by one with the settings: same id, flags, environment and open files. Returns where they are set
 * already, by whoever started the process or by this; under the sampling profiler; and where the system cannot do it, which
 * costs speed and nothing else.
 */
export function settleEngine(settings: Readonly<Record<string, string>> = ENGINE_SETTINGS): void {
  const isSettled = Object.keys(settings).every((name) => process.env[name] !== undefined);
  if (isSettled || process.execve === undefined) return;
  // It stops threads by a signal, all the time. One that is on its way would end the new process, which has no handler yet.
  if (process.execArgv.some((flag) => flag.startsWith("--cpu-prof"))) return;
  try {
    const given = ownArguments();
    process.execve(ownProgram(given[0] ?? ""), given, { ...settings, ...process.env });
  } catch {
    // As it is, then.
  }
}

/** Under the name that it was started by, if that is this very program: a process is listed by it. */
function ownProgram(name: string): string {
  const found = Bun.which(name);
  return found !== null && realpathSync(found) === realpathSync(process.execPath)
    ? found
    : process.execPath;
}

/** As the process was started, to the letter: whoever looks for it by them finds it. */
function ownArguments(): string[] {
  try {
    return readFileSync("/proc/self/cmdline", "utf8").split("\0").slice(0, -1);
  } catch {
    // Not Linux.
    return [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  }
}
