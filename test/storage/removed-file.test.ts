import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { markRemoved, readRemoved } from "../../src/storage/removed-file.ts";

test("a folder that was removed stays so; another one that its files were copied to is not", () => {
  const folder = mkdtempSync(join(tmpdir(), "flotilla-removed-"));
  try {
    expect(readRemoved(folder, "c1", "aa")).toBeNull();
    markRemoved(folder, "c1", "aa", "n4 was removed");
    expect(readRemoved(folder, "c1", "aa")).toBe("n4 was removed");
    expect(readRemoved(folder, "c1", "bb")).toBeNull();
    // Rescued: the folder is another cluster's now.
    expect(readRemoved(folder, "c2", "aa")).toBeNull();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
