import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Config,
  ConfigError,
  isLoopbackHost,
  originOf,
  parseConfig,
  parseTokensFile,
} from "../src/config.ts";

const HASH = "a".repeat(64);
const OTHER_HASH = "b".repeat(64);
const SECRET = "sixteen letters!";
let folder = "";
let tokensFile = "";
let secretFile = "";
let handlersFile = "";

beforeAll(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "flotilla-config-")));
  tokensFile = join(folder, "tokens.jsonl");
  secretFile = join(folder, "secret");
  handlersFile = join(folder, "handlers.ts");
  writeFileSync(tokensFile, JSON.stringify({ name: "ann", role: "admin", sha256: HASH }));
  writeFileSync(secretFile, `${SECRET}\n`);
  writeFileSync(handlersFile, "export default {};\n");
  writeFileSync(join(folder, "short-secret"), "too short\n");
  mkdirSync(join(folder, "readable"));
  symlinkSync(join(folder, "readable"), join(folder, "link"));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function configOf(argv: readonly string[], env: Record<string, string | undefined> = {}): Config {
  const config = parseConfig(argv, env, { isTerminal: false });
  if ("help" in config) throw new Error("the help was asked for");
  return config;
}

function refusal(argv: readonly string[], env: Record<string, string | undefined> = {}): string {
  try {
    parseConfig(argv, env, { isTerminal: false });
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  throw new Error(`accepted: ${argv.join(" ")}`);
}

describe("the defaults", () => {
  test("are those of the table when nothing is given", () => {
    expect(configOf([])).toEqual({
      id: "n1",
      host: "127.0.0.1",
      port: 3000,
      advertise: "http://127.0.0.1:3000",
      data: "./data/n1",
      peers: null,
      join: null,
      restore: null,
      concurrency: 10,
      handlers: null,
      builtin: ["echo", "compute", "io", "http", "sleep", "fail", "*"],
      ioRoots: [],
      allowNet: [],
      secret: null,
      tokens: null,
      insecure: false,
      tls: null,
      peerCa: null,
      peerPort: null,
      heartbeatMs: 50,
      electionTimeoutMs: 300,
      requestTimeoutMs: 5_000,
      drainMs: 30_000,
      logLevel: "info",
      logFormat: "json",
      diskReserveBytes: 2 ** 30,
      settings: { leaseMs: null, retentionMs: {}, maxPayloadBytes: null },
      warnings: [],
      fromEnvironment: [],
    } as unknown as Config);
  });

  test("follow the id and the address", () => {
    const config = configOf(["--id", "west-2", "--host", "::1", "--port", "4000"]);
    expect(config.data).toBe("./data/west-2");
    expect(config.advertise).toBe("http://[::1]:4000");
  });

  test("leave the address open when any free port will do", () => {
    expect(configOf(["--port", "0"]).advertise).toBeNull();
    expect(originOf("http", "127.0.0.1", 4321)).toBe("http://127.0.0.1:4321");
    expect(originOf("http", "fe80::1", 80)).toBe("http://[fe80::1]");
  });

  test("log prettily on a terminal only", () => {
    expect(parseConfig([], {}, { isTerminal: true })).toMatchObject({ logFormat: "pretty" });
    expect(parseConfig(["--log-format", "json"], {}, { isTerminal: true })).toMatchObject({
      logFormat: "json",
    });
  });
});

describe("values", () => {
  const accepted: readonly (readonly [
    string,
    readonly string[],
    (config: Config) => unknown,
    unknown,
  ])[] = [
    ["--flag=value", ["--id=n7"], (c) => c.id, "n7"],
    ["a value with =", ["--secret=a=b=c=d=e=f=g=h="], (c) => c.secret, "a=b=c=d=e=f=g=h="],
    ["milliseconds", ["--heartbeat", "20ms"], (c) => c.heartbeatMs, 20],
    ["seconds", ["--request-timeout", "7s"], (c) => c.requestTimeoutMs, 7_000],
    ["a fraction", ["--request-timeout", "1.5s"], (c) => c.requestTimeoutMs, 1_500],
    ["minutes", ["--drain", "10m"], (c) => c.drainMs, 600_000],
    ["no drain at all", ["--drain", "0s"], (c) => c.drainMs, 0],
    ["hours", ["--lease", "2h"], (c) => c.settings.leaseMs, 7_200_000],
    ["three heartbeats exactly", ["--election-timeout", "150ms"], (c) => c.electionTimeoutMs, 150],
    ["plain bytes", ["--disk-reserve", "4096"], (c) => c.diskReserveBytes, 4_096],
    ["decimal sizes", ["--disk-reserve", "1MB"], (c) => c.diskReserveBytes, 1_000_000],
    ["binary sizes", ["--max-payload", "64KiB"], (c) => c.settings.maxPayloadBytes, 65_536],
    ["no reserve", ["--disk-reserve", "0"], (c) => c.diskReserveBytes, 0],
    [
      "a part of the retention",
      ["--retention", "failed=30d"],
      (c) => c.settings.retentionMs,
      { failed: 30 * 86_400_000 },
    ],
    [
      "the whole retention",
      ["--retention", "completed=1h, cancelled=0s,failed=7d"],
      (c) => c.settings.retentionMs,
      { completed: 3_600_000, cancelled: 0, failed: 604_800_000 },
    ],
    ["no executors", ["--concurrency", "0"], (c) => c.concurrency, 0],
    ["the most executors", ["--concurrency", "1000"], (c) => c.concurrency, 1_000],
    ["some built-in handlers", ["--builtin", "echo,http,echo"], (c) => c.builtin, ["echo", "http"]],
    [
      "an advertised address",
      ["--advertise", "https://Queue.Example:443/"],
      (c) => c.advertise,
      "https://queue.example",
    ],
    [
      "networks",
      ["--allow-net", "10.0.0.0/8", "--allow-net", "Internal.Example"],
      (c) => c.allowNet,
      ["10.0.0.0/8", "internal.example"],
    ],
    [
      "IPv6 networks",
      ["--allow-net", "fd00::/8", "--allow-net", "[::1]"],
      (c) => c.allowNet,
      ["fd00::/8", "::1"],
    ],
    ["a log level", ["--log-level", "debug"], (c) => c.logLevel, "debug"],
  ];
  test.each(accepted.map((row) => [...row] as const))("%s", (_name, argv, pick, expected) => {
    expect(pick(configOf(argv))).toEqual(expected);
  });

  test("peers are the addresses that this member dials, itself included", () => {
    const peers = "n1=http://10.0.0.1:3000,n2=http://10.0.0.2:3000/, n3=https://c.example";
    expect([...(configOf(["--peers", peers]).peers ?? [])] as unknown).toEqual([
      ["n1", "http://10.0.0.1:3000"],
      ["n2", "http://10.0.0.2:3000"],
      ["n3", "https://c.example"],
    ]);
  });

  test("an even number of peers is accepted", () => {
    expect(configOf(["--peers", "n1=http://a:1,n2=http://a:2"]).peers?.size).toBe(2);
  });

  test("own handlers replace the built-in ones, except those named", () => {
    expect(configOf(["--handlers", handlersFile])).toMatchObject({
      handlers: handlersFile,
      builtin: [],
    });
    expect(configOf(["--handlers", handlersFile, "--builtin", "http"]).builtin).toEqual(["http"]);
  });

  test("io roots are kept as real paths", () => {
    expect(configOf(["--io-root", join(folder, "link"), "--io-root", folder]).ioRoots).toEqual([
      join(folder, "readable"),
      folder,
    ]);
  });

  test("a secret file is read without its line end", () => {
    expect(configOf(["--secret-file", secretFile]).secret).toBe(SECRET);
  });
});

describe("what is wrong is refused in one sentence that names the flag", () => {
  const rows: readonly (readonly [argv: readonly string[], flag: string, says: string])[] = [
    [["--nope"], "--nope", "not a flag"],
    [["--elect", "1s"], "--elect", "did you mean --election-timeout?"],
    [["--port", "1", "--port", "2"], "--port", "given twice"],
    [["--secret=a", "--secret=b"], "--secret", "given twice"],
    [["--tls-cert", "/does/not/exist"], "--tls-cert", "cannot be read"],
    [["--peer-port", "3001"], "--peer-port", "needs --peers"],
    [["--peer-port", "3000"], "--peer-port", "give another one"],
    [["--peer-port", "0"], "--peer-port", "1 to 65535"],
    [["--peer-ca", "/does/not/exist"], "--peer-ca", "cannot be read"],
    [["stray"], "stray", "not a flag"],
    [["--"], "--", "not a flag"],
    [["--port"], "--port", "needs a value"],
    [["--port", "--host"], "--port", "needs a value"],
    [["--data="], "--data", "needs a value"],
    [["--insecure=yes"], "--insecure", "takes no value"],
    [["--id", "N1"], "--id", "member name"],
    [["--id", "a".repeat(33)], "--id", "member name"],
    [["--id", "a b"], "--id", "member name"],
    [["--host", "http://x"], "--host", "without scheme"],
    [["--host", "127.0.0.1:80"], "--host", "without scheme"],
    [["--host", "256.1.1.1"], "--host", "neither"],
    [["--port", "65536"], "--port", "0 to 65535"],
    [["--port", "-1"], "--port", "0 to 65535"],
    [["--port", "80.5"], "--port", "0 to 65535"],
    [["--port", "0x50"], "--port", "0 to 65535"],
    [["--host", "0.0.0.0", "--insecure"], "--advertise", "is needed"],
    [["--host", "::", "--insecure"], "--advertise", "is needed"],
    [["--host", "0:0:0:0:0:0:0:0", "--insecure"], "--advertise", "is needed"],
    [["--advertise", "10.0.0.1:3000"], "--advertise", "http"],
    [["--advertise", "ftp://a"], "--advertise", "http://"],
    [["--advertise", "http://a/path"], "--advertise", "host and port only"],
    [["--advertise", "http://a/?x=1"], "--advertise", "host and port only"],
    [["--advertise", "http://me:pass@a"], "--advertise", "host and port only"],
    [["--advertise", "http://0.0.0.0:3000"], "--advertise", "wildcard"],
    [["--advertise", "http://[::]:3000"], "--advertise", "wildcard"],
    [["--peers", "n2=http://a:1,n3=http://a:2"], "--peers", "this member too"],
    [["--join", "n1"], "--join", "not a URL"],
    [["--join", "http://a:1/raft"], "--join", "scheme, host and port only"],
    [["--restore", "f", "--join", "http://a:1"], "--restore", "--join enters one that exists"],
    [["--join", "http://127.0.0.1:3000"], "--join", "this member's own address"],
    [["--peers", "n1=http://a:1,n1=http://a:2"], "--peers", "names n1 twice"],
    [["--peers", "n1=http://a:1,n2=http://a:1/"], "--peers", "the same address"],
    [["--peers", "http://a:1"], "--peers", "ID=URL"],
    [["--peers", "n1"], "--peers", "ID=URL"],
    [["--peers", "N1=http://a:1"], "--peers", "ID=URL"],
    [["--peers", "n1=nowhere"], "--peers", "not a URL"],
    [["--peers", "n1=http://a:1/raft"], "--peers", "host and port only"],
    [["--peers", "n1=ws://a:1"], "--peers", "http://"],
    [["--peers", ","], "--peers", "this member too"],
    [
      ["--peers", Array.from({ length: 64 }, (_, at) => `n${at}=http://a:${at + 1}`).join(",")],
      "--peers",
      "at most 63",
    ],
    [["--concurrency", "1001"], "--concurrency", "0 to 1000"],
    [["--concurrency", "many"], "--concurrency", "0 to 1000"],
    [["--handlers", "/does/not/exist.ts"], "--handlers", "not a file"],
    [["--handlers", "/"], "--handlers", "not a file"],
    [["--builtin", "echo,nothing"], "--builtin", "does not exist"],
    [["--builtin", ","], "--builtin", "empty"],
    [["--io-root", "/does/not/exist"], "--io-root", "not a folder"],
    [["--allow-net", "10.0.0.0/33"], "--allow-net", "neither"],
    [["--allow-net", "fd00::/129"], "--allow-net", "neither"],
    [["--allow-net", "internal.example/8"], "--allow-net", "neither"],
    [["--allow-net", "http://a"], "--allow-net", "neither"],
    [["--allow-net", "1.2.3"], "--allow-net", "neither"],
    [["--secret", "fifteen letters"], "--secret", "at least 16"],
    [["--secret-file", "/does/not/exist"], "--secret-file", "cannot be read"],
    [["--tokens-file", "/does/not/exist"], "--tokens-file", "cannot be read"],
    [["--tokens-file", "/"], "--tokens-file", "cannot be read"],
    [["--host", "10.0.0.1"], "--host", "--insecure"],
    [["--host", "10.0.0.1", "--secret", SECRET], "--host", "--tokens-file"],
    [["--host", "queue.example"], "--host", "--insecure"],
    [["--heartbeat", "0ms"], "--heartbeat", "out of range"],
    [["--heartbeat", "50"], "--heartbeat", "not a duration"],
    [["--heartbeat", "-5ms"], "--heartbeat", "not a duration"],
    [["--heartbeat", "5 ms"], "--heartbeat", "not a duration"],
    [["--heartbeat", "1e3ms"], "--heartbeat", "not a duration"],
    [["--election-timeout", "149ms"], "--election-timeout", "three times --heartbeat"],
    [["--heartbeat", "101ms"], "--election-timeout", "three times --heartbeat"],
    [["--election-timeout", "2h"], "--election-timeout", "out of range"],
    [["--request-timeout", "soon"], "--request-timeout", "not a duration"],
    [["--request-timeout", "1d"], "--request-timeout", "out of range"],
    [["--drain", "2h"], "--drain", "out of range"],
    [["--log-level", "trace"], "--log-level", "debug, info, warn, error"],
    [["--log-level", "INFO"], "--log-level", "debug, info, warn, error"],
    [["--log-format", "xml"], "--log-format", "pretty, json"],
    [["--disk-reserve", "1Gib"], "--disk-reserve", "not a size"],
    [["--disk-reserve", "-1"], "--disk-reserve", "not a size"],
    [["--disk-reserve", "99999TiB99"], "--disk-reserve", "not a size"],
    [["--disk-reserve", "999999999999999TiB"], "--disk-reserve", "not a size"],
    [["--lease", "10ms"], "--lease", "out of range"],
    [["--lease", "25h"], "--lease", "give 100ms to 1d."],
    [["--retention", "failed=3651d"], "--retention", "give 0s to 3650d."],
    [["--max-payload", "5MiB"], "--max-payload", "give 1KiB to 4MiB."],
    [["--max-payload", "1"], "--max-payload", "out of range"],
    [["--retention", "24h"], "--retention", "completed=24h"],
    [["--retention", "running=24h"], "--retention", "completed=24h"],
    [["--retention", "__proto__=24h"], "--retention", "completed=24h"],
    [["--retention", "failed=1h,failed=2h"], "--retention", "names failed twice"],
    [["--retention", "failed=long"], "--retention", "not a duration"],
  ];
  test.each(rows.map((row) => [...row] as const))("%p", (argv, flag, says) => {
    const message = refusal(argv);
    expect(message).toContain(flag);
    expect(message).toContain(says);
    expect(message).not.toContain("\n");
    expect(message).toMatch(/[.?]$/);
  });

  test("a secret given in two ways", () => {
    expect(refusal(["--secret", SECRET, "--secret-file", secretFile])).toContain("only one");
  });

  test("a short secret in a file, naming the file's flag", () => {
    const message = refusal(["--secret-file", join(folder, "short-secret")]);
    expect(message).toContain("--secret-file");
    expect(message).not.toContain("too short\n");
  });

  test("the catch-all beside own handlers", () => {
    expect(refusal(["--handlers", handlersFile, "--builtin", "*"])).toContain("--builtin");
  });

  test("an io root that is a file", () => {
    expect(refusal(["--io-root", secretFile])).toContain("not a folder");
  });

  test("no message ever shows a secret", () => {
    expect(refusal(["--secret", "hunter2"])).not.toContain("hunter2");
  });
});

describe("listening beyond loopback", () => {
  test("takes both tokens and a secret", () => {
    const config = configOf([
      "--host=0.0.0.0",
      "--advertise=http://10.0.0.1:3000",
      `--tokens-file=${tokensFile}`,
      `--secret-file=${secretFile}`,
    ]);
    expect(config.tokens).toEqual([{ name: "ann", role: "admin", sha256: HASH }]);
    expect(refusal(["--host", "10.0.0.1", `--tokens-file=${tokensFile}`])).toContain("--secret");
  });

  test("or the word --insecure", () => {
    expect(configOf(["--host", "10.0.0.1", "--insecure"]).insecure).toBe(true);
  });

  test.each([
    ["127.0.0.1", true],
    ["127.8.9.1", true],
    ["::1", true],
    ["localhost", true],
    ["127.0.0.1.example", false],
    ["127.example", false],
    ["0.0.0.0", false],
    ["10.0.0.1", false],
    ["::ffff:10.0.0.1", false],
  ])("%s is loopback: %p", (host, loopback) => {
    expect(isLoopbackHost(host)).toBe(loopback);
  });
});

describe("the environment", () => {
  test("gives every flag", () => {
    const config = configOf([], {
      FLOTILLA_ID: "n9",
      FLOTILLA_ELECTION_TIMEOUT: "1s",
      FLOTILLA_INSECURE: "1",
      FLOTILLA_ALLOW_NET: "10.0.0.1, 10.0.0.2",
      FLOTILLA_MAX_PAYLOAD: "1MiB",
      PATH: "/bin",
    });
    expect(config).toMatchObject({
      id: "n9",
      electionTimeoutMs: 1_000,
      insecure: true,
      allowNet: ["10.0.0.1", "10.0.0.2"],
      settings: { maxPayloadBytes: 2 ** 20 },
      warnings: [],
    });
  });

  test("loses to a flag, and a repeatable flag replaces the whole list", () => {
    const env = { FLOTILLA_PORT: "1", FLOTILLA_ALLOW_NET: "10.0.0.1,10.0.0.2" };
    expect(configOf(["--port", "2", "--allow-net", "10.0.0.3"], env)).toMatchObject({
      port: 2,
      allowNet: ["10.0.0.3"],
    });
  });

  test("does not make a pair with the flag of its twin", () => {
    const other = "another sixteen!";
    expect(configOf(["--secret", other], { FLOTILLA_SECRET_FILE: secretFile }).secret).toBe(other);
    expect(configOf(["--secret-file", secretFile], { FLOTILLA_SECRET: other }).secret).toBe(SECRET);
    expect(refusal([], { FLOTILLA_SECRET: other, FLOTILLA_SECRET_FILE: secretFile })).toContain(
      "only one",
    );
  });

  test("counts an empty variable as not set", () => {
    expect(configOf([], { FLOTILLA_SECRET: "", FLOTILLA_INSECURE: "" })).toMatchObject({
      secret: null,
      insecure: false,
      tls: null,
      peerCa: null,
      warnings: [],
    });
  });

  test("turns a switch off as well as on, and refuses anything else", () => {
    expect(configOf([], { FLOTILLA_INSECURE: "false" }).insecure).toBe(false);
    expect(refusal([], { FLOTILLA_INSECURE: "maybe" })).toContain("FLOTILLA_INSECURE");
  });

  test("warns of a variable that means nothing", () => {
    const { warnings } = configOf([], { FLOTILLA_PROT: "80" });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain("FLOTILLA_PROT");
  });
});

describe("--help", () => {
  test("prints a row for every flag and wins over everything else", () => {
    const config = parseConfig(["--port", "nonsense", "--help"], {});
    if (!("help" in config)) throw new Error("no help");
    for (const flag of [
      "id",
      "peers",
      "join",
      "io-root",
      "retention",
      "disk-reserve",
      "insecure",
    ]) {
      expect(config.help).toMatch(new RegExp(`^  --${flag}\\b.*\\S`, "m"));
    }
  });

  test("is not asked for by the environment", () => {
    expect(configOf([], { FLOTILLA_HELP: "1" }).warnings).toHaveLength(1);
  });
});

describe("a tokens file", () => {
  const ann = { name: "ann", role: "admin", sha256: HASH.toUpperCase() };
  const bob = { name: "bob", role: "viewer", sha256: OTHER_HASH };
  const expected = [
    { name: "ann", role: "admin", sha256: HASH },
    { name: "bob", role: "viewer", sha256: OTHER_HASH },
  ] as const;

  test("is an array or lines, with or without blank ones", () => {
    expect(parseTokensFile(JSON.stringify([ann, bob], null, 2))).toEqual([...expected]);
    const lines = `\uFEFF${JSON.stringify(ann)}\r\n\r\n${JSON.stringify(bob)}\n`;
    expect(parseTokensFile(lines)).toEqual([...expected]);
  });

  test.each([
    ["nothing", "", "holds no token"],
    ["an empty array", "[]", "holds no token"],
    ["no JSON", "ann admin", "line 1"],
    ["a broken second line", `${JSON.stringify(ann)}\n{`, "line 2"],
    ["a broken array", "[{", "as a whole"],
    ["a token in clear", JSON.stringify({ ...ann, token: "x" }), '"token" does not exist'],
    ["no name", JSON.stringify({ ...ann, name: "" }), "name must"],
    ["a name with spaces", JSON.stringify({ ...ann, name: "a b" }), "name must"],
    ["the members' own name", JSON.stringify({ ...ann, name: "executor" }), "members' own"],
    ["an unknown role", JSON.stringify({ ...ann, role: "root" }), "role must"],
    ["a short hash", JSON.stringify({ ...ann, sha256: "abc" }), "sha256 must"],
    ["a number", "7", "must be an object"],
    ["a null in an array", "[null]", "record 1"],
    ["a name twice", JSON.stringify([ann, { ...bob, name: "ann" }]), '"ann" twice'],
    ["a token twice", JSON.stringify([ann, { ...bob, sha256: HASH }]), "its own token"],
  ])("with %s is refused", (_name, text, says) => {
    expect(() => parseTokensFile(text)).toThrow(ConfigError);
    expect(() => parseTokensFile(text)).toThrow(says);
    expect(() => parseTokensFile(text)).toThrow("--tokens-file");
  });
});

describe("a sentence about a value of the environment names the variable", () => {
  const rows: readonly (readonly [Record<string, string>, string, string])[] = [
    [{ FLOTILLA_PORT: "x" }, "FLOTILLA_PORT", "--port"],
    [{ FLOTILLA_ELECTION_TIMEOUT: "2h" }, "FLOTILLA_ELECTION_TIMEOUT", "--election-timeout"],
    [{ FLOTILLA_IO_ROOT: "/does/not/exist" }, "FLOTILLA_IO_ROOT", "--io-root"],
    [{ FLOTILLA_TLS_CERT: "/does/not/exist" }, "FLOTILLA_TLS_CERT", "--tls-cert"],
  ];
  test.each(rows.map((row) => [...row] as const))("%p", (env, variable, flag) => {
    const message = refusal([], env);
    expect(message).toContain(variable);
    expect(message).not.toContain(flag);
  });

  test("and the flag where both were given", () => {
    const message = refusal(["--port", "y"], { FLOTILLA_PORT: "1" });
    expect(message).toContain("--port");
    expect(message).not.toContain("FLOTILLA_PORT");
  });

  test("and each by its own name where two are at odds", () => {
    const message = refusal(["--heartbeat", "200ms"], { FLOTILLA_ELECTION_TIMEOUT: "300ms" });
    expect(message).toContain("FLOTILLA_ELECTION_TIMEOUT must");
    expect(message).toContain("--heartbeat");
    expect(configOf([], { FLOTILLA_DRAIN: "1s" }).fromEnvironment as string[]).toEqual(["drain"]);
  });
});
