/**
 * A backup as one file: a line with the checksum of the next one, a line of JSON that says what it is, and the
 * bytes of a state database, whose checksum stands in that line. Whatever is damaged or missing is refused.
 *
 *     flotilla-backup 1 SHA256-OF-THE-NEXT-LINE
 *     {"cluster_id":…,"index":…,"bytes":…,"sha256":…}
 *     SQLite format 3 …
 */
import { closeSync, existsSync, fsyncSync, openSync, writeSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { FatalError } from "../replica/ports.ts";

const MAGIC = "flotilla-backup";
const VERSION = "1";
/** Both lines together are some hundreds of bytes. */
const HEADER_BYTES_MAX = 64 * 1024;
const PIECE_BYTES = 1024 * 1024;

/** What a backup says of itself. */
export interface BackupManifest {
  readonly cluster_id: string;
  /** The member that made it. */
  readonly node_id: string;
  /** RFC 3339, UTC. */
  readonly created_at: string;
  /** Last log entry that it holds. */
  readonly index: number;
  readonly term: number;
  readonly machine_version: number;
  /** Of the state database that follows. */
  readonly bytes: number;
  /** Of those bytes, hex. */
  readonly sha256: string;
}

export function encodeHeader(manifest: BackupManifest): Uint8Array {
  const line = JSON.stringify(manifest);
  return new TextEncoder().encode(`${MAGIC} ${VERSION} ${sha256(line)}\n${line}\n`);
}

/** What the file at `path` says of itself. @throws FatalError with a sentence that names the file */
export async function readManifest(path: string): Promise<BackupManifest> {
  const file = await openBackup(path);
  try {
    return (await header(path, file)).manifest;
  } finally {
    await file.close();
  }
}

/**
 * Checks the backup at `path` and writes its state database to `target`, synced.
 * @throws FatalError with a sentence that names the file; what was written of `target` stays
 */
export async function extractBackup(path: string, target: string): Promise<BackupManifest> {
  const file = await openBackup(path);
  try {
    const { manifest, begins } = await header(path, file);
    const hasher = new Bun.CryptoHasher("sha256");
    const piece = new Uint8Array(PIECE_BYTES);
    const out = openSync(target, "w", 0o600);
    let bytes = 0;
    try {
      for (;;) {
        const { bytesRead } = await file.read(piece, 0, piece.length, begins + bytes);
        if (bytesRead === 0) break;
        const taken = piece.subarray(0, bytesRead);
        hasher.update(taken);
        for (let at = 0; at < bytesRead;) at += writeSync(out, taken, at);
        bytes += bytesRead;
        if (bytes > manifest.bytes) break;
      }
      fsyncSync(out);
    } finally {
      closeSync(out);
    }
    if (bytes !== manifest.bytes) {
      const much = bytes < manifest.bytes ? `only ${bytes}` : "more";
      throw damaged(path, `it should hold ${manifest.bytes} bytes of state and holds ${much}`);
    }
    if (hasher.digest("hex") !== manifest.sha256) {
      throw damaged(path, "its content has another checksum than it had when it was made");
    }
    return manifest;
  } finally {
    await file.close();
  }
}

async function openBackup(path: string): Promise<FileHandle> {
  if (!existsSync(path)) throw new FatalError(`--restore ${path} is not there: give a backup file`);
  try {
    return await open(path, "r");
  } catch (error) {
    throw new FatalError(`--restore ${path} cannot be read (${reasonOf(error)})`);
  }
}

async function header(
  path: string,
  file: FileHandle,
): Promise<{ readonly manifest: BackupManifest; readonly begins: number }> {
  const bytes = new Uint8Array(HEADER_BYTES_MAX);
  let length = 0;
  try {
    ({ bytesRead: length } = await file.read(bytes, 0, bytes.length, 0));
  } catch (error) {
    throw new FatalError(`--restore ${path} cannot be read (${reasonOf(error)})`);
  }
  const first = bytes.subarray(0, length).indexOf(10);
  const words = new TextDecoder().decode(bytes.subarray(0, Math.max(0, first))).split(" ");
  if (words[0] !== MAGIC) {
    throw new FatalError(
      `--restore ${path} is no backup of Flotilla: give a file that GET /api/cluster/backup answered`,
    );
  }
  if (words[1] !== VERSION) {
    throw new FatalError(
      `--restore ${path} has format ${words[1]}, this build reads ${VERSION}: start the build that wrote it`,
    );
  }
  const second = bytes.subarray(0, length).indexOf(10, first + 1);
  if (second < 0) throw damaged(path, "it ends in the middle of what it says of itself");
  const line = new TextDecoder().decode(bytes.subarray(first + 1, second));
  if (sha256(line) !== words[2]) throw damaged(path, "what it says of itself has a wrong checksum");
  return { manifest: JSON.parse(line) as BackupManifest, begins: second + 1 };
}

function damaged(path: string, what: string): FatalError {
  return new FatalError(`--restore ${path} is damaged (${what}): take another backup`);
}

function sha256(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex");
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
