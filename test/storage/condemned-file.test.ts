import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { condemnState, readCondemned } from "../../src/storage/condemned-file.ts";

test("a condemned state stays so until another one takes its place", () => {
  const folder = mkdtempSync(join(tmpdir(), "flotilla-condemned-"));
  try {
    expect(readCondemned(folder, "state-1-aa.db")).toBeNull();
    condemnState(folder, "state-1-aa.db", "the state of n3 is wrong");
    expect(readCondemned(folder, "state-1-aa.db")).toBe("the state of n3 is wrong");
    expect(readCondemned(folder, "state-9-bb.db")).toBeNull();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
