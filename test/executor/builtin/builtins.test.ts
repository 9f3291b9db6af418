import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createBuiltins } from "../../../src/executor/builtin/builtins.ts";
import { createHttp, type HttpResult } from "../../../src/executor/builtin/http.ts";
import { createIo } from "../../../src/executor/builtin/io.ts";
import { verdictOf } from "../../../src/executor/errors.ts";
import type { Handler, HandlerContext } from "../../../src/executor/handler.ts";
import { NetworkGuard } from "../../../src/executor/network-guard.ts";

function contextOf(signal: AbortSignal = new AbortController().signal): HandlerContext & {
  readonly percents: number[];
} {
  const percents: number[] = [];
  return {
    signal,
    attempt: 1,
    fence: 1,
    taskId: "t",
    name: "n",
    percents,
    progress: (percent) => {
      percents.push(percent);
    },
    log: () => {},
  };
}

/** What a handler throws: its verdict and its message. */
async function failure(
  handler: Handler,
  payload: unknown,
  signal?: AbortSignal,
): Promise<{ kind: string; message: string }> {
  try {
    await handler(payload, contextOf(signal));
  } catch (error) {
    return {
      kind: verdictOf(error)?.kind ?? "retryable",
      message: error instanceof Error ? error.message : String(error),
    };
  }
  throw new Error("the handler did not throw");
}

const sha256 = (text: string | Uint8Array): string =>
  new Bun.CryptoHasher("sha256").update(text).digest("hex");

function builtin(name: string): Handler {
  const handler = createBuiltins([], []).get(name);
  if (handler === undefined) throw new Error(`no built-in ${name}`);
  return handler;
}

describe("echo and fail", () => {
  test("echo returns what it was given", async () => {
    for (const payload of [null, 0, "text", [1, { a: null }]])
      expect(await builtin("echo")(payload, contextOf())).toEqual(payload);
  });

  test("fail fails, retryably or for good, with its message", async () => {
    expect(await failure(builtin("fail"), { message: "m" })).toEqual({
      kind: "retryable",
      message: "m",
    });
    expect((await failure(builtin("fail"), { retryable: false })).kind).toBe("non-retryable");
    expect((await failure(builtin("fail"), null)).kind).toBe("retryable");
    expect((await failure(builtin("fail"), { message: 1 })).message).toContain("payload.message");
    expect((await failure(builtin("fail"), { mesage: "" })).message).toContain("payload.mesage");
  });
});

describe("sleep", () => {
  test("it waits and says how long", async () => {
    expect(await builtin("sleep")({ ms: 5 }, contextOf())).toEqual({ ms: 5 });
  });

  test("it ends with the signal's reason, also when that fired before", async () => {
    const controller = new AbortController();
    const sleeping = failure(builtin("sleep"), { ms: 60_000 }, controller.signal);
    controller.abort(new Error("cancelled"));
    expect((await sleeping).message).toBe("cancelled");
    const late = await failure(builtin("sleep"), { ms: 60_000 }, controller.signal);
    expect(late.message).toBe("cancelled");
  });

  test("what is no duration is refused for good", async () => {
    for (const ms of [-1, Number.NaN, 1e12, "5", undefined]) {
      const { kind, message } = await failure(builtin("sleep"), { ms });
      expect(kind).toBe("non-retryable");
      expect(message).toContain("payload.ms");
    }
    expect((await failure(builtin("sleep"), 5)).message).toContain("JSON object");
  });
});

describe("compute", () => {
  test("it hashes the data, then each digest as hex text", async () => {
    expect(await builtin("compute")({ iterations: 1, data: "abc" }, contextOf())).toBe(
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    );
    let expected = "abc";
    for (let round = 0; round < 10_000; round += 1) expected = sha256(expected);
    const context = contextOf();
    expect(await builtin("compute")({ iterations: 10_000, data: "abc" }, context)).toBe(expected);
    expect(context.percents.length).toBeGreaterThan(0);
  });

  test("it stops soon when it is aborted", async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(new Error("enough")), 20);
    const payload = { iterations: 1_000_000_000, data: "" };
    expect((await failure(builtin("compute"), payload, controller.signal)).message).toBe("enough");
  });

  test("bad payloads are refused for good, naming the field", async () => {
    const cases: readonly [unknown, string][] = [
      [{ iterations: 0, data: "" }, "payload.iterations"],
      [{ iterations: 1_000_000_001, data: "" }, "payload.iterations"],
      [{ iterations: 1.5, data: "" }, "payload.iterations"],
      [{ iterations: "3", data: "" }, "payload.iterations"],
      [{ data: "" }, "payload.iterations"],
      [{ iterations: 1 }, "payload.data"],
      [{ iterations: 1, data: "", more: 1 }, "payload.more"],
      [[], "JSON object"],
    ];
    for (const [payload, words] of cases) {
      const { kind, message } = await failure(builtin("compute"), payload);
      expect(kind).toBe("non-retryable");
      expect(message).toContain(words);
    }
  });
});

describe("io on files", () => {
  let folder = "";
  let root = "";
  let io: Handler;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "flotilla-io-"));
    root = join(folder, "root");
    await mkdir(join(root, "sub"), { recursive: true });
    await mkdir(join(folder, "root-beside"));
    await Bun.write(join(root, "a.txt"), "hello");
    await Bun.write(join(root, "sub", "empty"), "");
    await Bun.write(join(folder, "secret"), "secret");
    await Bun.write(join(folder, "root-beside", "b"), "secret");
    await Bun.write(join(root, "large"), new Uint8Array(64 * 1024 * 1024 + 1));
    await Bun.write(join(root, "megabyte"), new Uint8Array(1_000_001).fill(7));
    await symlink(join(folder, "secret"), join(root, "leak"));
    await symlink(folder, join(root, "out"));
    await symlink(join(root, "a.txt"), join(root, "inner"));
    Bun.spawnSync(["mkfifo", join(root, "fifo")]);
    io = createIo([root], new NetworkGuard([]));
  });
  afterAll(async () => {
    await rm(folder, { recursive: true });
  });

  test("it answers size and hash, of absolute, relative and linked files inside the root", async () => {
    const hello = { size: 5, sha256: sha256("hello") };
    for (const path of [join(root, "a.txt"), "a.txt", "sub/../a.txt", "inner"])
      expect(await io({ path }, contextOf())).toEqual(hello);
    expect(await io({ path: "sub/empty" }, contextOf())).toEqual({ size: 0, sha256: sha256("") });
    expect(await io({ path: "megabyte" }, contextOf())).toEqual({
      size: 1_000_001,
      sha256: sha256(new Uint8Array(1_000_001).fill(7)),
    });
  });

  test("nothing outside the root is read, whatever way leads there, and FIFOs and devices are not", async () => {
    for (const path of [
      "../secret",
      "leak",
      "out/secret",
      join(folder, "secret"),
      join(folder, "root-beside", "b"),
      "fifo",
      "sub",
      "absent",
      root,
      "/dev/null",
      "/dev/zero",
      "/etc/passwd",
      "/proc/self/environ",
      "",
      "a.txt\0",
    ]) {
      const { kind, message } = await failure(io, { path });
      expect([path, kind]).toEqual([path, "non-retryable"]);
      expect(message).not.toContain("secret");
    }
  });

  test("a file above 64 MiB is refused", async () => {
    const { kind, message } = await failure(io, { path: "large" });
    expect(kind).toBe("non-retryable");
    expect(message).toContain("64 MiB");
  });

  test("without roots no file is read, and a payload has exactly one of url and path", async () => {
    const bare = createIo([], new NetworkGuard([]));
    expect((await failure(bare, { path: "/etc/hostname" })).message).toContain("--io-root");
    for (const payload of [{}, { url: "http://x.example", path: "a" }])
      expect((await failure(io, payload)).message).toContain("either url or path");
    expect((await failure(io, { url: "nonsense" })).message).toContain("payload.url");
    expect((await failure(io, { path: 5 })).message).toContain("payload.path");
  });
});

describe("io and http on the network", () => {
  const requests: { method: string; path: string; host: string; headers: Headers; body: string }[] =
    [];
  let server: ReturnType<typeof Bun.serve>;
  let http: Handler;
  let io: Handler;
  let lookups = 0;
  const at = (path: string, host = "good.example"): string =>
    `http://${host}:${server.port}${path}`;

  beforeAll(() => {
    server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      idleTimeout: 30,
      async fetch(request) {
        const { pathname, searchParams } = new URL(request.url);
        requests.push({
          method: request.method,
          path: pathname,
          host: request.headers.get("host") ?? "",
          headers: request.headers,
          body: await request.text(),
        });
        switch (pathname) {
          case "/status":
            return new Response(`told ${searchParams.get("code")}`, {
              status: Number(searchParams.get("code")),
              headers: searchParams.has("after")
                ? { "retry-after": searchParams.get("after") ?? "" }
                : {},
            });
          case "/redirect":
            return new Response(null, {
              status: Number(searchParams.get("code")),
              headers: { location: searchParams.get("to") ?? "" },
            });
          case "/loop":
            return new Response(null, { status: 302, headers: { location: "/loop" } });
          case "/large":
            return new Response("x".repeat(Number(searchParams.get("length"))));
          case "/drip":
            return new Response(
              new ReadableStream({
                start(controller) {
                  controller.enqueue("first");
                },
              }),
            );
          case "/hang":
            await Bun.sleep(20_000);
            return new Response("late");
          default:
            return new Response("hello", { headers: { "x-other": "1", etag: '"e"' } });
        }
      },
    });
    const rules = [`good.example:${server.port}`, "other.example"];
    const guard = new NetworkGuard(rules, () => {
      lookups += 1;
      return Promise.resolve(["127.0.0.1"]);
    });
    http = createHttp(guard);
    io = createIo([], guard);
  });
  afterAll(() => server.stop(true));

  test("the request goes to the address that was checked, with the name in its Host header", async () => {
    requests.length = 0;
    lookups = 0;
    const result = (await http({ url: at("/hook"), body: { a: [1] } }, contextOf())) as HttpResult;
    expect(result).toMatchObject({ status: 200, body: "hello", truncated: false });
    expect(result.headers).toMatchObject({ etag: '"e"' });
    expect(result.headers["x-other"]).toBeUndefined();
    expect(lookups).toBe(1);
    expect(requests).toHaveLength(1);
    expect(requests[0]).toMatchObject({ method: "POST", body: '{"a":[1]}' });
    expect(requests[0]?.host).toBe(`good.example:${server.port}`);
    expect(requests[0]?.headers.get("content-type")).toBe("application/json");
  });

  test("method, headers and a text body are sent as given", async () => {
    requests.length = 0;
    const headers = { "X-Token": "t", "Content-Type": "text/csv" };
    await http({ url: at("/hook?q=1"), method: "put", headers, body: "a,b" }, contextOf());
    expect(requests[0]).toMatchObject({ method: "PUT", body: "a,b" });
    expect(requests[0]?.headers.get("x-token")).toBe("t");
    expect(requests[0]?.headers.get("content-type")).toBe("text/csv");
  });

  test("5xx and 429 are retried, another 4xx is not, and Retry-After is honoured", async () => {
    const cases: readonly [string, string][] = [
      ["code=500", "retryable"],
      ["code=503", "retryable"],
      ["code=429", "retryable"],
      ["code=429&after=7", "retry-after"],
      ["code=503&after=0", "retry-after"],
      ["code=503&after=soon", "retryable"],
      ["code=400", "non-retryable"],
      ["code=404&after=7", "non-retryable"],
    ];
    for (const [query, kind] of cases) {
      const failed = await failure(http, { url: at(`/status?${query}`) });
      expect([query, failed.kind]).toEqual([query, kind]);
      expect(failed.message).toContain("told ");
    }
    const error: unknown = await Promise.resolve(
      http({ url: at("/status?code=429&after=7") }, contextOf()),
    ).catch((reason: unknown) => reason);
    expect(verdictOf(error)).toEqual({ kind: "retry-after", delayMs: 7_000 });
    const date = new Date(Date.now() + 60_000).toUTCString();
    const dated: unknown = await Promise.resolve(
      http({ url: at(`/status?code=503&after=${encodeURIComponent(date)}`) }, contextOf()),
    ).catch((reason: unknown) => reason);
    const verdict = verdictOf(dated);
    expect(verdict?.kind === "retry-after" && verdict.delayMs > 30_000).toBe(true);
  });

  test("a redirect is followed by the rules, without the secrets on another origin", async () => {
    const to = encodeURIComponent(at("/end", "other.example"));
    const headers = { Authorization: "Bearer x", "X-Kept": "1" };
    for (const [code, method, body] of [
      [302, "GET", ""],
      [303, "GET", ""],
      [307, "POST", "b"],
      [308, "POST", "b"],
    ] as const) {
      requests.length = 0;
      await http({ url: at(`/redirect?code=${code}&to=${to}`), headers, body: "b" }, contextOf());
      expect(requests.map(({ path }) => path)).toEqual(["/redirect", "/end"]);
      expect(requests[1]).toMatchObject({ method, body });
      expect(requests[1]?.host).toStartWith("other.example");
      expect(requests[0]?.headers.get("authorization")).toBe("Bearer x");
      expect(requests[1]?.headers.get("authorization")).toBeNull();
      expect(requests[1]?.headers.get("x-kept")).toBe("1");
    }
  });

  test("the guard judges each hop, and nothing is asked of what it refuses", async () => {
    for (const target of [
      at("/end", "bad.example"),
      at("/end", "127.0.0.1"),
      "file:///etc/passwd",
    ]) {
      requests.length = 0;
      const url = at(`/redirect?code=302&to=${encodeURIComponent(target)}`);
      for (const handler of [http, io])
        expect((await failure(handler, { url })).kind).toBe("non-retryable");
      expect(requests.map(({ path }) => path)).toEqual(["/redirect", "/redirect"]);
    }
    requests.length = 0;
    expect((await failure(http, { url: at("/", "bad.example") })).message).toContain("--allow-net");
    expect(requests).toEqual([]);
  });

  test("redirects without end are given up", async () => {
    requests.length = 0;
    expect((await failure(http, { url: at("/loop") })).message).toContain("more than 5 redirects");
    expect(requests).toHaveLength(6);
  });

  test("an answer that is too slow is a failure that may pass; an abort is its reason", async () => {
    const slow = await failure(http, { url: at("/hang"), timeout_ms: 100 });
    expect(slow.kind).toBe("retryable");
    expect(slow.message).toContain("within 100 ms");
    const controller = new AbortController();
    setTimeout(() => controller.abort(new Error("cancelled")), 50);
    for (const handler of [http, io])
      expect((await failure(handler, { url: at("/hang") }, controller.signal)).message).toBe(
        "cancelled",
      );
  });

  test("a look-up that never ends does not hold the task beyond its time-out", async () => {
    const stuck = createHttp(new NetworkGuard([], () => new Promise(() => {})));
    const { kind, message } = await failure(stuck, { url: "http://x.example/", timeout_ms: 50 });
    expect([kind, message]).toEqual(["retryable", "http: x.example did not answer within 50 ms"]);
  });

  test("a body that stops in the middle ends with the time-out, or the abort, too", async () => {
    const slow = await failure(http, { url: at("/drip"), timeout_ms: 200 });
    expect(slow.message).toContain("within 200 ms");
    for (const handler of [http, io]) {
      const controller = new AbortController();
      setTimeout(() => controller.abort(new Error("cancelled")), 100);
      expect((await failure(handler, { url: at("/drip") }, controller.signal)).message).toBe(
        "cancelled",
      );
    }
  });

  test("a server that is not there is a failure that may pass", async () => {
    const gone = createHttp(new NetworkGuard(["127.0.0.1"]));
    expect((await failure(gone, { url: "http://127.0.0.1:1/" })).kind).toBe("retryable");
  });

  test("of a long answer http keeps 64 KiB, and io hashes up to 64 MiB", async () => {
    const long = (await http({ url: at("/large?length=200000") }, contextOf())) as HttpResult;
    expect(long.body.length).toBe(65_536);
    expect(long.truncated).toBe(true);
    expect(await io({ url: at("/large?length=200000") }, contextOf())).toEqual({
      size: 200_000,
      sha256: sha256("x".repeat(200_000)),
    });
    const tooLong = await failure(io, { url: at(`/large?length=${64 * 1024 * 1024 + 1}`) });
    expect(tooLong.kind).toBe("non-retryable");
    expect(tooLong.message).toContain("64 MiB");
    expect((await failure(io, { url: at("/status?code=500") })).kind).toBe("retryable");
    expect((await failure(io, { url: at("/status?code=404") })).kind).toBe("non-retryable");
  });

  test("bad payloads of http are refused for good, naming the field", async () => {
    const url = at("/");
    const cases: readonly [unknown, string][] = [
      [{}, "payload.url"],
      [{ url: "no" }, "payload.url"],
      [{ url, method: "TRACE" }, "payload.method"],
      [{ url, method: 5 }, "payload.method"],
      [{ url, method: "GET", body: 1 }, "payload.body"],
      [{ url, headers: [] }, "payload.headers"],
      [{ url, headers: { "x y": "1" } }, "payload.headers.x y"],
      [{ url, headers: { host: "evil" } }, "payload.headers.host"],
      [{ url, headers: { "Transfer-Encoding": "chunked" } }, "payload.headers.Transfer-Encoding"],
      [{ url, headers: { a: "1\r\nb: 2" } }, "payload.headers.a"],
      [{ url, headers: { a: 1 } }, "payload.headers.a"],
      [{ url, timeout_ms: 0 }, "payload.timeout_ms"],
      [{ url, timeout: 1 }, "payload.timeout"],
    ];
    for (const [payload, words] of cases) {
      const { kind, message } = await failure(http, payload);
      expect(kind).toBe("non-retryable");
      expect(message).toContain(words);
    }
  });
});
