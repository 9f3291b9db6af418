/**
 * What a member was told on its command line and in its environment, checked once at start.
 *
 * `parseConfig` reads flags and `FLOTILLA_*` variables, opens the files that they name (tokens, secret) and
 * refuses what is wrong with one sentence that names the flag and the mend. It does not listen, log or
 * exit: the composition root does (exit code 2 for a `ConfigError`).
 */
import { readFileSync, realpathSync, statSync } from "node:fs";
import { isIP } from "node:net";
import { resolve } from "node:path";
import { asNodeId, type NodeId } from "./raft/types.ts";

/** A flag, a variable or a file that it names is wrong. The message is one sentence for the operator. */
export class ConfigError extends Error {
  override name = "ConfigError";
}

export const TOKEN_ROLES = ["viewer", "producer", "worker", "operator", "admin"] as const;
/** From the weakest to the strongest; each may do what those before it may. */
export type TokenRole = (typeof TOKEN_ROLES)[number];

/** One API token: the file holds its hash only. */
export interface TokenRecord {
  /** Who holds it; appears as the principal. Unique in the file. */
  readonly name: string;
  readonly role: TokenRole;
  /** SHA-256 of the token's UTF-8 bytes, 64 lower-case hex digits. */
  readonly sha256: string;
}

export const BUILTIN_HANDLERS = ["echo", "compute", "io", "http", "sleep", "fail", "*"] as const;
export type BuiltinHandler = (typeof BUILTIN_HANDLERS)[number];

export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export type LogFormat = "pretty" | "json";

/** Durations in milliseconds, sizes in bytes. */
export interface Config {
  readonly id: NodeId;
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** Origin without a trailing slash; null only while `port` is 0: then `originOf(host, bound port)`. */
  readonly advertise: string | null;
  readonly data: string;
  /** Addresses that THIS member dials, itself included; null: a cluster of one. */
  readonly peers: ReadonlyMap<NodeId, string> | null;
  readonly concurrency: number;
  /** Absolute path of the module of handlers, or null. */
  readonly handlers: string | null;
  /** Built-in handlers to load: all without `--handlers`, none with it, unless `--builtin` names them. */
  readonly builtin: readonly BuiltinHandler[];
  /** Real paths of folders that `io` may read. */
  readonly ioRoots: readonly string[];
  /** Lower-case host names, addresses and CIDR ranges. */
  readonly allowNet: readonly string[];
  readonly secret: string | null;
  /** null: open, everybody may do everything. */
  readonly tokens: readonly TokenRecord[] | null;
  readonly insecure: boolean;
  readonly heartbeatMs: number;
  readonly electionTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly drainMs: number;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
  readonly diskReserveBytes: number;
  /** Cluster-wide settings, as far as flags gave them: they count at the bootstrap only. */
  readonly settings: SettingsFlags;
  /** Sentences to log at start. */
  readonly warnings: readonly string[];
}

export interface SettingsFlags {
  readonly leaseMs: number | null;
  /** Only the parts that were named, milliseconds. */
  readonly retentionMs: {
    readonly completed?: number;
    readonly cancelled?: number;
    readonly failed?: number;
  };
  readonly maxPayloadBytes: number | null;
}

/** What the process knows beside flags and variables. */
export interface ConfigSurroundings {
  /** Standard output is a terminal: decides the default of `--log-format`. */
  readonly isTerminal: boolean;
}

interface FlagRow {
  readonly name: string;
  /** Name of the value in the help text; null for a switch. */
  readonly value: string | null;
  readonly repeatable?: true;
  readonly default: string;
  readonly meaning: string;
}

const FLAGS = [
  { name: "id", value: "NAME", default: "n1", meaning: "member name, [a-z0-9-]{1,32}" },
  { name: "host", value: "HOST", default: "127.0.0.1", meaning: "address to listen on" },
  { name: "port", value: "PORT", default: "3000", meaning: "port to listen on; 0: any free one" },
  {
    name: "advertise",
    value: "URL",
    default: "http://HOST:PORT",
    meaning: "address told to clients and members; required with a wildcard host",
  },
  { name: "data", value: "FOLDER", default: "./data/ID", meaning: "folder of this member's files" },
  {
    name: "peers",
    value: "ID=URL,…",
    default: "none",
    meaning: "the first membership, itself included; none: a cluster of one",
  },
  {
    name: "concurrency",
    value: "N",
    default: "10",
    meaning: "tasks run at once here, 0 to 1000; 0: executes none",
  },
  {
    name: "handlers",
    value: "FILE",
    default: "built-in",
    meaning: "module of task handlers; replaces the built-in ones",
  },
  {
    name: "builtin",
    value: "NAME,…",
    default: "all, or none",
    meaning: "built-in handlers to load; with --handlers: to keep beside them",
  },
  {
    name: "io-root",
    value: "FOLDER",
    repeatable: true,
    default: "none",
    meaning: "folder that io may read (repeatable)",
  },
  {
    name: "allow-net",
    value: "HOST|CIDR",
    repeatable: true,
    default: "public",
    meaning: "private addresses that io and http may reach (repeatable)",
  },
  {
    name: "secret",
    value: "TEXT",
    default: "none",
    meaning: "shared secret of the members, at least 16 characters",
  },
  { name: "secret-file", value: "FILE", default: "none", meaning: "file that holds the secret" },
  {
    name: "tokens-file",
    value: "FILE",
    default: "none: open",
    meaning: "API tokens: JSON lines of {name, role, sha256}",
  },
  {
    name: "insecure",
    value: null,
    default: "off",
    meaning: "listen beyond loopback without tokens and a secret",
  },
  { name: "heartbeat", value: "TIME", default: "50ms", meaning: "between heartbeats of a leader" },
  {
    name: "election-timeout",
    value: "TIME",
    default: "300ms",
    meaning: "T: drawn anew from [T, 2T); at least 3 heartbeats",
  },
  {
    name: "request-timeout",
    value: "TIME",
    default: "5s",
    meaning: "the longest a write or a linearizable read waits",
  },
  {
    name: "drain",
    value: "TIME",
    default: "30s",
    meaning: "the longest that running tasks may take on shutdown",
  },
  { name: "log-level", value: "LEVEL", default: "info", meaning: "debug, info, warn or error" },
  {
    name: "log-format",
    value: "FORMAT",
    default: "by terminal",
    meaning: "pretty or json; pretty on a terminal, else json",
  },
  {
    name: "disk-reserve",
    value: "SIZE",
    default: "1GiB",
    meaning: "below it submits are refused; below a sixteenth, everything",
  },
  {
    name: "lease",
    value: "TIME",
    default: "15s",
    meaning: "cluster-wide, at the bootstrap: lease of a claimed task",
  },
  {
    name: "retention",
    value: "STATUS=TIME,…",
    default: "completed=24h,…",
    meaning: "cluster-wide, at the bootstrap: completed=24h,cancelled=24h,failed=7d",
  },
  {
    name: "max-payload",
    value: "SIZE",
    default: "256KiB",
    meaning: "cluster-wide, at the bootstrap: payload and result",
  },
  { name: "help", value: null, default: "", meaning: "print this table" },
] as const satisfies readonly FlagRow[];

type FlagName = (typeof FLAGS)[number]["name"];

/** Keeps a mistyped unit from becoming a timer of weeks; each bound is far beyond any sensible value. */
const BOUNDS = {
  heartbeat: { min: "1ms", max: "10s" },
  "election-timeout": { min: "10ms", max: "60s" },
  "request-timeout": { min: "10ms", max: "10m" },
  drain: { min: "0s", max: "1h" },
  lease: { min: "100ms", max: "24h" },
  retention: { min: "0s", max: "3650d" },
} as const;

/** A whole request body is at most 8 MiB, and the payload is inside it with its JSON around it. */
const MAX_PAYLOAD_CEILING = 4 * 1024 * 1024;
const MIN_PAYLOAD_CEILING = 1024;
const MIN_SECRET_CHARACTERS = 16;
const MAX_CONCURRENCY = 1_000;
/** Far beyond any cluster that Raft serves well; keeps dial loops and messages bounded. */
const MAX_PEERS = 63;
/** Every request hashes its token once and looks it up; a file beyond this is a mistake. */
const MAX_TOKENS = 10_000;

const ID_PATTERN = /^[a-z0-9-]{1,32}$/;
const TOKEN_NAME_PATTERN = /^[\x21-\x7e]{1,64}$/;
const HOSTNAME_PATTERN =
  /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/;
const ENVIRONMENT_PREFIX = "FLOTILLA_";

/**
 * @param argv flags only, without the runtime and the script
 * @throws ConfigError one sentence that names the flag and the mend
 */
export function parseConfig(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  surroundings: ConfigSurroundings = { isTerminal: process.stdout.isTTY === true },
): Config | { readonly help: string } {
  const given = new GivenFlags(argv, env);
  if (given.has("help")) return { help: helpText() };

  const id = parseId(given.text("id") ?? "n1");
  const host = parseHost(given.text("host") ?? "127.0.0.1");
  const port = integerFlag("port", given.text("port") ?? "3000", 0, 65_535);
  const advertise = parseAdvertise(given.text("advertise"), host, port);
  const heartbeatMs = boundedDuration("heartbeat", given.text("heartbeat") ?? "50ms");
  const electionTimeoutMs = boundedDuration(
    "election-timeout",
    given.text("election-timeout") ?? "300ms",
  );
  if (electionTimeoutMs < 3 * heartbeatMs) {
    throw new ConfigError(
      `--election-timeout must be at least three times --heartbeat (${heartbeatMs} ms): ` +
        `give ${3 * heartbeatMs}ms or more, or a shorter --heartbeat.`,
    );
  }

  const handlers = parseHandlers(given.text("handlers"));
  const secret = parseSecret(given.text("secret"), given.text("secret-file"));
  const tokensFile = given.text("tokens-file");
  const tokens =
    tokensFile === null ? null : parseTokensFile(readTextFile("tokens-file", tokensFile));
  const insecure = given.has("insecure");
  if (!isLoopbackHost(host) && !insecure && (tokens === null || secret === null)) {
    throw new ConfigError(
      `--host ${host} can be reached from other machines: give both --tokens-file and --secret ` +
        `(or --secret-file), or accept an open queue with --insecure.`,
    );
  }

  return {
    id,
    host,
    port,
    advertise,
    data: given.text("data") ?? `./data/${id}`,
    peers: parsePeers(given.text("peers"), id),
    concurrency: integerFlag("concurrency", given.text("concurrency") ?? "10", 0, MAX_CONCURRENCY),
    handlers,
    builtin: parseBuiltin(given.text("builtin"), handlers !== null),
    ioRoots: given.list("io-root").map(parseIoRoot),
    allowNet: given.list("allow-net").map(parseAllowNet),
    secret,
    tokens,
    insecure,
    heartbeatMs,
    electionTimeoutMs,
    requestTimeoutMs: boundedDuration("request-timeout", given.text("request-timeout") ?? "5s"),
    drainMs: boundedDuration("drain", given.text("drain") ?? "30s"),
    logLevel: oneOf("log-level", given.text("log-level") ?? "info", LOG_LEVELS),
    logFormat: oneOf(
      "log-format",
      given.text("log-format") ?? (surroundings.isTerminal ? "pretty" : "json"),
      ["pretty", "json"] as const,
    ),
    diskReserveBytes: parseSize("disk-reserve", given.text("disk-reserve") ?? "1GiB"),
    settings: parseSettings(given),
    warnings: given.warnings,
  };
}

/** `http://HOST:PORT`, with brackets around an IPv6 address. */
export function originOf(host: string, port: number): string {
  return new URL(`http://${isIP(host) === 6 ? `[${host}]` : host}:${port}`).origin;
}

/** Only this machine can reach it: 127.0.0.0/8, ::1, localhost. */
export function isLoopbackHost(host: string): boolean {
  if (host === "localhost" || host === "::1") return true;
  return isIP(host) === 4 && host.startsWith("127.");
}

/**
 * Reads a tokens file: a JSON array, or one JSON object a line, of `{name, role, sha256}`.
 * @throws ConfigError that names --tokens-file and the record
 */
export function parseTokensFile(text: string): readonly TokenRecord[] {
  const records = readTokenRecords(text).map(parseTokenRecord);
  if (records.length === 0) {
    throw new ConfigError(
      "--tokens-file holds no token: nobody could sign in; add a line with name, role and sha256.",
    );
  }
  if (records.length > MAX_TOKENS) {
    throw new ConfigError(
      `--tokens-file holds ${records.length} tokens: keep at most ${MAX_TOKENS}.`,
    );
  }
  const names = new Set<string>();
  const hashes = new Set<string>();
  for (const record of records) {
    if (names.has(record.name)) {
      throw new ConfigError(
        `--tokens-file names ${JSON.stringify(record.name)} twice: give each token its own name.`,
      );
    }
    if (hashes.has(record.sha256)) {
      throw new ConfigError(
        `--tokens-file holds the token of ${JSON.stringify(record.name)} twice: ` +
          "give each name its own token.",
      );
    }
    names.add(record.name);
    hashes.add(record.sha256);
  }
  return records;
}

/** The table that `--help` prints. */
export function helpText(): string {
  const rows = FLAGS.map((flag): readonly [string, string, string] => [
    flag.value === null ? `--${flag.name}` : `--${flag.name} ${flag.value}`,
    flag.default,
    flag.meaning,
  ]);
  const header = ["flag", "default", "meaning"] as const;
  const widthOf = (column: 0 | 1): number =>
    Math.max(header[column].length, ...rows.map((row) => row[column].length));
  const flagWidth = widthOf(0);
  const defaultWidth = widthOf(1);
  const line = (row: readonly [string, string, string]): string =>
    `  ${row[0].padEnd(flagWidth)}  ${row[1].padEnd(defaultWidth)}  ${row[2]}`;
  return [
    "flotilla: a distributed task queue that is its own database",
    "",
    "usage: bun run src/node.ts [flags]",
    "",
    line(header),
    ...rows.map(line),
    "",
    "TIME is a number with ms, s, m, h or d; SIZE is bytes, or a number with KiB, MiB, GiB, KB, MB, GB.",
    "Every flag may come from the environment: FLOTILLA_ELECTION_TIMEOUT=500ms; a flag wins over it,",
    "and a repeatable one is a comma-separated list there.",
    "",
  ].join("\n");
}

/** Flags and variables as they were given: names checked, values not. */
class GivenFlags {
  readonly #values = new Map<FlagName, readonly string[]>();
  readonly warnings: string[] = [];

  constructor(argv: readonly string[], env: Readonly<Record<string, string | undefined>>) {
    this.#readEnvironment(env);
    this.#readArguments(argv);
  }

  has(name: FlagName): boolean {
    return this.#values.has(name);
  }

  /** The last value wins, as it does everywhere on a command line. */
  text(name: FlagName): string | null {
    return this.#values.get(name)?.at(-1) ?? null;
  }

  list(name: FlagName): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  #readEnvironment(env: Readonly<Record<string, string | undefined>>): void {
    for (const [variable, value] of Object.entries(env)) {
      if (!variable.startsWith(ENVIRONMENT_PREFIX)) continue;
      // An empty variable is how a shell or a compose file says "not set".
      if (value === undefined || value === "") continue;
      const flag = FLAGS.find((row) => variableOf(row.name) === variable);
      if (flag === undefined || flag.name === "help") {
        this.warnings.push(`${variable} is not a variable of flotilla and was ignored.`);
        continue;
      }
      if (flag.value === null) {
        if (parseSwitch(variable, value)) this.#values.set(flag.name, []);
        continue;
      }
      const items = "repeatable" in flag ? splitList(value) : [value];
      this.#values.set(flag.name, items);
    }
  }

  #readArguments(argv: readonly string[]): void {
    const fromArguments = new Map<FlagName, string[]>();
    for (let at = 0; at < argv.length; at++) {
      const argument = argv[at] ?? "";
      if (argument === "-h") {
        fromArguments.set("help", []);
        continue;
      }
      const match = /^--([^=]+)(?:=(.*))?$/s.exec(argument);
      if (match === null) {
        throw new ConfigError(
          `${JSON.stringify(argument)} is not a flag: flags start with -- (see --help).`,
        );
      }
      const name = match[1] ?? "";
      const flag = FLAGS.find((row) => row.name === name);
      if (flag === undefined) throw new ConfigError(unknownFlagMessage(name));
      const values = fromArguments.get(flag.name) ?? [];
      fromArguments.set(flag.name, values);
      let value = match[2];
      if (flag.value === null) {
        if (value !== undefined) {
          throw new ConfigError(`--${name} takes no value: give it alone, or leave it out.`);
        }
        continue;
      }
      const next = argv[at + 1];
      if (value === undefined && next !== undefined && !next.startsWith("--")) {
        value = next;
        at++;
      }
      if (value === undefined || value === "") {
        throw new ConfigError(`--${name} needs a value: give it as --${name} ${flag.value}.`);
      }
      values.push(value);
    }
    for (const [name, values] of fromArguments) this.#values.set(name, values);
    // The flag wins over the variable of its twin too: otherwise the pair would be refused as given twice.
    if (fromArguments.has("secret") && !fromArguments.has("secret-file")) {
      this.#values.delete("secret-file");
    }
    if (fromArguments.has("secret-file") && !fromArguments.has("secret")) {
      this.#values.delete("secret");
    }
  }
}

function variableOf(flag: string): string {
  return ENVIRONMENT_PREFIX + flag.toUpperCase().replaceAll("-", "_");
}

function unknownFlagMessage(name: string): string {
  const close = FLAGS.find((row) => row.name.startsWith(name) || name.startsWith(row.name));
  const hint = close === undefined ? "see --help for the flags" : `did you mean --${close.name}?`;
  return close === undefined
    ? `--${name} is not a flag of flotilla: ${hint}.`
    : `--${name} is not a flag of flotilla: ${hint}`;
}

function parseSwitch(variable: string, value: string): boolean {
  switch (value.toLowerCase()) {
    case "1":
    case "true":
    case "yes":
    case "on":
      return true;
    case "0":
    case "false":
    case "no":
    case "off":
      return false;
    default:
      throw new ConfigError(
        `${variable} is a switch: set it to 1 or 0, not ${JSON.stringify(value)}.`,
      );
  }
}

function splitList(text: string): readonly string[] {
  return text
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}

function parseId(text: string): NodeId {
  if (ID_PATTERN.test(text)) return asNodeId(text);
  throw new ConfigError(
    `--id ${JSON.stringify(text)} is not a member name: use 1 to 32 of a-z, 0-9 and -.`,
  );
}

function parseHost(text: string): string {
  const host = text.replace(/^\[(.*)\]$/, "$1").toLowerCase();
  if (isIP(host) !== 0 || (HOSTNAME_PATTERN.test(host) && !looksLikeAddress(host))) return host;
  throw new ConfigError(
    `--host ${JSON.stringify(text)} is neither a host name nor an address: ` +
      "give one without scheme and port, such as 127.0.0.1.",
  );
}

/** Digits and dots only: meant as an IPv4 address, and if `isIP` refused it, a wrong one. */
function looksLikeAddress(host: string): boolean {
  return /^[0-9.]+$/.test(host);
}

function isWildcardHost(host: string): boolean {
  return host === "0.0.0.0" || (isIP(host) === 6 && /^[0:]+$/.test(host));
}

function parseAdvertise(text: string | null, host: string, port: number): string | null {
  if (text !== null) return parseOrigin("advertise", text);
  if (isWildcardHost(host)) {
    throw new ConfigError(
      `--advertise is needed with --host ${host}: give the URL at which others reach this member.`,
    );
  }
  return port === 0 ? null : originOf(host, port);
}

function parseOrigin(flag: FlagName, text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new ConfigError(
      `--${flag} ${JSON.stringify(text)} is not a URL: write it like http://10.0.0.1:3000.`,
    );
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new ConfigError(`--${flag} ${JSON.stringify(text)} must begin with http:// or https://.`);
  }
  if (
    url.pathname !== "/" ||
    text.includes("?") ||
    text.includes("#") ||
    url.username !== "" ||
    url.password !== ""
  ) {
    throw new ConfigError(
      `--${flag} ${JSON.stringify(text)} must be scheme, host and port only: remove the rest.`,
    );
  }
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  if (isWildcardHost(host)) {
    throw new ConfigError(
      `--${flag} ${JSON.stringify(text)} is a wildcard, which nobody can dial: ` +
        "give the member's own address.",
    );
  }
  return url.origin;
}

function parsePeers(text: string | null, self: NodeId): ReadonlyMap<NodeId, string> | null {
  if (text === null) return null;
  const peers = new Map<NodeId, string>();
  const idOf = new Map<string, NodeId>();
  for (const item of splitList(text)) {
    const equals = item.indexOf("=");
    const name = equals < 0 ? "" : item.slice(0, equals).trim();
    if (!ID_PATTERN.test(name)) {
      throw new ConfigError(
        `--peers holds ${JSON.stringify(item)}: write each member as ID=URL, ` +
          "with 1 to 32 of a-z, 0-9 and - for the id.",
      );
    }
    const id = asNodeId(name);
    const url = parseOrigin("peers", item.slice(equals + 1).trim());
    if (peers.has(id)) {
      throw new ConfigError(`--peers names ${id} twice: give each member once.`);
    }
    const twin = idOf.get(url);
    if (twin !== undefined) {
      throw new ConfigError(
        `--peers gives ${twin} and ${id} the same address ${url}: give each member its own.`,
      );
    }
    peers.set(id, url);
    idOf.set(url, id);
  }
  if (!peers.has(self)) {
    throw new ConfigError(
      `--peers must hold this member too: add ${self}=URL, or correct --id ${self}.`,
    );
  }
  if (peers.size > MAX_PEERS) {
    throw new ConfigError(`--peers holds ${peers.size} members: give at most ${MAX_PEERS}.`);
  }
  return peers;
}

function parseHandlers(text: string | null): string | null {
  if (text === null) return null;
  const path = resolve(text);
  if (statOf(path)?.isFile() === true) return path;
  throw new ConfigError(
    `--handlers ${JSON.stringify(text)} is not a file: give the path of a TypeScript or ` +
      "JavaScript module.",
  );
}

function parseBuiltin(text: string | null, hasHandlers: boolean): readonly BuiltinHandler[] {
  if (text === null) return hasHandlers ? [] : BUILTIN_HANDLERS;
  const names = splitList(text).map((name) => {
    const builtin = BUILTIN_HANDLERS.find((known) => known === name);
    if (builtin !== undefined) return builtin;
    throw new ConfigError(
      `--builtin ${JSON.stringify(name)} does not exist: choose from ${BUILTIN_HANDLERS.join(", ")}.`,
    );
  });
  if (hasHandlers && names.includes("*")) {
    throw new ConfigError(
      "--builtin * cannot be kept beside --handlers, whose names it would take: name the others.",
    );
  }
  if (names.length === 0) {
    throw new ConfigError(
      `--builtin is empty: name some of ${BUILTIN_HANDLERS.join(", ")}, or leave it out.`,
    );
  }
  return [...new Set(names)];
}

function parseIoRoot(text: string): string {
  if (statOf(text)?.isDirectory() === true) return realpathSync(text);
  throw new ConfigError(
    `--io-root ${JSON.stringify(text)} is not a folder: create it, or correct the path.`,
  );
}

function parseAllowNet(text: string): string {
  const lower = text.toLowerCase();
  const slash = lower.indexOf("/");
  if (slash >= 0) {
    const family = isIP(lower.slice(0, slash));
    const prefix = lower.slice(slash + 1);
    const bits = family === 4 ? 32 : 128;
    if (family !== 0 && /^\d{1,3}$/.test(prefix) && Number(prefix) <= bits) return lower;
  } else {
    const host = lower.replace(/^\[(.*)\]$/, "$1");
    if (isIP(host) !== 0) return host;
    if (HOSTNAME_PATTERN.test(host) && !looksLikeAddress(host)) return host;
  }
  throw new ConfigError(
    `--allow-net ${JSON.stringify(text)} is neither a host nor a range: ` +
      "write it like internal.example, 10.0.0.5 or 10.0.0.0/8.",
  );
}

function parseSecret(text: string | null, file: string | null): string | null {
  if (text !== null && file !== null) {
    throw new ConfigError("--secret and --secret-file exclude each other: give only one of them.");
  }
  const flag = file === null ? "secret" : "secret-file";
  const secret = file === null ? text : readTextFile("secret-file", file).trim();
  if (secret === null) return null;
  if (secret.length >= MIN_SECRET_CHARACTERS) return secret;
  throw new ConfigError(
    `--${flag} is too short: use at least ${MIN_SECRET_CHARACTERS} characters.`,
  );
}

function parseSettings(given: GivenFlags): SettingsFlags {
  const lease = given.text("lease");
  const maxPayload = given.text("max-payload");
  const retention = given.text("retention");
  return {
    leaseMs: lease === null ? null : boundedDuration("lease", lease),
    retentionMs: retention === null ? {} : parseRetention(retention),
    maxPayloadBytes: maxPayload === null ? null : parseMaxPayload(maxPayload),
  };
}

function parseRetention(text: string): SettingsFlags["retentionMs"] {
  const retention: { completed?: number; cancelled?: number; failed?: number } = {};
  for (const item of splitList(text)) {
    const equals = item.indexOf("=");
    const status = equals < 0 ? item : item.slice(0, equals).trim();
    if (equals < 0 || (status !== "completed" && status !== "cancelled" && status !== "failed")) {
      throw new ConfigError(
        `--retention holds ${JSON.stringify(item)}: write it like completed=24h,cancelled=24h,failed=7d.`,
      );
    }
    if (retention[status] !== undefined) {
      throw new ConfigError(`--retention names ${status} twice: give each status once.`);
    }
    retention[status] = boundedDuration("retention", item.slice(equals + 1).trim());
  }
  return retention;
}

function parseMaxPayload(text: string): number {
  const bytes = parseSize("max-payload", text);
  if (bytes >= MIN_PAYLOAD_CEILING && bytes <= MAX_PAYLOAD_CEILING) return bytes;
  throw new ConfigError(`--max-payload ${text} is out of range: give 1KiB to 4MiB.`);
}

function integerFlag(flag: FlagName, text: string, min: number, max: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new ConfigError(
    `--${flag} ${JSON.stringify(text)} is not usable: give a whole number from ${min} to ${max}.`,
  );
}

function oneOf<T extends string>(flag: FlagName, text: string, choices: readonly T[]): T {
  const choice = choices.find((candidate) => candidate === text);
  if (choice !== undefined) return choice;
  throw new ConfigError(
    `--${flag} ${JSON.stringify(text)} is not known: choose ${choices.join(", ")}.`,
  );
}

const MILLIS_OF: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

const BYTES_OF: Readonly<Record<string, number>> = {
  "": 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** Milliseconds of `50ms`, `1.5s`, `10m`, `24h`, `7d`, or null. */
function durationMs(text: string): number | null {
  const match = /^(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)$/.exec(text);
  const unit = MILLIS_OF[match?.[2] ?? ""];
  if (match === null || unit === undefined) return null;
  const milliseconds = Math.round(Number(match[1]) * unit);
  return Number.isSafeInteger(milliseconds) ? milliseconds : null;
}

function boundedDuration(flag: keyof typeof BOUNDS, text: string): number {
  const milliseconds = durationMs(text);
  if (milliseconds === null) {
    throw new ConfigError(
      `--${flag} ${JSON.stringify(text)} is not a duration: write a number with ms, s, m, h or d.`,
    );
  }
  const { min, max } = BOUNDS[flag];
  if (milliseconds >= (durationMs(min) ?? 0) && milliseconds <= (durationMs(max) ?? 0)) {
    return milliseconds;
  }
  throw new ConfigError(`--${flag} ${text} is out of range: give ${min} to ${max}.`);
}

function parseSize(flag: FlagName, text: string): number {
  const match = /^(\d{1,15}(?:\.\d{1,6})?)([A-Za-z]*)$/.exec(text);
  const unit = BYTES_OF[match?.[2] ?? "?"];
  const bytes = match === null || unit === undefined ? -1 : Math.round(Number(match[1]) * unit);
  if (bytes >= 0 && Number.isSafeInteger(bytes)) return bytes;
  throw new ConfigError(
    `--${flag} ${JSON.stringify(text)} is not a size: write bytes, or a number with KiB, MiB, GiB, ` +
      "KB, MB or GB.",
  );
}

function statOf(path: string): ReturnType<typeof statSync> | null {
  try {
    return statSync(path);
  } catch {
    return null;
  }
}

function readTextFile(flag: FlagName, path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unreadable";
    throw new ConfigError(
      `--${flag} ${JSON.stringify(path)} cannot be read (${code}): correct the path or its permissions.`,
    );
  }
}

interface RawToken {
  readonly place: string;
  readonly value: unknown;
}

function readTokenRecords(text: string): readonly RawToken[] {
  const trimmed = text.replace(/^\uFEFF/, "").trim();
  if (trimmed.startsWith("[")) {
    const array: unknown = parseTokenJson(trimmed, "as a whole");
    if (Array.isArray(array)) {
      return array.map((value: unknown, at) => ({ place: `record ${at + 1}`, value }));
    }
  }
  return trimmed.split("\n").flatMap((line, at) => {
    const place = `line ${at + 1}`;
    return line.trim() === "" ? [] : [{ place, value: parseTokenJson(line, place) }];
  });
}

function parseTokenJson(text: string, place: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new ConfigError(
      `--tokens-file is not JSON (${place}): write a JSON array, or one object a line.`,
    );
  }
}

function parseTokenRecord({ place, value }: RawToken): TokenRecord {
  const wrong = (what: string): ConfigError => new ConfigError(`--tokens-file, ${place}: ${what}.`);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw wrong("must be an object with name, role and sha256");
  }
  const fields: Readonly<Record<string, unknown>> = { ...value };
  const foreign = Object.keys(fields).find((key) => !["name", "role", "sha256"].includes(key));
  if (foreign !== undefined) {
    throw wrong(`the field ${JSON.stringify(foreign)} does not exist, remove it`);
  }
  const { name, role, sha256 } = fields;
  if (typeof name !== "string" || !TOKEN_NAME_PATTERN.test(name)) {
    throw wrong("name must be 1 to 64 printable ASCII characters without spaces");
  }
  const knownRole = TOKEN_ROLES.find((candidate) => candidate === role);
  if (knownRole === undefined) throw wrong(`role must be one of ${TOKEN_ROLES.join(", ")}`);
  if (typeof sha256 !== "string" || !/^[0-9a-f]{64}$/i.test(sha256)) {
    throw wrong("sha256 must be the 64 hex digits of the token's SHA-256");
  }
  return { name, role: knownRole, sha256: sha256.toLowerCase() };
}
