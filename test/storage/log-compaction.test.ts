/** The schedule alone, on numbers; and together with the files, on what 10,000 tasks leave behind. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asIndex, asTerm, type LogIndex } from "../../src/raft/types.ts";
import { CheckpointSchedule } from "../../src/storage/checkpoint-schedule.ts";
import { DEFAULT_LOG_TAIL } from "../../src/queue/types.ts";
import { LogCompaction, type TailLimits } from "../../src/storage/log-compaction.ts";
import { SqliteLog } from "../../src/storage/sqlite-log.ts";
import { StateCheckpointer } from "../../src/storage/state-checkpointer.ts";
import { openStateDatabase } from "../../src/storage/state-database.ts";
import { Harness, idAt, newTask } from "../queue/machine-harness.ts";
import { entry, hard, MEMBER, write } from "./entries.ts";
import { ManualClock, silent } from "./manual-clock.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const MIB = 1024 * 1024;
const MINUTE = 60_000;
/** As the cluster's settings have them when nobody changed them. */
const DEFAULTS: TailLimits = {
  bytesMax: DEFAULT_LOG_TAIL.max_bytes,
  ageMaxMs: DEFAULT_LOG_TAIL.max_ms,
  youngBytes: DEFAULT_LOG_TAIL.young_bytes,
  youngMs: DEFAULT_LOG_TAIL.young_ms,
};

class Member {
  readonly clock = new ManualClock();
  applied = 0;
  bytesWritten = 0;
  durable = Number.POSITIVE_INFINITY;
  stateBytes = 0;
  /** A member that fetches a snapshot needs what is behind it. */
  floor = Number.POSITIVE_INFINITY;
  begins = 0;
  limits = DEFAULTS;
  readonly compaction: LogCompaction;

  constructor(recovered = { entries: 0, bytes: 0 }) {
    this.applied = recovered.entries;
    this.compaction = new LogCompaction({
      clock: this.clock,
      log: silent,
      limits: () => this.limits,
      applied: () => this.applied,
      bytesWritten: () => this.bytesWritten,
      recovered,
      durableApplied: () => this.durable,
      stateBytes: async () => this.stateBytes,
      compact: async (index) => {
        this.begins = Math.max(this.begins, Math.min(index, this.floor));
        return asIndex(this.begins);
      },
    });
  }

  /** An entry of a mebibyte in each second. */
  async write(mib: number): Promise<void> {
    for (let i = 0; i < mib; i++) {
      this.applied += 1;
      this.bytesWritten += MIB;
      await this.clock.pass(1_000);
    }
  }
}

describe("how much of its beginning a log forgets", () => {
  test("nothing while it is short", async () => {
    const member = new Member();
    await member.write(31);
    expect(member.begins).toBe(0);
  });

  test("what is behind a tail as long as the state, since sending that would be the shorter way", async () => {
    const member = new Member();
    member.stateBytes = 40 * MIB;
    await member.write(100);
    expect(member.begins).toBe(60);
    member.stateBytes = 0;
    await member.clock.pass(2_000);
    expect(member.begins).toBe(68);
    await member.clock.pass(MINUTE);
    expect(member.begins).toBe(100);
  });

  test("a tail of 256 MiB is enough for any state", async () => {
    const member = new Member();
    member.stateBytes = 5_000 * MIB;
    await member.write(300);
    expect(member.begins).toBe(44);
  });

  test("only what the state holds durably", async () => {
    const member = new Member();
    member.durable = 3;
    await member.write(50);
    expect(member.begins).toBe(3);
    member.durable = 60;
    await member.clock.pass(2_000);
    expect(member.begins).toBe(18);
  });

  test("nothing that a member needs which fetches a snapshot; later it is made good", async () => {
    const member = new Member();
    member.floor = 7;
    await member.write(50);
    expect(member.begins).toBe(7);
    member.floor = Number.POSITIVE_INFINITY;
    await member.clock.pass(2_000);
    expect(member.begins).toBe(18);
  });

  test("after a minute what is longer than the state, however short it is", async () => {
    const member = new Member();
    member.stateBytes = 2 * MIB;
    await member.write(10);
    await member.clock.pass(50_000);
    expect(member.begins).toBe(0);
    await member.clock.pass(20_000);
    expect(member.begins).toBe(8);
  });

  test("after a day all of it", async () => {
    const member = new Member();
    member.stateBytes = 100 * MIB;
    await member.write(10);
    await member.clock.pass(23 * 60 * MINUTE);
    expect(member.begins).toBe(0);
    await member.clock.pass(61 * MINUTE);
    expect(member.begins).toBe(10);
  });

  test("no more than the settings say, each of them, from the next look on", async () => {
    const member = new Member();
    member.stateBytes = 5_000 * MIB;
    await member.write(100);
    expect(member.begins).toBe(0);
    // The longest tail, though it is young: the bound counts for more.
    member.limits = { ...DEFAULTS, bytesMax: 20 * MIB };
    await member.clock.pass(2_000);
    expect(member.begins).toBe(80);
    // A small state, and a shorter young tail.
    member.stateBytes = 0;
    member.limits = { ...DEFAULTS, youngBytes: 10 * MIB };
    await member.clock.pass(2_000);
    expect(member.begins).toBe(90);
    // Young for a shorter time. The marks are a second apart.
    member.limits = { ...DEFAULTS, youngMs: 8_500 };
    await member.clock.pass(1_000);
    expect(member.begins).toBeGreaterThan(95);
    member.stateBytes = 5_000 * MIB;
    await member.write(1);
    member.limits = { ...DEFAULTS, ageMaxMs: MINUTE };
    await member.clock.pass(40_000);
    expect(member.begins).toBeLessThan(100);
    await member.clock.pass(22_000);
    expect(member.begins).toBe(101);
  });

  test("of a log that an earlier process left, what lies behind the tail by its length", async () => {
    const member = new Member({ entries: 1_600, bytes: 160 * MIB });
    member.stateBytes = 80 * MIB;
    await member.clock.pass(2_000);
    expect(member.begins).toBe(800);
  });
});

test("a queue that was emptied gives back the disk of log and state", async () => {
  const folder = mkdtempSync(join(tmpdir(), "flotilla-emptied-"));
  const { db, path } = openStateDatabase(folder);
  const harness = new Harness({}, db);
  const log = new SqliteLog(folder, MEMBER);
  await log.open(1_000);
  await write(log, { hardState: hard(1) });
  const clock = new ManualClock();
  const applied = (): number => harness.index;
  const checkpoints = new CheckpointSchedule({
    checkpointer: new StateCheckpointer({ path, appliedIndex: applied, hold: () => () => {} }),
    clock,
    log: silent,
    appliedIndex: applied,
    onFatal: (error) => {
      throw error;
    },
  });
  const compaction = new LogCompaction({
    clock,
    log: silent,
    limits: () => DEFAULTS,
    applied,
    bytesWritten: () => log.stats().bytesWritten,
    recovered: log.stats(),
    durableApplied: () => checkpoints.durableApplied,
    stateBytes: async () => Bun.file(path).size,
    compact: async (index: LogIndex) => {
      await log.compact(index, asTerm(1));
      return index;
    },
  });
  const logged = async (text: string): Promise<void> => {
    await write(log, { entries: [entry(harness.index, 1, text)] });
  };

  const payload = JSON.stringify("x".repeat(4_800));
  for (let n = 0; n < 10_000; n += 250) {
    const tasks = Array.from({ length: 250 }, (_, i) =>
      newTask(idAt(harness.now, n + i), { payload }),
    );
    harness.value({ type: "submit", tasks });
    await logged(JSON.stringify(tasks));
    await clock.pass(1_000, 2);
  }
  const full = { log: Bun.file(join(folder, "log.db")).size, state: Bun.file(path).size };
  expect(full.log).toBeGreaterThan(40 * MIB);
  expect(full.state).toBeGreaterThan(40 * MIB);

  harness.value({ type: "clear", status: null });
  await logged("clear");
  for (let more = true; more;) {
    const value = harness.value({ type: "clear-step", term: harness.term, max: 1_000 });
    await logged("clear-step");
    more = value.type === "done" && value.more;
  }
  await clock.pass(30_000, 2);
  // The tail, and a step of slack.
  expect(Bun.file(join(folder, "log.db")).size).toBeLessThan(36 * MIB);
  expect(Bun.file(path).size).toBeLessThan(3 * MIB);
  await clock.pass(MINUTE, 2);
  expect(Bun.file(join(folder, "log.db")).size).toBeLessThan(5 * MIB);

  compaction.stop();
  await checkpoints.stop();
  await log.close();
  db.close(true);
  rmSync(folder, { recursive: true, force: true });
});
