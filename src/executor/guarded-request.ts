/**
 * HTTP requests that go only where the network guard lets them. They use node:http with a `lookup` that
 * answers the addresses which were checked: the certificate is still verified against the host name, and
 * unlike fetch it neither follows redirects, nor honours proxy variables, nor repeats a request by itself.
 */
import type { IncomingMessage, RequestOptions } from "node:http";
import type { LookupFunction } from "node:net";
import { NonRetryableError } from "./errors.ts";
import type { CheckedAddress, NetworkGuard } from "./network-guard.ts";

const REDIRECTS_MAX = 5;
/** Addresses of one host that are tried before the request fails. */
const ADDRESSES_TRIED = 3;
/** The server was not reached at all, so another address may be tried even for a POST. */
const NOT_CONNECTED = new Set(["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ConnectionRefused"]);
/** Never sent to another origin than the one they were given for. */
const PRIVATE_HEADERS = new Set(["authorization", "cookie", "proxy-authorization"]);

export interface GuardedRequest {
  readonly url: URL;
  readonly method: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | null;
  readonly signal: AbortSignal;
}

export interface GuardedResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Where the redirects ended. */
  readonly url: URL;
  /** The body as it came (never decompressed). Must be read to its end or destroyed. */
  readonly body: IncomingMessage;
}

/**
 * `ca`: PEM of an authority to trust instead of the system's.
 * @throws NonRetryableError where the guard refuses; network errors and `signal.reason` as they are.
 */
export async function guardedRequest(
  guard: NetworkGuard,
  first: GuardedRequest,
  ca?: string,
): Promise<GuardedResponse> {
  let request = first;
  for (let redirects = 0; ; redirects += 1) {
    const response = await sendOnce(guard, request, ca);
    const status = response.statusCode ?? 0;
    const location = response.headers.location;
    if (![301, 302, 303, 307, 308].includes(status) || location === undefined)
      return { status, headers: flat(response), url: request.url, body: response };
    response.destroy();
    if (redirects === REDIRECTS_MAX)
      throw new NonRetryableError(`more than ${REDIRECTS_MAX} redirects, the last to ${location}`);
    request = redirected(request, status, location);
  }
}

/**
 * The chunks of a body; the connection is closed when the reader leaves, however it leaves.
 * @throws `signal.reason` when it fires in the middle.
 */
export async function* readBody(
  body: IncomingMessage,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    for await (const chunk of body as AsyncIterable<Uint8Array>) yield chunk;
    signal.throwIfAborted();
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  } finally {
    body.destroy();
  }
}

/** What a browser would ask next (Fetch standard, HTTP-redirect fetch). */
function redirected(request: GuardedRequest, status: number, location: string): GuardedRequest {
  if (!URL.canParse(location, request.url))
    throw new NonRetryableError("redirected to something that is no URL");
  const url = new URL(location, request.url);
  const becomesGet =
    (status === 303 && request.method !== "GET" && request.method !== "HEAD") ||
    ((status === 301 || status === 302) && request.method === "POST");
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(request.headers)) {
    if (url.origin !== request.url.origin && PRIVATE_HEADERS.has(name)) continue;
    if (becomesGet && name.startsWith("content-")) continue;
    headers[name] = value;
  }
  return {
    url,
    headers,
    method: becomesGet ? "GET" : request.method,
    body: becomesGet ? null : request.body,
    signal: request.signal,
  };
}

async function sendOnce(
  guard: NetworkGuard,
  request: GuardedRequest,
  ca: string | undefined,
): Promise<IncomingMessage> {
  const checked = await orAborted(guard.check(request.url), request.signal);
  const addresses = checked.slice(0, ADDRESSES_TRIED);
  for (const [index, address] of addresses.entries()) {
    try {
      return await connect(request, address, ca);
    } catch (error) {
      if (request.signal.aborted) throw request.signal.reason;
      if (index === addresses.length - 1 || !NOT_CONNECTED.has(codeOf(error))) throw error;
    }
  }
  throw new Error("no address was tried");
}

async function connect(
  { url, method, headers, body, signal }: GuardedRequest,
  checked: CheckedAddress,
  ca: string | undefined,
): Promise<IncomingMessage> {
  const hostname = url.hostname.replace(/^\[|\]$/g, "");
  const lookup: LookupFunction = (_host, options, callback) => {
    if (options.all === true) callback(null, [checked]);
    else callback(null, checked.address, checked.family);
  };
  const options: RequestOptions & { ca?: string } = {
    hostname,
    port: url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port),
    path: `${url.pathname}${url.search}`,
    method,
    headers: {
      ...headers,
      host: url.host,
      "accept-encoding": "identity",
      ...(body === null ? {} : { "content-length": String(Buffer.byteLength(body)) }),
    },
    // A connection of its own: a pooled one may lead to an address that was not checked.
    agent: false,
    lookup,
    signal,
    ...(ca === undefined ? {} : { ca }),
  };
  // Loaded when first needed: it is most of what a Worker would otherwise load at its start.
  const { request: send } = await (url.protocol === "https:"
    ? import("node:https")
    : import("node:http"));
  return new Promise((resolve, reject) => {
    const outgoing = send(options, resolve);
    outgoing.on("error", reject);
    outgoing.end(body ?? undefined);
  });
}

/** A look-up cannot be aborted; the wait for it can. */
async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

function flat(response: IncomingMessage): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(response.headers)) {
    if (value !== undefined) headers[name] = Array.isArray(value) ? value.join(", ") : value;
  }
  return headers;
}

function codeOf(error: unknown): string {
  if (typeof error !== "object" || error === null || !("code" in error)) return "";
  return String(error.code);
}
