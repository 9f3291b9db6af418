/**
 * Settings of the JavaScript engine, which it reads from the environment when a process starts and never again. So a
 * member that was started without them puts itself in its own place, before it has loaded or opened anything.
 *
 * A member's code is wide and flat: some thousand functions take part in a task, and none of them is hot for long. The
 * engine's last compiler (FTL) takes one to two seconds of CPU for them in the first seconds under load, on the cores that
 * serve, and what it makes of them is no faster here than what the compiler before it had made (docs/profile.md). It
 * comes into play sixteen times later therefore: a handler's loop over numbers gets there within milliseconds all the same.
 */

const VARIABLE = "BUN_JSC_thresholdForFTLOptimizeAfterWarmUp";
/** The engine's own is 64,000; a call counts 15, a turn of a loop 1. */
const THRESHOLD = "1000000";

/**
 * Replaces this process by one with the settings: same id, flags, environment and open files. Returns where they are set
 * already, by whoever started the process or by this; and where the system cannot do it, which costs speed and nothing else.
 */
export function settleEngine(): void {
  if (process.env[VARIABLE] !== undefined || process.execve === undefined) return;
  const [, script, ...flags] = process.argv;
  if (script === undefined) return;
  try {
    process.execve(process.execPath, [process.execPath, ...process.execArgv, script, ...flags], {
      ...process.env,
      [VARIABLE]: THRESHOLD,
    });
  } catch {
    // As it is, then.
  }
}
