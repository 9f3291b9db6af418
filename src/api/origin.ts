/**
 * Keeps web pages off the API: DNS rebinding (a foreign name that resolves to this host), cross-site
 * requests with or without a cookie. None of it matters to a client that is not a browser.
 */
import type { Principal } from "./auth.ts";
import { Problem } from "./problem.ts";

export interface OriginPolicy {
  /** True without tokens: then the Host must be loopback or the advertised one. */
  readonly open: boolean;
  /** Host name of `--advertise`, lower case, no port. */
  readonly advertised: string;
}

/** A member is asked under one or two names for as long as it lives. */
let known: { readonly authority: string; readonly name: string | null } | null = null;

/** Host name of a `Host` header or URL authority, lower case, brackets kept; null when it is none. */
function hostName(authority: string): string | null {
  if (known?.authority !== authority) known = { authority, name: parseHostName(authority) };
  return known.name;
}

function parseHostName(authority: string): string | null {
  try {
    const { hostname, username, password, pathname } = new URL(`http://${authority}`);
    return username === "" && password === "" && pathname === "/" ? hostname : null;
  } catch {
    return null;
  }
}

/** As `OriginPolicy.advertised` wants it. */
export function advertisedHost(url: string): string {
  return new URL(url).hostname;
}

export function isLoopbackHost(name: string): boolean {
  return (
    name === "localhost" ||
    name.endsWith(".localhost") ||
    name === "[::1]" ||
    /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(name)
  );
}

/** Before anything else is looked at. Null: may go on. */
export function refuseForeign(request: Request, policy: OriginPolicy): Problem | null {
  const authority = hostOf(request);
  if (authority === null) {
    return new Problem(400, "missing-host", "The request names no Host.", {
      errors: [{ pointer: "/header/Host", detail: "is required" }],
    });
  }
  if (!policy.open) return null;
  const name = hostName(authority);
  if (name === null || !(isLoopbackHost(name) || name === policy.advertised)) {
    return new Problem(
      421,
      "foreign-host",
      "Without tokens this member answers only under a loopback address or its --advertise address.",
      { errors: [{ pointer: "/header/Host", detail: "is not an address of this member" }] },
    );
  }
  return isForeign(request, authority) ? foreignOrigin() : null;
}

/** After authentication. Null: may go on. */
export function refuseForgery(request: Request, principal: Principal): Problem | null {
  if (principal.via !== "cookie" || isRead(request)) return null;
  return isForeign(request, hostOf(request) ?? "") ? foreignOrigin() : null;
}

/** Null: HTTP/1.0 without the header, whose URL is a path. */
function hostOf(request: Request): string | null {
  return request.headers.get("host") ?? URL.parse(request.url)?.host ?? null;
}

function isForeign(request: Request, authority: string): boolean {
  const origin = request.headers.get("origin");
  if (origin !== null) return !sameAuthority(origin, authority);
  // Browsers send Origin with every write; this is for those that do not.
  const site = request.headers.get("sec-fetch-site");
  return !isRead(request) && (site === "cross-site" || site === "same-site");
}

/** Schemes are not compared: a proxy may end TLS. "null" (sandboxed pages, files) is never the same. */
function sameAuthority(origin: string, authority: string): boolean {
  try {
    const url = new URL(origin);
    if (url.protocol !== "http:" && url.protocol !== "https:") return false;
    return url.host === new URL(`${url.protocol}//${authority}`).host;
  } catch {
    return false;
  }
}

function isRead(request: Request): boolean {
  return request.method === "GET" || request.method === "HEAD" || request.method === "OPTIONS";
}

function foreignOrigin(): Problem {
  return new Problem(403, "foreign-origin", "Requests from pages of another origin are refused.", {
    errors: [{ pointer: "/header/Origin", detail: "is not the origin of this member" }],
  });
}
