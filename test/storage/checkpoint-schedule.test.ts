import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock, Log } from "../../src/replica/ports.ts";
import { CheckpointSchedule } from "../../src/storage/checkpoint-schedule.ts";
import { StateCheckpointer } from "../../src/storage/state-checkpointer.ts";
import { openStateDatabase } from "../../src/storage/state-database.ts";

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };

test("a schedule checkpoints when something was applied, leaves an idle state alone, and stops", async () => {
  const folder = mkdtempSync(join(tmpdir(), "flotilla-schedule-"));
  const { db, path } = openStateDatabase(folder);
  db.run("CREATE TABLE t (n INTEGER) STRICT");
  const due: (() => void)[] = [];
  const clock: Clock = {
    monotonic: () => 0,
    wall: () => 0,
    soon: (run) => setImmediate(run),
    after: (_delay, run) => {
      due.push(run);
      return { cancel: () => due.splice(0) };
    },
  };
  /** Lets the timer fire, and waits until the next one is set: then the look is over. */
  const look = async (): Promise<void> => {
    due.shift()?.();
    while (due.length === 0) await new Promise((resolve) => setImmediate(resolve));
  };
  let applied = 5;
  let holds = 0;
  const appliedIndex = (): number => applied;
  const schedule = new CheckpointSchedule({
    checkpointer: new StateCheckpointer({
      path,
      appliedIndex,
      hold: () => {
        holds += 1;
        return () => {};
      },
    }),
    clock,
    log: silent,
    appliedIndex,
  });
  expect(schedule.durableApplied).toBe(0);
  await look();
  expect(schedule.durableApplied).toBe(5);
  await look();
  await look();
  expect(holds).toBe(1);
  applied = 6;
  await look();
  expect(holds).toBe(2);
  expect(schedule.durableApplied).toBe(6);
  await schedule.stop();
  expect(due).toEqual([]);
  db.close(true);
  rmSync(folder, { recursive: true, force: true });
});
