import { describe, expect, test } from "bun:test";
import {
  guardedRequest,
  readBody,
  type GuardedRequest,
} from "../../src/executor/guarded-request.ts";
import { NetworkGuard } from "../../src/executor/network-guard.ts";
import { CERTIFICATE, PRIVATE_KEY } from "./fixtures/certificate.ts";

function requestTo(url: string): GuardedRequest {
  return {
    url: new URL(url),
    method: "GET",
    headers: {},
    body: null,
    signal: new AbortController().signal,
  };
}

async function textOf(guard: NetworkGuard, request: GuardedRequest, ca?: string): Promise<string> {
  const response = await guardedRequest(guard, request, ca);
  let text = `${response.status} `;
  for await (const chunk of readBody(response.body, request.signal))
    text += Buffer.from(chunk).toString();
  return text;
}

async function failureOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  throw new Error("it did not fail");
}

describe("guarded requests", () => {
  test("over TLS the certificate is verified against the name, though the address is dialled", async () => {
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      tls: { key: PRIVATE_KEY, cert: CERTIFICATE },
      fetch: (request) => new Response(`for ${request.headers.get("host")}`),
    });
    try {
      const guard = new NetworkGuard(["127.0.0.1"], () => Promise.resolve(["127.0.0.1"]));
      const good = requestTo(`https://good.example:${server.port}/`);
      expect(await textOf(guard, good, CERTIFICATE)).toBe(`200 for good.example:${server.port}`);
      const evil = requestTo(`https://evil.example:${server.port}/`);
      expect(await failureOf(textOf(guard, evil, CERTIFICATE))).toMatch(/altnames|hostname/i);
      // Without trust in its issuer the right name does not help.
      expect(await failureOf(textOf(guard, good))).toMatch(/self.signed|certificate/i);
    } finally {
      await server.stop(true);
    }
  });

  test("proxy variables of the environment are not honoured: a proxy would look the name up again", async () => {
    let proxied = 0;
    const proxy = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch() {
        proxied += 1;
        return new Response("from the proxy");
      },
    });
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: () => new Response("direct"),
    });
    const names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] as const;
    const before = names.map((name) => process.env[name]);
    for (const name of names) process.env[name] = `http://127.0.0.1:${proxy.port}`;
    try {
      const guard = new NetworkGuard(["127.0.0.1"], () => Promise.resolve(["127.0.0.1"]));
      const text = await textOf(guard, requestTo(`http://good.example:${server.port}/`));
      expect(text).toBe("200 direct");
      expect(proxied).toBe(0);
    } finally {
      for (const [index, name] of names.entries()) {
        const value = before[index];
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      }
      await Promise.all([proxy.stop(true), server.stop(true)]);
    }
  });

  test("when an address refuses the connection the next one is tried", async () => {
    const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("here") });
    try {
      const guard = new NetworkGuard(["127.0.0.0/8"], () =>
        Promise.resolve(["127.0.0.2", "127.0.0.1"]),
      );
      const url = `http://good.example:${server.port}/`;
      expect(await textOf(guard, requestTo(url))).toBe("200 here");
    } finally {
      await server.stop(true);
    }
  });

  test("a name that answers another address when it is looked up again gains nothing by it", async () => {
    let asked = 0;
    let served = 0;
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch() {
        served += 1;
        return new Response("inside");
      },
    });
    try {
      // Nothing listens on the address that is let in; the one that comes next would be served.
      const guard = new NetworkGuard(["127.0.0.3"], () => {
        asked += 1;
        return Promise.resolve([asked === 1 ? "127.0.0.3" : "127.0.0.1"]);
      });
      const request = requestTo(`http://rebind.example:${server.port}/`);
      const error: unknown = await textOf(guard, request).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(Error);
      expect([asked, served]).toEqual([1, 0]);
    } finally {
      await server.stop(true);
    }
  });
});
