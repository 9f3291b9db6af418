import { describe, expect, test } from "bun:test";
import { ACCESS, endedSessionCookie, ROLES, Tokens, type Role } from "../../src/api/auth.ts";
import { harness, NOW, problem, uuidAt } from "./harness.ts";

const hash = (token: string): string => new Bun.CryptoHasher("sha256").update(token).digest("hex");
const RECORDS = ROLES.map((role) => ({ name: `the-${role}`, role, sha256: hash(`token-${role}`) }));
const bearer = (role: Role) => ({ authorization: `Bearer token-${role}` });

interface Document {
  readonly paths: Readonly<
    Record<string, Readonly<Record<string, { readonly security: unknown[] }>>>
  >;
}

/** Every operation of the document, as a request to a task or worker that does not exist. */
async function operations(): Promise<
  { method: string; path: string; pattern: string; open: boolean }[]
> {
  const response = await harness().call("GET", "/swagger/json");
  const { paths } = (await response.json()) as Document;
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { security }]) => ({
      method: method.toUpperCase(),
      path: path.replaceAll(/\{[^}]+\}/g, uuidAt(NOW)),
      pattern: path.replaceAll(/\{([^}]+)\}/g, ":$1"),
      open: security.length === 0,
    })),
  );
}

describe("with tokens", () => {
  test("every operation of the document answers 401 without one, but those that say they are open", async () => {
    const { call, queue } = harness(RECORDS);
    const all = await operations();
    expect(all.length).toBeGreaterThan(20);
    for (const { method, path, open } of all) {
      const response = await call(method, path);
      if (open) expect([path, response.status]).toEqual([path, 200]);
      else {
        expect([method, path, response.status]).toEqual([method, path, 401]);
        expect(response.headers.get("www-authenticate")).toStartWith("Bearer");
        expect((await problem(response)).code).toBe("unauthorized");
      }
    }
    expect(queue.calls).toEqual([]);
  });

  test("every operation is in the access table, says the same there, and every entry exists", async () => {
    const all = await operations();
    for (const { method, pattern, open } of all) {
      const needed = ACCESS[`${method} ${pattern}`];
      expect([method, pattern, needed === undefined, needed === "open"]).toEqual([
        method,
        pattern,
        false,
        open,
      ]);
    }
    const documented = new Set(all.map(({ method, pattern }) => `${method} ${pattern}`));
    const hidden = Object.keys(ACCESS).filter((route) => !documented.has(route));
    expect(hidden).toEqual(["GET /swagger", "GET /swagger/json", "GET /swagger/assets/:file"]);
  });

  test("each role may do what the table grants it, and no more", async () => {
    const { call, queue } = harness(RECORDS);
    queue.quiet = async () => true;
    for (const { method, path, pattern } of await operations()) {
      const needed = ACCESS[`${method} ${pattern}`] ?? "admin";
      if (needed === "open") continue;
      for (const role of ROLES) {
        const { status } = await call(method, path, { headers: bearer(role) });
        const granted = ROLES.indexOf(role) >= ROLES.indexOf(needed);
        expect([method, pattern, role, status === 403]).toEqual([method, pattern, role, !granted]);
        expect(status).not.toBe(401);
      }
    }
  });

  test("wrong, empty, cut and oddly spelt credentials are 401", async () => {
    const { call } = harness(RECORDS);
    for (const authorization of [
      "Bearer token-admi",
      "Bearer token-adminn",
      "Bearer ",
      "Bearer",
      "token-admin",
      "Basic dG9rZW4tYWRtaW4=",
      `Bearer ${hash("token-admin")}`,
      "Bearer token-admin token-viewer",
      `Bearer ${"x".repeat(5_000)}`,
    ]) {
      const { status } = await call("GET", "/api/stats", { headers: { authorization } });
      expect([authorization.slice(0, 40), status]).toEqual([authorization.slice(0, 40), 401]);
    }
    const spelt = await call("GET", "/api/stats", {
      headers: { authorization: "bearer  token-admin" },
    });
    expect(spelt.status).toBe(200);
  });

  test("401 comes before the body is looked at", async () => {
    const response = await harness(RECORDS).call("POST", "/api/tasks", { body: "{broken" });
    expect(response.status).toBe(401);
  });

  test("a HEAD request needs what GET needs", async () => {
    const { call } = harness(RECORDS);
    expect((await call("HEAD", "/api/stats")).status).toBe(401);
    expect((await call("HEAD", "/api/stats", { headers: bearer("viewer") })).status).toBe(200);
  });

  test("the principal of a claim is the token's name, and idempotency keys are the principal's own", async () => {
    const { call, queue } = harness(RECORDS);
    await call("POST", "/api/leases/claim", {
      body: { worker_id: "w" },
      headers: bearer("worker"),
    });
    expect(queue.lastClaim?.principal).toBe("the-worker");
    for (const role of ["producer", "worker"] as const) {
      const headers = { ...bearer(role), "idempotency-key": "same" };
      const response = await call("POST", "/api/tasks", { body: { name: role }, headers });
      expect([response.status, response.headers.get("idempotency-replayed")]).toEqual([201, null]);
    }
  });

  test("a Host of any name is served", async () => {
    const headers = { ...bearer("viewer"), host: "anything.example" };
    expect((await harness(RECORDS).call("GET", "/api/stats", { headers })).status).toBe(200);
  });
});

describe("the session cookie", () => {
  const tokens = new Tokens(RECORDS);
  const cookieOf = (token: string): string =>
    tokens.sessionCookie(token, false)?.split(";")[0] ?? "";

  test("is given for a valid token only, and kept from scripts and other sites", () => {
    const cookie = tokens.sessionCookie("token-viewer", true) ?? "";
    for (const attribute of ["HttpOnly", "SameSite=Strict", "Secure", "Path=/"]) {
      expect(cookie).toContain(attribute);
    }
    expect(tokens.sessionCookie("token-viewer", false)).not.toContain("Secure");
    expect(tokens.sessionCookie("nope", false)).toBeNull();
    expect(endedSessionCookie(true)).toContain("Max-Age=0");
  });

  test("is accepted beside other cookies, by any member that has the token", async () => {
    const headers = { cookie: `a=b; ${cookieOf("token-viewer")}; c=d` };
    expect((await harness(RECORDS).call("GET", "/api/stats", { headers })).status).toBe(200);
    const other = harness(RECORDS.filter(({ role }) => role !== "viewer"));
    expect((await other.call("GET", "/api/stats", { headers })).status).toBe(401);
  });

  test("does not save a wrong Bearer token", async () => {
    const headers = { cookie: cookieOf("token-admin"), authorization: "Bearer wrong" };
    expect((await harness(RECORDS).call("GET", "/api/stats", { headers })).status).toBe(401);
  });

  test("made up is no session", async () => {
    for (const cookie of ["flotilla_session=", "flotilla_session=xxxx", "flotilla_session=%%%"]) {
      const { status } = await harness(RECORDS).call("GET", "/api/stats", { headers: { cookie } });
      expect(status).toBe(401);
    }
  });

  test("writes only from pages of this member", async () => {
    const { call } = harness(RECORDS);
    const submit = async (extra: Record<string, string>): Promise<number> => {
      const headers = { cookie: cookieOf("token-admin"), host: "flotilla.example:3000", ...extra };
      return (await call("POST", "/api/tasks", { body: { name: "x" }, headers })).status;
    };
    expect(await submit({ origin: "http://flotilla.example:3000" })).toBe(201);
    expect(await submit({ "sec-fetch-site": "same-origin" })).toBe(201);
    expect(await submit({ origin: "http://flotilla.example:4000" })).toBe(403);
    expect(await submit({ origin: "http://evil.example" })).toBe(403);
    expect(await submit({ origin: "null" })).toBe(403);
    expect(await submit({ "sec-fetch-site": "cross-site" })).toBe(403);
    expect(await submit({ "sec-fetch-site": "same-site" })).toBe(403);
  });

  test("asks nothing of requests with a Bearer token", async () => {
    const headers = { ...bearer("producer"), origin: "http://app.example" };
    const response = await harness(RECORDS).call("POST", "/api/tasks", {
      body: { name: "x" },
      headers,
    });
    expect(response.status).toBe(201);
  });
});
