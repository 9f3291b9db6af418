import { describe, expect, test } from "bun:test";
import { isLoopbackHost } from "../../src/api/origin.ts";
import { harness, problem } from "./harness.ts";

describe("an open member", () => {
  test.each([
    "localhost",
    "localhost:3000",
    "app.localhost:3000",
    "127.0.0.1:3000",
    "127.9.9.9",
    "[::1]:3000",
    "LOCALHOST:3000",
    "flotilla.example:3000",
    "Flotilla.Example",
  ])("answers under the Host %s", async (host) => {
    expect((await harness().call("GET", "/api/stats", { headers: { host } })).status).toBe(200);
  });

  test.each([
    "evil.example",
    "evil.example:3000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "flotilla.example.evil",
    "xflotilla.example",
    "10.0.0.5:3000",
    "user@localhost",
    "localhost/x",
    "",
    "a b",
  ])("refuses the Host %p with 421, on every path", async (host) => {
    const { call, queue } = harness();
    for (const path of ["/api/stats", "/health", "/swagger", "/nope"]) {
      const refused = await problem(await call("GET", path, { headers: { host } }));
      expect([refused.status, refused.code]).toEqual([421, "foreign-host"]);
    }
    expect(queue.calls).toEqual([]);
  });

  test.each([
    "http://evil.example",
    "https://localhost.evil.example:3000",
    "http://localhost:4000",
    "null",
    "file://",
    "chrome-extension://abc",
    "x",
  ])("refuses the Origin %s with 403, reads too", async (origin) => {
    const { call, queue } = harness();
    for (const method of ["GET", "POST", "DELETE"]) {
      const headers = { host: "localhost:3000", origin };
      const refused = await problem(await call(method, "/api/tasks", { headers }));
      expect([refused.status, refused.code]).toEqual([403, "foreign-origin"]);
    }
    expect(queue.calls).toEqual([]);
  });

  test("takes its own Origin, whatever scheme a proxy made of it, and default ports", async () => {
    const { call } = harness();
    for (const [host, origin] of [
      ["localhost:3000", "http://localhost:3000"],
      ["flotilla.example", "https://flotilla.example"],
      ["flotilla.example:443", "https://flotilla.example"],
      ["flotilla.example", "http://flotilla.example:80"],
      ["[::1]:3000", "http://[::1]:3000"],
    ] as const) {
      const response = await call("POST", "/api/tasks", {
        body: { name: "x" },
        headers: { host, origin },
      });
      expect([host, response.status]).toEqual([host, 201]);
    }
  });

  test("refuses writes that a browser marks as another site's, though they bear no Origin", async () => {
    const { call } = harness();
    for (const [site, status] of [
      ["cross-site", 403],
      ["same-site", 403],
      ["same-origin", 201],
      ["none", 201],
    ] as const) {
      const headers = { "sec-fetch-site": site };
      const response = await call("POST", "/api/tasks", { body: { name: "x" }, headers });
      expect([site, response.status]).toEqual([site, status]);
    }
    const link = await call("GET", "/health", { headers: { "sec-fetch-site": "cross-site" } });
    expect(link.status).toBe(200);
  });
});

test("loopback names are the reserved ones and 127/8, nothing that merely looks like them", () => {
  for (const name of ["localhost", "a.b.localhost", "127.0.0.1", "[::1]"]) {
    expect([name, isLoopbackHost(name)]).toEqual([name, true]);
  }
  for (const name of ["localhost.com", "xlocalhost", "128.0.0.1", "127.0.0.1.com", "[::2]", ""]) {
    expect([name, isLoopbackHost(name)]).toEqual([name, false]);
  }
});
