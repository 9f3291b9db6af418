import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { markRemoved, readRemoved } from "../../src/storage/removed-file.ts";

test("a folder that was removed stays so; another one that its files were copied to is not", () => {
  const folder = mkdtempSync(join(tmpdir(), "flotilla-removed-"));
  try {
    expect(readRemoved(folder, "aa")).toBeNull();
    markRemoved(folder, "aa", "n4 was removed");
    expect(readRemoved(folder, "aa")).toBe("n4 was removed");
    expect(readRemoved(folder, "bb")).toBeNull();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
