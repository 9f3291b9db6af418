/** What a log believes in when it is opened is on the disk by then (S1), on real files, as a tracer sees it. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LogFile } from "../../src/storage/log-file.ts";
import { losePower, WriteJournal } from "../cluster/write-journal.ts";
import { MEMBER } from "./entries.ts";
import { canTrace, tracedLife } from "./traced-process.ts";

const PROCESS = join(import.meta.dir, "open-log-process.ts");
const folder = mkdtempSync(join(tmpdir(), "flotilla-open-sync-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test.skipIf(!canTrace)(
  "what a killed process wrote and never synced is synced before the next one believes it",
  async () => {
    const [, first] = await tracedLife(join(folder, "write.trace"), PROCESS, folder, "write");
    expect(WriteJournal.of(first).unsynced().size).toBeGreaterThan(0);
    const [believed, second] = await tracedLife(
      join(folder, "open.trace"),
      PROCESS,
      folder,
      "open",
    );
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
