import { describe, expect, test } from "bun:test";
import { AttemptJournal, REPORT_INTERVAL_MS } from "../../src/executor/attempt-journal.ts";
import type { ReportPart } from "../../src/executor/protocol.ts";

function journalAt(): { journal: AttemptJournal; sent: ReportPart[]; tick: (ms: number) => void } {
  let now = 5_000;
  const sent: ReportPart[] = [];
  const journal = new AttemptJournal(
    () => now,
    (part) => sent.push(part),
  );
  const tick = (ms: number): void => {
    now += ms;
  };
  return { journal, sent, tick };
}

describe("an attempt's journal", () => {
  test("a handler that never yields is reported once a second all the same", () => {
    const { journal, sent, tick } = journalAt();
    for (let step = 0; step < 50; step += 1) {
      journal.log(`step ${step}`);
      tick(REPORT_INTERVAL_MS / 10);
    }
    const rest = journal.close();
    expect(sent.length).toBeGreaterThanOrEqual(4);
    expect(sent.length).toBeLessThanOrEqual(6);
    expect([...sent, rest].flatMap((part) => part.lines)).toEqual(
      Array.from({ length: 50 }, (_, step) => `step ${step}`),
    );
  });

  test("of progress only the newest is kept, clamped to 0 to 100", () => {
    const { journal } = journalAt();
    journal.progress(-5);
    journal.progress(250, "done");
    expect(journal.close().progress).toEqual({ percent: 100, message: "done" });
    expect(() => journal.progress(Number.NaN)).toThrow(TypeError);
  });

  test("a text of several lines becomes several lines, and a broken surrogate is mended", () => {
    const { journal } = journalAt();
    journal.log("a\nb");
    journal.log("\ud800!");
    expect(journal.close().lines).toEqual(["a", "b", "\ufffd!"]);
  });

  test("what comes after the end is dropped", () => {
    const { journal, sent } = journalAt();
    journal.log("kept");
    expect(journal.close().lines).toEqual(["kept"]);
    journal.log("late");
    journal.progress(1);
    expect(journal.close()).toEqual({ progress: null, lines: [] });
    expect(sent).toEqual([]);
  });
});
