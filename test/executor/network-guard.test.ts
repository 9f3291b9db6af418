import { describe, expect, test } from "bun:test";
import { isIP } from "node:net";
import { NetworkGuard, parseAllowRule, type Resolver } from "../../src/executor/network-guard.ts";
import { contains, isPublic, parseCidr, parseIp } from "../../src/executor/network-address.ts";

const noResolver: Resolver = (host) => Promise.reject(new Error(`looked ${host} up`));

function resolving(table: Readonly<Record<string, readonly string[]>>): Resolver {
  return (host) => {
    const addresses = table[host];
    return addresses === undefined
      ? Promise.reject(new Error(`ENOTFOUND ${host}`))
      : Promise.resolve(addresses);
  };
}

async function verdict(guard: NetworkGuard, url: string): Promise<string> {
  try {
    return (await guard.check(new URL(url))).map(({ address }) => address).join(" ");
  } catch (error) {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  }
}

describe("addresses", () => {
  const refused = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
  ];
  const allowed = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
  ];
  for (const address of refused) {
    test(`${address} is not public`, () => {
      const ip = parseIp(address);
      expect(ip !== null && isPublic(ip)).toBe(false);
      expect(ip).not.toBeNull();
    });
  }
  for (const address of allowed) {
    test(`${address} is public`, () => {
      const ip = parseIp(address);
      expect(ip !== null && isPublic(ip)).toBe(true);
    });
  }

  test("what is no plain address is none", () => {
    for (const text of [
      "",
      "1.2.3",
      "1.2.3.256",
      "fe80::1%eth0",
      "01.2.3.4",
      "1.2.3.4/8",
      "a.b",
      "1.2.3.4.5",
      ":",
      ":::",
      "1::2::3",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "12345::",
      "::1.2.3.256",
      "[::1]",
      "::1]/x",
    ])
      expect(parseIp(text)).toBeNull();
  });

  test("addresses are told from other texts as node:net tells them, zones apart", () => {
    const pieces = [
      "",
      ":",
      "::",
      ".",
      "0",
      "00",
      "1",
      "9",
      "255",
      "256",
      "ffff",
      "g",
      "1.2.3.4",
      "%1",
    ];
    let state = 7;
    const random = (): number => {
      state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
      return state / 2_147_483_648;
    };
    const different: string[] = [];
    let addresses = 0;
    for (let n = 0; n < 30_000; n++) {
      const text = Array.from(
        { length: 1 + Math.floor(random() * 16) },
        () => pieces[Math.floor(random() * pieces.length)] ?? "",
      ).join(random() < 0.5 ? ":" : random() < 0.5 ? "." : "");
      const expected = text.includes("%") ? 0 : isIP(text);
      if (expected !== 0) addresses += 1;
      const found = parseIp(text)?.family ?? 0;
      if (found !== expected) different.push(`${text}: ${found}, not ${expected}`);
    }
    expect(different).toEqual([]);
    expect(addresses).toBeGreaterThan(500);
  });

  test("IPv6 spellings of one address are one number", () => {
    const spellings = ["::ffff:1.2.3.4", "0:0:0:0:0:ffff:102:304", "::FFFF:0102:0304"];
    expect(new Set(spellings.map((text) => parseIp(text)?.bits)).size).toBe(1);
    expect(parseIp("1::")?.bits).toBe(1n << 112n);
    expect(parseIp("::1")?.bits).toBe(1n);
  });

  test("a block contains its own addresses and no others, of its family only", () => {
    const block = parseCidr("10.1.0.0/16");
    const all = parseCidr("0.0.0.0/0");
    const inside = parseIp("10.1.255.255");
    const outside = parseIp("10.2.0.0");
    const other = parseIp("::1");
    if (!block || !all || !inside || !outside || !other) throw new Error("unreachable");
    expect(contains(block, inside)).toBe(true);
    expect(contains(block, outside)).toBe(false);
    expect(contains(all, outside)).toBe(true);
    expect(contains(all, other)).toBe(false);
  });

  test("malformed blocks are none", () => {
    for (const text of ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8/8", "::/129", "x/8", "10.0.0.0/-1"])
      expect(parseCidr(text)).toBeNull();
  });
});

describe("the guard", () => {
  test("every spelling of loopback in a URL is refused without a look-up", async () => {
    const guard = new NetworkGuard([], noResolver);
    for (const url of [
      "http://127.0.0.1/",
      "http://127.1/",
      "http://2130706433/",
      "http://0x7f.0.0.1/",
      "http://0177.0.0.1/",
      "http://[::1]/",
      "http://[::ffff:127.0.0.1]/",
      "http://[::ffff:7f00:1]/",
      "http://0/",
      "https://169.254.169.254/latest/meta-data/",
    ])
      expect(await verdict(guard, url)).toContain("is not a public address");
  });

  test("a name is judged by what it resolves to, and the refusal names the mend", async () => {
    const guard = new NetworkGuard([], resolving({ "rebind.example": ["10.0.0.8"] }));
    const text = await verdict(guard, "http://rebind.example/x");
    expect(text).toContain("NonRetryableError");
    expect(text).toContain("rebind.example resolves to 10.0.0.8");
    expect(text).toContain("--allow-net rebind.example");
  });

  test("of several addresses only the public ones may be connected to", async () => {
    const guard = new NetworkGuard(
      [],
      resolving({ "mixed.example": ["10.0.0.8", "8.8.8.8", "not-an-address", "::1"] }),
    );
    expect(await verdict(guard, "http://mixed.example/")).toBe("8.8.8.8");
  });

  test("a name that does not resolve is no refusal: it may resolve later", async () => {
    const guard = new NetworkGuard([], resolving({ "empty.example": [] }));
    expect(await verdict(guard, "http://gone.example/")).toBe("Error: ENOTFOUND gone.example");
    expect(await verdict(guard, "http://empty.example/")).toStartWith("Error:");
  });

  test("rules let hosts, ports, addresses and blocks in, and nothing beside them", async () => {
    const resolve = resolving({ "a.internal": ["10.1.2.3"], "b.internal": ["10.9.9.9"] });
    const cases: readonly [rule: string, url: string, allowed: boolean][] = [
      ["a.internal", "http://a.internal/", true],
      ["A.Internal.", "http://a.internal:9/", true],
      ["a.internal", "http://b.internal/", false],
      ["internal", "http://a.internal/", false],
      ["a.internal:8080", "http://a.internal:8080/", true],
      ["a.internal:8080", "http://a.internal:8081/", false],
      ["a.internal:443", "https://a.internal/", true],
      ["a.internal:443", "http://a.internal/", false],
      ["10.1.0.0/16", "http://a.internal/", true],
      ["10.1.0.0/16", "http://b.internal/", false],
      ["127.0.0.1", "http://127.0.0.1:5/", true],
      ["127.0.0.1", "http://127.0.0.2:5/", false],
      ["127.0.0.1:5", "http://127.0.0.1:5/", true],
      ["127.0.0.1:5", "http://127.0.0.1:6/", false],
      ["::1", "http://[::1]/", true],
      ["[::1]:80", "http://[::1]/", true],
      ["[::1]:81", "http://[::1]/", false],
      ["127.0.0.0/8", "http://[::ffff:127.0.0.1]/", false],
    ];
    for (const [rule, url, allowed] of cases) {
      const text = await verdict(new NetworkGuard([rule], resolve), url);
      expect([rule, url, !text.includes("Error")]).toEqual([rule, url, allowed]);
    }
  });

  test("malformed rules are refused with a sentence", () => {
    for (const text of ["", "http://x", "x:0", "x:65536", "10.0.0.0/99", "[::1", "a b", "[host]:1"])
      expect(() => parseAllowRule(text)).toThrow(RangeError);
  });

  test("only http and https are fetched, and never with credentials in the URL", async () => {
    const guard = new NetworkGuard(["127.0.0.1"], noResolver);
    expect(await verdict(guard, "file:///etc/passwd")).toContain("only http: and https:");
    expect(await verdict(guard, "ftp://127.0.0.1/")).toContain("only http: and https:");
    expect(await verdict(guard, "http://user:pw@127.0.0.1/")).toContain("user name or password");
  });
});
