/**
 * Who asks, and what they may: tokens with roles, and the table of what each route needs. Checked at the
 * member that was asked; nothing here is replicated.
 *
 * The dashboard's cookie holds the token itself. A session id kept in memory would be known to one member
 * only, and a cookie signed with a key derived from the tokens file would turn the hashes in that file into
 * credentials; the token in an HttpOnly cookie works on every member, survives restarts, and ends when the
 * token is taken out of the file.
 */
import { timingSafeEqual } from "node:crypto";

/** Each role may do what the ones before it may. */
export const ROLES = ["viewer", "producer", "worker", "operator", "admin"] as const;
export type Role = (typeof ROLES)[number];

/** One line of the tokens file. */
export interface TokenRecord {
  readonly name: string;
  readonly role: Role;
  /** Of the token, in hex. */
  readonly sha256: string;
}

export interface Principal {
  readonly name: string;
  readonly role: Role;
  /** Cookies travel by themselves, so writes with one must prove their origin too. */
  readonly via: "bearer" | "cookie" | "open";
}

const SESSION_COOKIE = "flotilla_session";
/** Longer ones are not hashed at all. */
const TOKEN_MAX = 4_096;
const ANONYMOUS: Principal = { name: "anonymous", role: "admin", via: "open" };

/** `METHOD pattern` → least role. "open" asks for nothing. A route that is missing here answers 500. */
export const ACCESS: Readonly<Record<string, Role | "open">> = {
  "POST /api/tasks": "producer",
  "POST /api/tasks/bulk": "producer",
  "GET /api/tasks": "viewer",
  "DELETE /api/tasks/clear": "admin",
  "GET /api/tasks/:id": "viewer",
  "DELETE /api/tasks/:id": "producer",
  "POST /api/tasks/:id/retry": "operator",
  "GET /api/tasks/:id/attempts": "viewer",
  "GET /api/tasks/:id/logs": "viewer",
  "GET /api/stats": "viewer",
  "POST /api/leases/claim": "worker",
  "POST /api/leases/heartbeat": "worker",
  "POST /api/leases/complete": "worker",
  "POST /api/leases/fail": "worker",
  "POST /api/leases/release": "worker",
  "POST /api/leases/:task_id/complete": "worker",
  "POST /api/leases/:task_id/fail": "worker",
  "POST /api/leases/:task_id/snooze": "worker",
  "POST /api/leases/:task_id/release": "worker",
  "POST /api/leases/:task_id/logs": "worker",
  "GET /api/workers": "viewer",
  "POST /api/workers/:id/quiet": "operator",
  "GET /api/cluster": "viewer",
  "GET /api/cluster/config": "viewer",
  "PUT /api/cluster/config": "admin",
  "POST /api/cluster/members": "admin",
  "DELETE /api/cluster/members/:id": "admin",
  "POST /api/cluster/transfer": "admin",
  "GET /api/cluster/backup": "admin",
  "GET /metrics": "viewer",
  "GET /health": "open",
  "GET /health/live": "open",
  "GET /health/ready": "open",
  "GET /swagger": "open",
  "GET /swagger/json": "open",
  "GET /swagger/assets/:file": "open",
};

const ACCESS_BY_ROUTE = new Map<string, Map<string, Role | "open">>();
for (const [key, role] of Object.entries(ACCESS)) {
  const [method = "", route = ""] = key.split(" ");
  const ofRoute = ACCESS_BY_ROUTE.get(route) ?? new Map<string, Role | "open">();
  ACCESS_BY_ROUTE.set(route, ofRoute.set(method, role));
}

/** What {@link ACCESS} says, without a key put together for every request; `route` is the router's pattern. */
export function roleFor(method: string, route: string): Role | "open" | undefined {
  return ACCESS_BY_ROUTE.get(route)?.get(method);
}

/** What may be asked of `path`, HEAD and OPTIONS included; none when the API has no such path. */
export function allowedMethods(path: string): readonly string[] {
  // The router takes one slash at the end for none.
  const steps = path.replace(/(?<=.)\/$/, "").split("/");
  const methods = new Set<string>();
  for (const key of Object.keys(ACCESS)) {
    const [method = "", pattern = ""] = key.split(" ");
    const wanted = pattern.split("/");
    const fits =
      wanted.length === steps.length &&
      wanted.every((step, index) => {
        const given = steps[index] ?? "";
        return step.startsWith(":") ? given !== "" : step === given;
      });
    if (fits) methods.add(method);
  }
  if (methods.has("GET")) methods.add("HEAD");
  return methods.size === 0 ? [] : [...methods, "OPTIONS"].toSorted();
}

export function allows(principal: Principal, needed: Role): boolean {
  return ROLES.indexOf(principal.role) >= ROLES.indexOf(needed);
}

/** The tokens of this member, ready to compare. */
export class Tokens {
  readonly #records: readonly { readonly record: TokenRecord; readonly digest: Buffer }[];

  /** Empty: open, everybody is an anonymous admin. */
  constructor(records: readonly TokenRecord[]) {
    this.#records = records.map((record) => ({
      record,
      digest: Buffer.from(record.sha256, "hex"),
    }));
  }

  get open(): boolean {
    return this.#records.length === 0;
  }

  /** Who sent `request`; null when it bears no valid token. A bad Bearer token is not saved by a good cookie. */
  authenticate(request: Request): Principal | null {
    if (this.open) return ANONYMOUS;
    const authorization = request.headers.get("authorization");
    if (authorization !== null) {
      const token = /^Bearer +([\x21-\x7e]+) *$/i.exec(authorization)?.[1];
      return token === undefined ? null : this.#find(token, "bearer");
    }
    const token = sessionToken(request.headers.get("cookie"));
    return token === null ? null : this.#find(token, "cookie");
  }

  /** `Set-Cookie` of a session for `token`, or null when the token is not valid. `secure`: served over TLS. */
  sessionCookie(token: string, secure: boolean): string | null {
    if (this.#find(token, "cookie") === null) return null;
    const value = Buffer.from(token).toString("base64url");
    return `${SESSION_COOKIE}=${value}; Path=/; HttpOnly; SameSite=Strict${secure ? "; Secure" : ""}`;
  }

  /** Every record is compared, and each in constant time: the time taken tells nothing. */
  #find(token: string, via: "bearer" | "cookie"): Principal | null {
    if (token.length > TOKEN_MAX) return null;
    const digest = new Bun.CryptoHasher("sha256").update(token).digest();
    let found: TokenRecord | null = null;
    for (const { record, digest: known } of this.#records) {
      if (known.byteLength === digest.byteLength && timingSafeEqual(known, digest)) found = record;
    }
    return found === null ? null : { name: found.name, role: found.role, via };
  }
}

/** `Set-Cookie` that ends the session. */
export function endedSessionCookie(secure: boolean): string {
  return `${SESSION_COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0${secure ? "; Secure" : ""}`;
}

function sessionToken(cookies: string | null): string | null {
  for (const cookie of (cookies ?? "").split(";")) {
    const [name, value] = cookie.trim().split("=", 2);
    if (name === SESSION_COOKIE && value !== undefined && value.length <= 2 * TOKEN_MAX) {
      return Buffer.from(value, "base64url").toString();
    }
  }
  return null;
}
