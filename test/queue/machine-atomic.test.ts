import { expect, test } from "bun:test";
import { Harness } from "./machine-harness.ts";

test("an entry whose applied index cannot be written leaves nothing of itself behind", () => {
  const harness = new Harness();
  harness.submit();
  const before = harness.machine.hash();
  harness.db.run(
    "CREATE TRIGGER refuse BEFORE UPDATE OF applied_index ON state BEGIN SELECT raise(ABORT, 'refused'); END",
  );
  expect(() => harness.submit()).toThrow("refused");
  harness.db.run("DROP TRIGGER refuse");
  harness.reopen();
  expect(harness.machine.hash()).toBe(before);
  expect(harness.machine.counts().Pending).toBe(1);
});
