/**
 * `io {url}` fetches, `io {path}` reads a file under an `--io-root`; both return `{size, sha256}`. What is
 * read is streamed through the hash, and never kept.
 */
import { constants } from "node:fs";
import { open, readlink, realpath, stat, type FileHandle } from "node:fs/promises";
import { isAbsolute, resolve, sep } from "node:path";
import { NonRetryableError } from "../errors.ts";
import { guardedRequest, readBody } from "../guarded-request.ts";
import { payloadObject, refuseUnknownFields, type Handler } from "../handler.ts";
import type { NetworkGuard } from "../network-guard.ts";
import { isTransientStatus, refuseStatus } from "./http.ts";

/** CONTRACT section 4. */
const READ_MAX_BYTES = 64 * 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;

/** Result of `io`. */
export interface IoResult {
  readonly size: number;
  readonly sha256: string;
}

export function createIo(ioRoots: readonly string[], guard: NetworkGuard): Handler {
  return async (payload, { signal }) => {
    const fields = payloadObject(payload, "io");
    refuseUnknownFields(fields, ["url", "path"], "io");
    const { url, path } = fields;
    if ((url === undefined) === (path === undefined))
      throw new NonRetryableError("io: the payload must have either url or path");
    if (path !== undefined) {
      if (typeof path !== "string" || path === "" || path.includes("\0"))
        throw new NonRetryableError("io: payload.path must be a path");
      return readFileUnder(ioRoots, path, signal);
    }
    if (typeof url !== "string" || !URL.canParse(url))
      throw new NonRetryableError("io: payload.url must be a URL");
    return readUrl(guard, new URL(url), signal);
  };
}

async function readUrl(guard: NetworkGuard, url: URL, signal: AbortSignal): Promise<IoResult> {
  const request = { url, method: "GET", headers: {}, body: null, signal };
  const { status, headers, body } = await guardedRequest(guard, request);
  if (status < 200 || status > 299) {
    body.destroy();
    if (isTransientStatus(status)) throw refuseStatus(status, headers, url, "");
    throw new NonRetryableError(`io: ${url.host} answered ${status}`);
  }
  const hasher = new Hasher();
  for await (const chunk of readBody(body, signal)) hasher.add(chunk);
  return hasher.finish();
}

/** A relative path is taken from the first root. */
async function readFileUnder(
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

class Hasher {
  readonly #sha256 = new Bun.CryptoHasher("sha256");
  #size = 0;

  add(chunk: Uint8Array): void {
    this.#size += chunk.length;
    if (this.#size > READ_MAX_BYTES)
      throw new NonRetryableError(`io: reads ${READ_MAX_BYTES / 1024 / 1024} MiB at most`);
    this.#sha256.update(chunk);
  }

  finish(): IoResult {
    return { size: this.#size, sha256: this.#sha256.digest("hex") };
  }
}
