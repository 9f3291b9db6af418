/**
 * Who may see and press what, and the headers that keep pages from running anything that is not ours.
 * The rules are those of the REST API; a page only differs in answering with a page.
 */
import type { Allowed } from "../../views/elements.tsx";

export type Role = "viewer" | "producer" | "worker" | "operator" | "admin";

export interface Principal {
  readonly name: string;
  readonly role: Role;
}

export interface DashboardAuth {
  /** True when the member has tokens: then nothing but the sign-in page is shown without one. */
  readonly required: boolean;
  /** Who the request's cookie or bearer token names; null when it names nobody. */
  authenticate(request: Request): Principal | null;
  /** Value of `Set-Cookie` for a valid token, null for any other. */
  sessionCookie(token: string): string | null;
  /** Value of `Set-Cookie` that ends the session. */
  endSessionCookie(): string;
}

const RANKS: Readonly<Record<Role, number>> = {
  viewer: 0,
  producer: 1,
  worker: 2,
  operator: 3,
  admin: 4,
};

/** The same thresholds as the API's: submitting and cancelling is a producer's, retrying an operator's. */
export function allowedFor(role: Role): Allowed {
  const rank = RANKS[role];
  return {
    submit: rank >= RANKS.producer,
    cancel: rank >= RANKS.producer,
    retry: rank >= RANKS.operator,
  };
}

/** Whoever asks an open member. */
export const ANONYMOUS: Principal = { name: "anonymous", role: "admin" };

const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "font-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
  "object-src 'none'",
].join("; ");

/**
 * On everything but assets. The referrer policy is `same-origin` and not `no-referrer`: with the latter
 * browsers send `Origin: null` with our own forms, which could not be told from a foreign page's.
 */
export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  "Content-Security-Policy": CONTENT_SECURITY_POLICY,
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "same-origin",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cache-Control": "no-store",
};

function hostOf(request: Request): string {
  return (request.headers.get("host") ?? new URL(request.url).host).toLowerCase();
}

/**
 * Whether the request comes from one of our own pages, or from no page at all. A link from elsewhere may
 * open a page (a browser sends no Origin with it); nothing from elsewhere may press a button.
 */
export function isSameOrigin(request: Request): boolean {
  const origin = request.headers.get("origin");
  if (origin !== null) {
    return URL.canParse(origin) && new URL(origin).host.toLowerCase() === hostOf(request);
  }
  if (request.method === "GET" || request.method === "HEAD") return true;
  const site = request.headers.get("sec-fetch-site");
  return site === null || site === "same-origin" || site === "none";
}

/**
 * Whether an open member may answer under this Host: only loopback names and the advertised one, else a
 * foreign site could point its own name at this member and read it as its own (DNS rebinding).
 */
export function isKnownHost(request: Request, advertise: string): boolean {
  const host = hostOf(request);
  if (!URL.canParse(`http://${host}`)) return false;
  const { hostname } = new URL(`http://${host}`);
  if (hostname === "localhost" || hostname.endsWith(".localhost") || hostname === "[::1]") {
    return true;
  }
  if (/^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(hostname)) return true;
  return URL.canParse(advertise) && new URL(advertise).hostname === hostname;
}

/** A path of this site to go back to; anything else becomes the overview. */
export function localPath(path: string | null): string {
  if (path === null || !/^\/(?![/\\])[\x21-\x7e]*$/.test(path) || path.length > 2_000) return "/";
  return path;
}
