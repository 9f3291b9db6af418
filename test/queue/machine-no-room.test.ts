import { expect, test } from "bun:test";
import type { CommittedEntry } from "../../src/replica/ports.ts";
import { NoRoomError } from "../../src/replica/ports.ts";
import { Harness, START } from "./machine-harness.ts";

/** Its disk has room for what it holds, and for no page more. */
function fill({ db }: Harness): void {
  const count = db.query<Record<string, number>, []>("PRAGMA page_count").get() ?? {};
  db.run(`PRAGMA max_page_count = ${Object.values(count)[0] ?? 1}`);
}

test("a full disk puts the state back to its last commit, and what comes again makes the same state", () => {
  for (const writeBehind of [0, 10_000]) {
    const full = new Harness({ writeBehind });
    const whole = new Harness({ writeBehind });
    const twice = (entries: readonly CommittedEntry[]): void => {
      full.machine.apply(entries);
    };
    for (let n = 0; n < 10; n++) {
      full.submit();
      whole.submit();
    }
    full.machine.flush();
    const committed = full.machine.applied();
    fill(full);
    let refused: unknown = null;
    for (let n = 0; n < 500 && refused === null; n++) {
      whole.submit({ payload: JSON.stringify("x".repeat(500)) });
      try {
        full.submit({ payload: JSON.stringify("x".repeat(500)) });
        if (n % 50 === 49) full.machine.flush();
      } catch (error) {
        refused = error;
      }
    }
    expect(refused).toBeInstanceOf(NoRoomError);
    const back = full.machine.applied().index;
    expect(back).toBeGreaterThanOrEqual(committed.index);
    // Nothing more fits, and it says so as often as it is asked.
    expect(() => {
      twice(full.entries.filter(({ index }) => index > back));
      full.machine.flush();
    }).toThrow(NoRoomError);
    full.db.run("PRAGMA max_page_count = 1000000");
    const from = full.machine.applied().index;
    twice(full.entries.filter(({ index }) => index > from));
    expect(full.machine.applied()).toEqual(whole.machine.applied());
    expect(full.machine.hash()).toBe(whole.machine.hash());
  }
});

test("so does a look at what is due or running, which saves what it has to look at", () => {
  for (const look of ["nextDueAt", "running"] as const) {
    const full = new Harness({ writeBehind: 10_000 });
    const whole = new Harness({ writeBehind: 10_000 });
    for (const h of [full, whole]) h.submit({ run_at: START + 60_000 });
    full.machine.flush();
    const committed = full.machine.applied();
    fill(full);
    for (let n = 0; n < 300; n++)
      for (const h of [full, whole])
        h.submit({ run_at: START + n, payload: JSON.stringify("x".repeat(500)) });
    expect(() => full.machine[look]()).toThrow(NoRoomError);
    expect(full.machine.applied()).toEqual(committed);
    full.db.run("PRAGMA max_page_count = 1000000");
    full.machine.apply(full.entries.filter(({ index }) => index > committed.index));
    full.machine.flush();
    expect(full.machine[look]()).toEqual(whole.machine[look]());
    expect(full.machine.hash()).toBe(whole.machine.hash());
  }
});

test("a transaction that the engine has rolled back by itself is not gone on with", () => {
  const h = new Harness({ writeBehind: 10_000 });
  h.submit();
  h.machine.flush();
  h.submit();
  h.db.run("ROLLBACK");
  expect(() => h.machine.flush()).toThrow("rolled back");
  expect(h.db.query<{ n: number }, []>("SELECT applied_index AS n FROM state").get()?.n).toBe(1);
});
