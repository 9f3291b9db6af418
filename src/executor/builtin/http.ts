/**
 * `http {url, method?, headers?, body?, timeout_ms?}`: calls a webhook. A string body is sent as it is,
 * any other value as JSON. 5xx and 429 are retried (a Retry-After is honoured), as are network errors;
 * any other answer that is not 2xx fails for good.
 */
import type { IncomingMessage } from "node:http";
import { NonRetryableError, RetryAfter } from "../errors.ts";
import { guardedRequest, readBody, type GuardedRequest } from "../guarded-request.ts";
import { payloadObject, refuseUnknownFields, type Handler } from "../handler.ts";
import type { NetworkGuard } from "../network-guard.ts";

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
const TIMEOUT_DEFAULT_MS = 30_000;
const TIMEOUT_MAX_MS = 600_000;
const BODY_KEPT_BYTES = 64 * 1024;
const HEADERS_KEPT = [
  "content-type",
  "content-length",
  "date",
  "etag",
  "last-modified",
  "location",
];
/** How much of an error's body the message shows. */
const EXCERPT_CHARACTERS = 200;
const RETRY_AFTER_MAX_MS = 86_400_000;
/** Set by the request itself; a payload that sets them could smuggle a second request. */
const HEADERS_OWN = new Set([
  "host",
  "connection",
  "content-length",
  "transfer-encoding",
  "accept-encoding",
  "upgrade",
  "te",
  "trailer",
  "expect",
  "keep-alive",
  "proxy-connection",
]);

/** Result of `http`. */
export interface HttpResult {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** The first 64 KiB as text. */
  readonly body: string;
  readonly truncated: boolean;
}

export function createHttp(guard: NetworkGuard): Handler {
  return async (payload, { signal }) => {
    const { timeoutMs, ...call } = parsePayload(payload);
    const timeout = AbortSignal.timeout(timeoutMs);
    const request: GuardedRequest = { ...call, signal: AbortSignal.any([signal, timeout]) };
    try {
      const { status, headers, body } = await guardedRequest(guard, request);
      const { text, truncated } = await readText(body, request.signal);
      if (status < 200 || status > 299) throw refuseStatus(status, headers, call.url, text);
      const kept = Object.entries(headers).filter(([name]) => HEADERS_KEPT.includes(name));
      return { status, headers: Object.fromEntries(kept), body: text, truncated };
    } catch (error) {
      if (timeout.aborted && !signal.aborted)
        throw new Error(`http: ${call.url.host} did not answer within ${timeoutMs} ms`, {
          cause: error,
        });
      throw error;
    }
  };
}

export function isTransientStatus(status: number): boolean {
  return status >= 500 || status === 429;
}

/** The error for an answer that is not 2xx. */
export function refuseStatus(
  status: number,
  headers: Readonly<Record<string, string>>,
  url: URL,
  text: string,
): Error {
  const excerpt = text.trim().slice(0, EXCERPT_CHARACTERS);
  const message = `${url.host} answered ${status}${excerpt === "" ? "" : `: ${excerpt}`}`;
  if (!isTransientStatus(status)) return new NonRetryableError(message);
  const delayMs = retryAfterMs(headers["retry-after"]);
  return delayMs === null ? new Error(message) : new RetryAfter(delayMs, message);
}

/** Seconds or an HTTP date (RFC 9110, 10.2.3), at most a day; null when absent or malformed. */
function retryAfterMs(value: string | undefined): number | null {
  if (value === undefined) return null;
  const delayMs = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - Date.now();
  return Number.isNaN(delayMs) ? null : Math.min(RETRY_AFTER_MAX_MS, Math.max(0, delayMs));
}

async function readText(
  body: IncomingMessage,
  signal: AbortSignal,
): Promise<{ text: string; truncated: boolean }> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of readBody(body, signal)) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > BODY_KEPT_BYTES) break;
  }
  const text = Buffer.concat(chunks).subarray(0, BODY_KEPT_BYTES).toString("utf8");
  return { text, truncated: bytes > BODY_KEPT_BYTES };
}

function parsePayload(payload: unknown): Omit<GuardedRequest, "signal"> & { timeoutMs: number } {
  const fields = payloadObject(payload, "http");
  refuseUnknownFields(fields, ["url", "method", "headers", "body", "timeout_ms"], "http");
  const { url, method: given, body, timeout_ms: timeoutMs = TIMEOUT_DEFAULT_MS } = fields;
  if (typeof url !== "string" || !URL.canParse(url))
    throw new NonRetryableError("http: payload.url must be a URL");
  const method =
    typeof given === "string" ? given.toUpperCase() : given === undefined ? "POST" : "";
  if (!METHODS.includes(method))
    throw new NonRetryableError(`http: payload.method must be one of ${METHODS.join(", ")}`);
  if (body !== undefined && (method === "GET" || method === "HEAD"))
    throw new NonRetryableError(`http: payload.body is not sent with ${method}`);
  if (typeof timeoutMs !== "number" || !(timeoutMs >= 1 && timeoutMs <= TIMEOUT_MAX_MS))
    throw new NonRetryableError(`http: payload.timeout_ms must be 1 to ${TIMEOUT_MAX_MS}`);
  const headers = parseHeaders(fields.headers);
  if (body !== undefined && headers["content-type"] === undefined)
    headers["content-type"] =
      typeof body === "string" ? "text/plain; charset=utf-8" : "application/json";
  const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
  return { url: new URL(url), method, headers, body: text ?? null, timeoutMs };
}

function parseHeaders(given: unknown): Record<string, string> {
  const headers: Record<string, string> = { "user-agent": "flotilla" };
  if (given === undefined) return headers;
  if (typeof given !== "object" || given === null || Array.isArray(given))
    throw new NonRetryableError("http: payload.headers must be an object of strings");
  for (const [name, value] of Object.entries(given) as [string, unknown][]) {
    const lower = name.toLowerCase();
    if (!/^[a-z0-9!#$%&'*+.^_`|~-]+$/.test(lower) || HEADERS_OWN.has(lower))
      throw new NonRetryableError(`http: payload.headers.${name} is not a header one may set`);
    if (typeof value !== "string" || !/^[\t\x20-\x7e\x80-\xff]*$/.test(value))
      throw new NonRetryableError(`http: payload.headers.${name} must be one line of Latin-1 text`);
    headers[lower] = value;
  }
  return headers;
}
