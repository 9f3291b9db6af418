/**
 * What a member was told on its command line and in its environment, checked once at start.
 *
 * `parseConfig` reads flags and `FLOTILLA_*` variables, opens the files that they name (tokens, secret) and
 * refuses what is wrong with one sentence that names the flag and the mend. It does not listen, log or
 * exit: the composition root does (exit code 2 for a `ConfigError`).
 */
import { readFileSync, realpathSync, statSync } from "node:fs";
import { resolve } from "node:path";
import {
  parseAdvertise,
  parseAllowNet,
  isLoopbackHost,
  parseHost,
  parseOrigin,
} from "./config/addresses.ts";
import { ConfigError } from "./config/error.ts";
import { asGiven, type FlagName, GivenFlags, helpText, splitList } from "./config/flags.ts";
import {
  boundedDuration,
  boundedSize,
  integerFlag,
  MEMBER_BOUNDS,
  oneOf,
  parseSize,
} from "./config/quantities.ts";
import { parsePeerCa, parseTls, type TlsFiles } from "./config/tls-files.ts";
import { parseTokensFile, type TokenRecord } from "./config/tokens-file.ts";
import { SETTING_LIMITS } from "./queue/settings.ts";
import { asNodeId, type NodeId } from "./raft/types.ts";

export { isLoopbackHost, originOf } from "./config/addresses.ts";
export { ConfigError } from "./config/error.ts";
export { asGiven } from "./config/flags.ts";
export { parseTokensFile } from "./config/tokens-file.ts";

export const BUILTIN_HANDLERS = ["echo", "compute", "io", "http", "sleep", "fail", "*"] as const;
export type BuiltinHandler = (typeof BUILTIN_HANDLERS)[number];

const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;
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
  /** Origin of a member of the cluster that an empty folder joins, or null. */
  readonly join: string | null;
  /** A backup to begin a new cluster with; null: none. */
  readonly restore: string | null;
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
  /** HTTPS and WSS on the port; null: HTTP. */
  readonly tls: TlsFiles | null;
  /** PEM: who may have signed the certificates of `https://` peers; null: whom the system trusts. */
  readonly peerCa: string | null;
  /** Members connect here and not at `port`; null: at `port`. */
  readonly peerPort: number | null;
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
  /** Flags whose value came from their variable; `asGiven` then speaks of that. */
  readonly fromEnvironment: readonly FlagName[];
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

const MIN_SECRET_CHARACTERS = 16;
const MAX_CONCURRENCY = 1_000;
/** Far beyond any cluster that Raft serves well; keeps dial loops and messages bounded. */
const MAX_PEERS = 63;
const ID_PATTERN = /^[a-z0-9-]{1,32}$/;

/**
 * @param argv flags only, without the runtime and the script
 * @throws ConfigError one sentence that names the flag and the mend
 */
export function parseConfig(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  surroundings: ConfigSurroundings = { isTerminal: process.stdout.isTTY },
): Config | { readonly help: string } {
  const given = new GivenFlags(argv, env);
  if (given.has("help")) return { help: helpText() };
  try {
    return configOf(given, surroundings);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError(asGiven(error.message, given.fromEnvironment));
  }
}

function configOf(given: GivenFlags, surroundings: ConfigSurroundings): Config {
  const id = parseId(given.text("id") ?? "n1");
  const host = parseHost(given.text("host") ?? "127.0.0.1");
  const port = integerFlag("port", given.text("port") ?? "3000", 0, 65_535);
  const tls = parseTls(
    readOptional("tls-cert", given.text("tls-cert")),
    readOptional("tls-key", given.text("tls-key")),
  );
  const scheme = tls === null ? "http" : "https";
  const advertise = parseAdvertise(given.text("advertise"), scheme, host, port);
  const heartbeatMs = boundedDuration(
    "heartbeat",
    given.text("heartbeat") ?? "50ms",
    MEMBER_BOUNDS.heartbeat,
  );
  const electionTimeoutMs = boundedDuration(
    "election-timeout",
    given.text("election-timeout") ?? "300ms",
    MEMBER_BOUNDS["election-timeout"],
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

  const peers = parsePeers(given.text("peers"), id);
  const join = parseJoin(given.text("join"), advertise);
  const peerCa = parsePeerCa(readOptional("peer-ca", given.text("peer-ca")));
  return {
    id,
    host,
    port,
    advertise,
    data: given.text("data") ?? `./data/${id}`,
    peers,
    join,
    restore: parseRestore(given.text("restore"), join),
    concurrency: integerFlag("concurrency", given.text("concurrency") ?? "10", 0, MAX_CONCURRENCY),
    handlers,
    builtin: parseBuiltin(given.text("builtin"), handlers !== null),
    ioRoots: given.list("io-root").map(parseIoRoot),
    allowNet: given.list("allow-net").map(parseAllowNet),
    secret,
    tokens,
    insecure,
    tls,
    peerCa,
    peerPort: parsePeerPort(
      given.text("peer-port"),
      port,
      peers !== null,
      tls === null && peerCa !== null,
    ),
    heartbeatMs,
    electionTimeoutMs,
    requestTimeoutMs: boundedDuration(
      "request-timeout",
      given.text("request-timeout") ?? "5s",
      MEMBER_BOUNDS["request-timeout"],
    ),
    drainMs: boundedDuration("drain", given.text("drain") ?? "30s", MEMBER_BOUNDS.drain),
    logLevel: oneOf("log-level", given.text("log-level") ?? "info", LOG_LEVELS),
    logFormat: oneOf(
      "log-format",
      given.text("log-format") ?? (surroundings.isTerminal ? "pretty" : "json"),
      ["pretty", "json"] as const,
    ),
    diskReserveBytes: parseSize("disk-reserve", given.text("disk-reserve") ?? "1GiB"),
    settings: parseSettings(given),
    warnings: given.warnings,
    fromEnvironment: given.fromEnvironment,
  };
}

function parseId(text: string): NodeId {
  if (ID_PATTERN.test(text)) return asNodeId(text);
  throw new ConfigError(
    `--id ${JSON.stringify(text)} is not a member name: use 1 to 32 of a-z, 0-9 and -.`,
  );
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

function parseJoin(text: string | null, advertise: string | null): string | null {
  if (text === null) return null;
  const url = parseOrigin("join", text);
  if (url !== advertise) return url;
  throw new ConfigError(
    `--join ${JSON.stringify(text)} is this member's own address: give that of a member of the running cluster.`,
  );
}

function parsePeerPort(
  text: string | null,
  port: number,
  hasPeers: boolean,
  lacksCertificate: boolean,
): number | null {
  if (text === null) return null;
  const peerPort = integerFlag("peer-port", text, 1, 65_535);
  if (peerPort === port) {
    throw new ConfigError("--peer-port is --port: give another one, or leave it out.");
  }
  // The log holds the addresses for clients; those of the peers' ports only --peers can tell.
  if (!hasPeers) {
    throw new ConfigError(
      "--peer-port needs --peers: name every member with the address of its peers' port.",
    );
  }
  if (lacksCertificate) {
    throw new ConfigError(
      "--peer-port with --peer-ca is mutual TLS: give --tls-cert and --tls-key too.",
    );
  }
  return peerPort;
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

function parseRestore(file: string | null, join: string | null): string | null {
  if (file !== null && join !== null) {
    throw new ConfigError(
      "--restore begins a new cluster and --join enters one that exists: give one of them.",
    );
  }
  return file;
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
    leaseMs: lease === null ? null : boundedDuration("lease", lease, SETTING_LIMITS.lease),
    retentionMs: retention === null ? {} : parseRetention(retention),
    maxPayloadBytes:
      maxPayload === null
        ? null
        : boundedSize("max-payload", maxPayload, SETTING_LIMITS.max_payload),
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
    retention[status] = boundedDuration(
      "retention",
      item.slice(equals + 1).trim(),
      SETTING_LIMITS.retention,
    );
  }
  return retention;
}

function statOf(path: string): ReturnType<typeof statSync> | null {
  try {
    return statSync(path);
  } catch {
    return null;
  }
}

function readOptional(flag: FlagName, path: string | null): string | null {
  return path === null ? null : readTextFile(flag, path);
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
