import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BackupManifest, encodeHeader, extractBackup } from "../../src/storage/backup-file.ts";
import { failure } from "./log-suite.ts";

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "flotilla-backup-"));
  file = join(folder, "backup");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const state = new Uint8Array(3_000_000).map((_, i) => (i * 7) % 251);
const manifest: BackupManifest = {
  cluster_id: "c1",
  node_id: "n1",
  created_at: "2026-11-26T00:00:00.000Z",
  index: 42,
  term: 3,
  machine_version: 1,
  bytes: state.length,
  sha256: new Bun.CryptoHasher("sha256").update(state).digest("hex"),
};

function whole(): Buffer {
  return Buffer.concat([encodeHeader(manifest), state]);
}

function extract(): Promise<BackupManifest> {
  return extractBackup(file, join(folder, "state"));
}

test("a backup gives back what went into it", async () => {
  writeFileSync(file, whole());
  expect(await extract()).toEqual(manifest);
  expect(Buffer.compare(readFileSync(join(folder, "state")), state)).toBe(0);
});

test("a byte that was changed anywhere is found", async () => {
  const bytes = whole();
  const begins = bytes.length - state.length;
  for (const at of [
    0,
    16,
    30,
    begins - 20,
    begins - 2,
    begins,
    begins + 1_500_000,
    bytes.length - 1,
  ]) {
    const damaged = Buffer.from(bytes);
    damaged[at] = (damaged[at] ?? 0) ^ 4;
    writeFileSync(file, damaged);
    expect(await failure(extract())).toContain(file);
  }
});

test("one that is cut short or has something behind it is found", async () => {
  const bytes = whole();
  for (const length of [0, 10, 50, 300, bytes.length - 1]) {
    writeFileSync(file, bytes.subarray(0, length));
    expect(await failure(extract())).toContain(file);
  }
  writeFileSync(file, Buffer.concat([bytes, Buffer.from("x")]));
  expect(await failure(extract())).toContain("holds more");
});

test("what is no backup, of another format, or not there, is told as that", async () => {
  writeFileSync(file, "SQLite format 3\0 and so on");
  expect(await failure(extract())).toContain("is no backup of Flotilla");
  writeFileSync(file, "flotilla-backup 2 abc\n{}\n");
  expect(await failure(extract())).toContain("has format 2");
  rmSync(file);
  expect(await failure(extract())).toContain("is not there");
  expect(existsSync(join(folder, "state"))).toBe(false);
});
