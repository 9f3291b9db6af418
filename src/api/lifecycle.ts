/**
 * What happens around every request, whatever its route: an id, the Host and Origin checks, security headers,
 * authentication by the access table, errors as problems, metrics. One Elysia plugin; the resources know
 * nothing of it but `caller`.
 */
import { Elysia } from "elysia";
import { allowedMethods, allows, type Principal, roleFor, type Tokens } from "./auth.ts";
import type { ApiDeps } from "./deps.ts";
import type { Metrics } from "./metrics.ts";
import { advertisedHost, refuseForeign, refuseForgery } from "./origin.ts";
import { fromQueue, Problem, problemResponse } from "./problem.ts";
import { Answer } from "./render.ts";

/** On the request itself: a map from requests to these would cost more than all that is done with them. */
const STATE = Symbol("state");
type Stated = Request & { [STATE]?: RequestState };

interface RequestState {
  readonly id: string;
  /** Monotonic milliseconds. */
  readonly startedAt: number;
  principal: Principal | null;
  observed: boolean;
}

const REQUEST_ID = /^[\w.:/+=@-]{1,128}$/;

/** Nothing here is a page; pages bring policies of their own. */
export const SECURITY_HEADERS = {
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
} as const;

const COMMON_HEADERS = Object.entries(SECURITY_HEADERS);
const JSON_HEADERS = new Headers({ ...SECURITY_HEADERS, "content-type": "application/json" });

/** Who sent `request`, for handlers behind the guard. @throws Error on a route that the guard did not pass */
export function caller(request: Request): Principal {
  const principal = (request as Stated)[STATE]?.principal;
  if (principal === null || principal === undefined) {
    throw new Error("caller() was asked on a route that needs no role");
  }
  return principal;
}

/** The one that was sent, if it may be one. */
export function newRequestId(request: Request, random: ApiDeps["random"]): string {
  const given = request.headers.get("x-request-id");
  return given !== null && REQUEST_ID.test(given) ? given : random.hex(16);
}

/** `WWW-Authenticate` and all. */
function unauthorized(): Problem {
  return new Problem(401, "unauthorized", "A valid token is needed: Authorization: Bearer TOKEN.", {
    headers: { "www-authenticate": 'Bearer realm="flotilla"' },
  });
}

export function lifecycle(deps: ApiDeps, tokens: Tokens, metrics: Metrics) {
  const policy = { open: tokens.open, advertised: advertisedHost(deps.advertise) };

  const state = (request: Request): RequestState => {
    let known = (request as Stated)[STATE];
    if (known === undefined) {
      known = {
        id: newRequestId(request, deps.random),
        startedAt: deps.clock.monotonic(),
        principal: null,
        observed: false,
      };
      (request as Stated)[STATE] = known;
    }
    return known;
  };

  const observe = (request: Request, route: string, status: number): void => {
    const known = state(request);
    if (known.observed) return;
    known.observed = true;
    const elapsedMs = deps.clock.monotonic() - known.startedAt;
    metrics.observeRequest(request.method, route, status, elapsedMs);
  };

  const problemOf = (error: unknown, code: string | number, request: Request): Problem => {
    if (error instanceof Problem) return error;
    const refusal = fromQueue(error);
    if (refusal !== null) return refusal;
    if (code === "NOT_FOUND") {
      const allowed = allowedMethods(new URL(request.url).pathname);
      if (allowed.length > 0) {
        const allow = allowed.join(", ");
        return new Problem(405, "method-not-allowed", `This path takes ${allow}.`, {
          headers: { allow },
        });
      }
      return new Problem(404, "no-such-route", "There is nothing at this path and method.");
    }
    if (request.signal.aborted) {
      return new Problem(503, "client-gone", "The client closed the connection.");
    }
    deps.log.error("request failed", {
      request_id: state(request).id,
      method: request.method,
      path: new URL(request.url).pathname,
      error: error instanceof Error ? (error.stack ?? error.message) : String(error),
    });
    return new Problem(500, "internal", "Something went wrong here; the log has it by request_id.");
  };

  return new Elysia({ name: "flotilla/lifecycle" })
    .onRequest(({ request, set }) => {
      const { id } = state(request);
      // For whatever is no Answer: pages, and responses that a handler made itself.
      set.headers = { ...SECURITY_HEADERS, "x-request-id": id };
      const refused = refuseForeign(request, policy);
      if (refused === null) return;
      observe(request, "refused", refused.httpStatus);
      return problemResponse(refused, id);
    })
    .onBeforeHandle({ as: "scoped" }, ({ request, route }) => {
      const method = request.method === "HEAD" ? "GET" : request.method;
      const needed = roleFor(method, route);
      if (needed === undefined) {
        // Pages guard themselves; an API route that nobody gave a role must not be open by accident.
        if (!/^\/(api|metrics|health|swagger)(\/|$)/.test(route)) return;
        throw new Error(`no role is set for ${method} ${route}`);
      }
      if (needed === "open") return;
      const principal = tokens.authenticate(request);
      if (principal === null) throw unauthorized();
      const forged = refuseForgery(request, principal);
      if (forged !== null) throw forged;
      if (!allows(principal, needed)) {
        throw new Problem(
          403,
          "forbidden",
          `This needs the role ${needed}; the token's is ${principal.role}.`,
        );
      }
      state(request).principal = principal;
    })
    .mapResponse({ as: "scoped" }, ({ request, route, responseValue, set }) => {
      if (!(responseValue instanceof Answer)) {
        const status =
          responseValue instanceof Response ? responseValue.status : Number(set.status ?? 200);
        observe(request, route, status);
        return;
      }
      deps.answering?.();
      const { status, text, headers } = responseValue;
      observe(request, route, status);
      // Elysia would make a second response of it, to merge these into its headers.
      set.headers = {};
      // It has a copy of the common headers: one that was made before would be copied once more.
      const response = new Response(text, { status, headers: JSON_HEADERS });
      const all = response.headers;
      all.set("x-request-id", state(request).id);
      for (const name in headers) all.set(name, headers[name] ?? "");
      return response;
    })
    .onError({ as: "scoped" }, ({ error, code, request, route, set }) => {
      const problem = problemOf(error, code, request);
      const known = state(request);
      // Elysia has none for what it found no route for, whatever its types say.
      const at = (route as string | undefined) ?? "unmatched";
      if (problem.httpStatus === 405 && request.method === "OPTIONS") {
        // What may be asked here; no word of other origins, which may ask nothing.
        observe(request, at, 204);
        return new Response(null, { status: 204, headers: problem.headers });
      }
      observe(request, at, problem.httpStatus);
      const response = problemResponse(problem, known.id);
      for (const [name, value] of COMMON_HEADERS) response.headers.set(name, value);
      response.headers.set("x-request-id", known.id);
      set.headers = {};
      set.status = 200;
      return response;
    });
}
