import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CheckpointSchedule } from "../../src/storage/checkpoint-schedule.ts";
import { StateCheckpointer } from "../../src/storage/state-checkpointer.ts";
import { openStateDatabase, type StateDatabase } from "../../src/storage/state-database.ts";
import { ManualClock, silent } from "./manual-clock.ts";

let folder: string;
let state: StateDatabase;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "flotilla-schedule-"));
  state = openStateDatabase(folder);
});
afterEach(() => {
  state.db.close(true);
  rmSync(folder, { recursive: true, force: true });
});

interface Scheduled {
  readonly clock: ManualClock;
  readonly schedule: CheckpointSchedule;
  applied: number;
  /** How often applies were held. */
  holds: number;
}

function scheduled(): Scheduled {
  const clock = new ManualClock();
  const appliedIndex = (): number => made.applied;
  const schedule = new CheckpointSchedule({
    checkpointer: new StateCheckpointer({
      path: state.path,
      appliedIndex,
      hold: () => {
        made.holds += 1;
        return () => {};
      },
    }),
    clock,
    log: silent,
    appliedIndex,
    onFatal: (error) => {
      throw error;
    },
  });
  const made: Scheduled = { clock, schedule, applied: 5, holds: 0 };
  return made;
}

test("a schedule checkpoints when something was applied, leaves an idle state alone, and stops", async () => {
  state.db.run("CREATE TABLE t (n INTEGER) STRICT");
  const run = scheduled();
  const { clock, schedule } = run;
  expect(schedule.durableApplied).toBe(0);
  await clock.pass(2_000);
  expect(schedule.durableApplied).toBe(5);
  await clock.pass(4_000);
  expect(run.holds).toBe(1);
  run.applied = 6;
  await clock.pass(2_000);
  expect(run.holds).toBe(2);
  expect(schedule.durableApplied).toBe(6);
  await schedule.stop();
  expect(clock.timers).toBe(0);
});

test("what was deleted goes back to the file system, though nothing is applied any more", async () => {
  const { db, path } = state;
  db.run("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT) STRICT");
  db.run(
    "INSERT INTO t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 20000) SELECT n, printf('%.1000c', 'x') FROM c",
  );
  const run = scheduled();
  const { clock, schedule } = run;
  await clock.pass(2_000);
  const full = Bun.file(path).size;
  expect(full).toBeGreaterThan(20_000_000);
  db.run("DELETE FROM t WHERE n > 100");
  run.applied = 6;
  // A checkpoint that finds what is spare, the steps, and one more checkpoint.
  await clock.pass(20_000);
  expect(Bun.file(path).size).toBeLessThan(1_500_000);
  const { holds } = run;
  await clock.pass(20_000);
  expect(run.holds).toBe(holds);
  await schedule.stop();
});

test("a state in balance keeps an eighth of its pages free, and is not moved about", async () => {
  const { db, path } = state;
  db.run("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT) STRICT");
  db.run(
    "INSERT INTO t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 20000) SELECT n, printf('%.1000c', 'x') FROM c",
  );
  const run = scheduled();
  await run.clock.pass(2_000);
  db.run("DELETE FROM t WHERE n <= 2000");
  run.applied = 6;
  const full = Bun.file(path).size;
  await run.clock.pass(20_000);
  expect(Bun.file(path).size).toBe(full);
  expect(run.holds).toBe(2);
  await run.schedule.stop();
});

test("what was durable of a state says nothing of the one that takes its place, nor does a checkpoint that was under way", async () => {
  state.db.run("CREATE TABLE t (n INTEGER) STRICT");
  const run = scheduled();
  const { clock, schedule } = run;
  await clock.pass(2_000);
  expect(schedule.durableApplied).toBe(5);
  run.applied = 3;
  schedule.replaced();
  expect(schedule.durableApplied).toBe(0);
  run.applied = 5;
  const passing = clock.pass(2_000);
  run.applied = 3;
  schedule.replaced();
  await passing;
  expect([0, 3]).toContain(schedule.durableApplied);
  await clock.pass(4_000);
  expect(schedule.durableApplied).toBe(3);
  await schedule.stop();
});
