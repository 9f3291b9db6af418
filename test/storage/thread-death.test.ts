/** A thread that dies must be told: a member that went on without it would acknowledge nothing, silently. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { asIndex } from "../../src/raft/types.ts";
import { FatalError } from "../../src/replica/ports.ts";
import { SqliteLog } from "../../src/storage/sqlite-log.ts";
import { StateCheckpointer } from "../../src/storage/state-checkpointer.ts";
import { openStateDatabase } from "../../src/storage/state-database.ts";
import { Thread } from "../../src/storage/thread.ts";
import { entry, hard, MEMBER, run, write } from "./entries.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

let folder: string;
const threads: Worker[] = [];
const RealWorker = globalThis.Worker;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "flotilla-death-"));
  globalThis.Worker = class extends RealWorker {
    constructor(...parameters: ConstructorParameters<typeof RealWorker>) {
      super(...parameters);
      threads.push(this);
    }
  };
});
afterEach(() => {
  globalThis.Worker = RealWorker;
  threads.length = 0;
  rmSync(folder, { recursive: true, force: true });
});

test("the death of the log thread is one failure, and ends every wait", async () => {
  const log = new SqliteLog(folder, MEMBER);
  await log.open(1_000);
  await write(log, { hardState: hard(1), entries: run(1, 3, 1) });
  const failures: Error[] = [];
  const told = new Promise<void>((resolve) => {
    log.onFailure((error) => {
      failures.push(error);
      resolve();
    });
  });
  const answered: string[] = [];
  threads[0]?.terminate();
  log.append({ hardState: null, entries: [entry(4, 1)] }, () => answered.push("lost"));
  const read = log.read(asIndex(1), asIndex(3), 1_000).then(
    () => "read",
    () => "refused",
  );
  await told;
  expect(await read).toBe("refused");
  log.append({ hardState: null, entries: [entry(5, 1)] }, () => answered.push("after"));
  await log.close();
  expect(failures).toHaveLength(1);
  expect(failures[0]).toBeInstanceOf(FatalError);
  expect(answered).toEqual([]);
  // A late listener is told too.
  const late: Error[] = [];
  log.onFailure((error) => late.push(error));
  expect(late).toEqual(failures);
});

test("the death of the checkpoint thread lets held applies go on", async () => {
  const { db, path } = openStateDatabase(folder);
  let released = 0;
  const checkpointer = new StateCheckpointer({
    path,
    appliedIndex: () => 1,
    hold: () => {
      threads[0]?.terminate();
      return () => (released += 1);
    },
  });
  const outcome = await checkpointer.run().then(
    () => "done before it died",
    (error: unknown) => String(error),
  );
  expect(outcome).toMatch(/done before it died|the checkpoint thread ended/);
  expect(released).toBe(1);
  await checkpointer.close();
  const after = await checkpointer.run().then(
    () => "done",
    (error: unknown) => String(error),
  );
  expect(after).toContain("the checkpoint thread ended");
  expect(released).toBe(1);
  db.close(true);
});

test("what a thread answered before its end is heard before its end is told", async () => {
  const entry = join(folder, "entry.ts");
  const thread = JSON.stringify(join(import.meta.dir, "../../src/storage/thread.ts"));
  writeFileSync(
    entry,
    `import { answering } from ${thread};
     const post = answering(self, (count) => {
       for (let i = 0; i < count; i++) post(i);
       process.exit();
     });`,
  );
  const heard: (number | string)[] = [];
  const started = new Thread<number, number>(pathToFileURL(entry), {
    answered: (answer) => heard.push(answer),
    failed: (message) => heard.push(message),
    ended: () => heard.push("ended"),
  });
  started.post(3);
  await started.ended;
  expect(heard).toEqual([0, 1, 2, "ended"]);
});
