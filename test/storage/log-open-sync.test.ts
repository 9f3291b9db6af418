/** What a log believes in when it is opened is on the disk by then (S1), on real files, as a tracer sees it. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LogFile } from "../../src/storage/log-file.ts";
import { losePower, traceWords, WriteJournal } from "../cluster/write-journal.ts";
import { MEMBER } from "./entries.ts";

const PROCESS = join(import.meta.dir, "open-log-process.ts");
const folder = mkdtempSync(join(tmpdir(), "flotilla-open-sync-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const strace =
  process.platform === "linux" &&
  Bun.which("strace") !== null &&
  Bun.spawnSync(["strace", "-o", "/dev/null", "true"]).success;

/** @returns what it printed, and its trace */
async function life(what: "write" | "open"): Promise<readonly [string, string]> {
  const trace = join(folder, `${what}.trace`);
  const child = Bun.spawn([...traceWords(trace), process.execPath, PROCESS, folder, what], {
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

test.skipIf(!strace)(
  "what a killed process wrote and never synced is synced before the next one believes it",
  async () => {
    const [, first] = await life("write");
    expect(WriteJournal.of(first).unsynced().size).toBeGreaterThan(0);
    const [believed, second] = await life("open");
    expect(believed).toBe("4");
    // And now the power goes: everything that neither of them synced is gone.
    await losePower(WriteJournal.of(first, second), folder, () => 0);
    const { file, recovered } = LogFile.open(folder, MEMBER, 1_000);
    file.close();
    expect(Number(recovered.lastIndex)).toBe(4);
    expect(recovered.damage).toBeNull();
  },
  60_000,
);
