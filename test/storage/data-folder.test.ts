import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FatalError } from "../../src/replica/ports.ts";
import { openDataFolder } from "../../src/storage/data-folder.ts";

let base: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "flotilla-folder-"));
});
afterEach(() => {
  rmSync(base, { recursive: true, force: true });
});

test("a folder is created with its parents, for its owner alone", () => {
  const path = join(base, "a/b/n1");
  const folder = openDataFolder(path);
  expect(folder.path).toBe(path);
  expect(statSync(path).mode & 0o777).toBe(0o700);
  folder.release();
});

test("a second opening is refused by name until the first is released", () => {
  const path = join(base, "n1");
  const folder = openDataFolder(path);
  expect(() => openDataFolder(path)).toThrow(
    `the data folder ${path} is in use by another process`,
  );
  expect(() => openDataFolder(path)).toThrow(FatalError);
  folder.release();
  openDataFolder(path).release();
});

test("a file in its place is refused", () => {
  const path = join(base, "file");
  writeFileSync(path, "");
  expect(() => openDataFolder(path)).toThrow(`cannot use the data folder ${path}`);
  expect(() => openDataFolder(join(path, "below"))).toThrow("cannot use the data folder");
});

test("another process holds the folder, and kill -9 frees it", async () => {
  const path = join(base, "n1");
  const child = Bun.spawn(
    [
      process.execPath,
      "-e",
      `const { openDataFolder } = await import(process.argv[1]);
       globalThis.folder = openDataFolder(process.argv[2]);
       console.log("locked");
       setInterval(() => {}, 1000);`,
      join(import.meta.dir, "../../src/storage/data-folder.ts"),
      path,
    ],
    { stdout: "pipe", stderr: "inherit" },
  );
  try {
    for await (const chunk of child.stdout) {
      expect(new TextDecoder().decode(chunk)).toContain("locked");
      break;
    }
    expect(() => openDataFolder(path)).toThrow("is in use by another process");
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
  expect(existsSync(path)).toBe(true);
  openDataFolder(path).release();
});
