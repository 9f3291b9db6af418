/** `io {path}`: a regular file under an `--io-root`, judged by the path of what was opened. */
import { constants } from "node:fs";
import { open, readlink, realpath, stat, type FileHandle } from "node:fs/promises";
import { isAbsolute, resolve, sep } from "node:path";
import { NonRetryableError } from "../errors.ts";
import { Hasher, type IoResult } from "./io-digest.ts";

const CHUNK_BYTES = 256 * 1024;

/** A relative path is taken from the first root. */
export async function readFileUnder(
  ioRoots: readonly string[],
  path: string,
  signal: AbortSignal,
): Promise<IoResult> {
  const [firstRoot] = ioRoots;
  if (firstRoot === undefined)
    throw new NonRetryableError("io: this member reads no files; start it with --io-root FOLDER");
  const file = await openRegular(isAbsolute(path) ? path : resolve(firstRoot, path));
  try {
    const real = await realPathOf(file, path);
    const roots = await Promise.all(ioRoots.map((root) => realpath(root)));
    // The path of what was opened, not of what was asked for: links and races end here.
    if (!roots.some((root) => real.startsWith(root.endsWith(sep) ? root : root + sep)))
      throw unreadable();
    const hasher = new Hasher();
    const buffer = new Uint8Array(CHUNK_BYTES);
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
      if (bytesRead === 0) return hasher.finish();
      hasher.add(buffer.subarray(0, bytesRead));
      signal.throwIfAborted();
    }
  } finally {
    await file.close();
  }
}

async function openRegular(path: string): Promise<FileHandle> {
  let file: FileHandle | null = null;
  try {
    // Asked before opening too: opening a device can act on it.
    if (!(await stat(path)).isFile()) throw unreadable();
    // Non-blocking: a FIFO put there meanwhile must not hold the Worker.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    if (!(await file.stat()).isFile()) throw unreadable();
    return file;
  } catch {
    await file?.close();
    throw unreadable();
  }
}

/** One sentence for all: which of them it was would tell what exists outside the roots. */
function unreadable(): NonRetryableError {
  return new NonRetryableError(
    "io: payload.path is no file that can be read under an --io-root of this member",
  );
}

async function realPathOf(file: FileHandle, path: string): Promise<string> {
  if (process.platform === "linux") return readlink(`/proc/self/fd/${file.fd}`);
  const [real, opened] = [await realpath(path), await file.stat()];
  const named = await stat(real);
  if (named.ino !== opened.ino || named.dev !== opened.dev)
    throw new NonRetryableError("io: payload.path changed while it was opened");
  return real;
}
