/**
 * Entry of the snapshot thread: everything about snapshots that reads or writes many bytes or waits for a
 * sync. Copies are made on a read-only connection of its own, beside the writer (S4).
 */
import { Database } from "bun:sqlite";
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { asideName, isAsideName, switchCurrent } from "./current-file.ts";
import { syncPath } from "./durable-files.ts";
import type {
  Position,
  SnapshotReply,
  SnapshotRequest,
  SnapshotResult,
  SnapshotWork,
} from "./snapshot-messages.ts";
import { answering } from "./thread.ts";

declare const self: Worker;

/** What is hashed at a time. */
const PIECE_BYTES = 1024 * 1024;
/** Disk that a copy leaves free at least. */
const ROOM_LEFT_BYTES = 64 * 1024 * 1024;
/** A database, and what SQLite keeps beside it. */
const SUFFIXES = ["", "-wal", "-shm", "-journal"] as const;
const DONE: SnapshotResult = { kind: "done" };

/** The file that chunks are read from, or written to: the same one many times over. */
let open: { readonly path: string; readonly flags: string; readonly file: number } | null = null;

function fileOf(path: string, flags: "r" | "r+"): number {
  if (open?.path === path && open.flags === flags) return open.file;
  closeOpen();
  const file = openSync(path, flags === "r+" && !existsSync(path) ? "w+" : flags, 0o600);
  open = { path, flags, file };
  return file;
}

function closeOpen(): void {
  if (open !== null) closeSync(open.file);
  open = null;
}

function copy({ source, target, query }: Extract<SnapshotWork, { kind: "copy" }>): SnapshotResult {
  rmSync(target, { force: true });
  requireRoom(dirname(target), statSync(source).size);
  const db = new Database(source, { readonly: true, strict: true });
  try {
    db.prepare("VACUUM INTO ?").run(target);
  } finally {
    db.close(true);
  }
  const position = positionOf(target, query);
  return { kind: "copied", position, ...digest(target) };
}

/** A copy must not be what fills the disk: the member that makes it serves everybody else. */
function requireRoom(folder: string, bytes: number): void {
  const { bavail, bsize } = statfsSync(folder);
  const free = bavail * bsize;
  if (free < bytes + ROOM_LEFT_BYTES)
    throw new Error(`a copy of the state needs ${bytes} bytes of disk, and ${free} are free`);
}

function positionOf(path: string, query: string): Position {
  const db = new Database(path, { readonly: true, strict: true });
  try {
    const row = db.prepare<Position, []>(query).get();
    if (row === null) throw new Error(`${path} does not say where it stands in the log`);
    return row;
  } finally {
    db.close(true);
  }
}

function digest(path: string): { readonly bytes: number; readonly checksum: string } {
  const file = openSync(path, "r");
  try {
    const hasher = new Bun.CryptoHasher("sha256");
    const piece = new Uint8Array(PIECE_BYTES);
    let bytes = 0;
    for (;;) {
      const count = readSync(file, piece, 0, piece.length, bytes);
      if (count === 0) break;
      hasher.update(piece.subarray(0, count));
      bytes += count;
    }
    return { bytes, checksum: hasher.digest("hex") };
  } finally {
    closeSync(file);
  }
}

function read({ path, offset, bytes }: Extract<SnapshotWork, { kind: "read" }>): SnapshotResult {
  const data = new Uint8Array(bytes);
  const count = readSync(fileOf(path, "r"), data, 0, bytes, offset);
  const taken = count === bytes ? data : data.slice(0, count);
  return { kind: "bytes", data: taken, crc: Bun.hash.crc32(taken) };
}

function write(work: Extract<SnapshotWork, { kind: "write" }>): SnapshotResult {
  const { path, offset, data, crc } = work;
  if (Bun.hash.crc32(data) !== crc) return { kind: "damaged" };
  const file = fileOf(path, "r+");
  let at = 0;
  while (at < data.length) at += writeSync(file, data, at, data.length - at, offset + at);
  return DONE;
}

function verify(work: Extract<SnapshotWork, { kind: "verify" }>): SnapshotResult {
  const { path, position, query } = work;
  closeOpen();
  cutTo(path, work.bytes);
  const { bytes, checksum } = digest(path);
  if (bytes !== work.bytes || checksum !== work.checksum) {
    throw new Error(
      `what was received has ${bytes} bytes and checksum ${checksum}, and should have ${work.bytes} and ${work.checksum}`,
    );
  }
  const found = positionOf(path, query);
  if (
    found.index !== position.index ||
    found.term !== position.term ||
    found.machineVersion !== position.machineVersion
  ) {
    throw new Error(
      `the snapshot stands at index ${found.index} of term ${found.term}, and was announced as ${position.index} of ${position.term}`,
    );
  }
  // Here, not when it is opened: turning it into a WAL database rewrites its first page and syncs.
  const db = new Database(path, { readwrite: true, create: false, strict: true });
  try {
    db.run("PRAGMA journal_mode = WAL");
  } finally {
    db.close(true);
  }
  syncPath(path);
  return DONE;
}

/** A chunk that was sent under a wrong offset must not make the file longer than it is said to be. */
function cutTo(path: string, bytes: number): void {
  const file = openSync(path, "r+");
  try {
    if (fstatSync(file).size > bytes) ftruncateSync(file, bytes);
  } finally {
    closeSync(file);
  }
}

function setAside(folder: string, name: string): SnapshotResult {
  closeOpen();
  for (const file of readdirSync(folder)) {
    if (isAsideName(file)) rmSync(join(folder, file), { force: true });
  }
  for (const suffix of SUFFIXES) {
    const from = join(folder, `${name}${suffix}`);
    if (existsSync(from)) renameSync(from, join(folder, `${asideName(name)}${suffix}`));
  }
  syncPath(folder);
  return DONE;
}

function remove(folder: string, names: readonly string[]): SnapshotResult {
  closeOpen();
  for (const name of names) {
    for (const suffix of SUFFIXES) {
      rmSync(join(folder, `${name}${suffix}`), { force: true });
    }
  }
  syncPath(folder);
  return DONE;
}

function carryOut(work: SnapshotWork): SnapshotResult {
  switch (work.kind) {
    case "copy":
      return copy(work);
    case "read":
      return read(work);
    case "write":
      return write(work);
    case "verify":
      return verify(work);
    case "rename":
      closeOpen();
      renameSync(join(work.folder, work.from), join(work.folder, work.to));
      syncPath(work.folder);
      return DONE;
    case "switch":
      switchCurrent(work.folder, work.name);
      return DONE;
    case "aside":
      return setAside(work.folder, work.name);
    case "remove":
      return remove(work.folder, work.names);
  }
}

function answer(id: number, work: SnapshotWork): void {
  try {
    const result = carryOut(work);
    post({ kind: "result", id, result }, result.kind === "bytes" ? [result.data.buffer] : []);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    post({ kind: "failed", id, message });
  }
}

const post = answering<SnapshotRequest, SnapshotReply>(self, (request) => {
  switch (request.kind) {
    case "work":
      answer(request.id, request.work);
      return;
    case "close":
      closeOpen();
      process.exit();
  }
});
