/** A life of a process under a tracer, which tells from outside what it synced; for tests of one file at a time. */
import { traceWords, WriteJournal } from "../cluster/write-journal.ts";

/** Whether there is a tracer, and leave to trace. */
export const canTrace =
  process.platform === "linux" &&
  Bun.which("strace") !== null &&
  Bun.spawnSync(["strace", "-o", "/dev/null", "true"]).success;

/** Runs `script` to its end. @returns what it printed, and its trace, which is also in the file `trace` */
export async function tracedLife(
  trace: string,
  script: string,
  ...args: readonly string[]
): Promise<readonly [printed: string, trace: string]> {
  const child = Bun.spawn([...traceWords(trace), process.execPath, script, ...args], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const printed = await new Response(child.stdout).text();
  await child.exited;
  for (;;) {
    // The tracer writes on for a moment.
    const text = await Bun.file(trace).text();
    if (WriteJournal.of(text).ended) return [printed.trim(), text];
    await Bun.sleep(5);
  }
}
