/**
 * `io {url}` fetches, `io {path}` reads a file under an `--io-root`; both return `{size, sha256}`. What is
 * read is streamed through the hash, and never kept.
 */
import { NonRetryableError } from "../errors.ts";
import { guardedRequest, readBody } from "../guarded-request.ts";
import { payloadObject, refuseUnknownFields, type Handler } from "../handler.ts";
import type { NetworkGuard } from "../network-guard.ts";
import { isTransientStatus, refuseStatus } from "./http.ts";
import { Hasher, type IoResult } from "./io-digest.ts";

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
      // Loaded when first needed, for the sake of a Worker's start.
      const { readFileUnder } = await import("./io-file.ts");
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
