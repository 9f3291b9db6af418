/**
 * The table of flags, and what the command line and the environment gave of them: names checked, values not.
 */
import { ConfigError } from "./error.ts";

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
    name: "join",
    value: "URL",
    default: "none",
    meaning: "any member of a running cluster: joins it with an empty folder, as a learner",
  },
  {
    name: "restore",
    value: "FILE",
    default: "none",
    meaning: "begin a new cluster with a backup, in an empty data folder",
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
    name: "tls-cert",
    value: "FILE",
    default: "none: HTTP",
    meaning: "certificate chain (PEM): HTTPS and WSS on the port; with --tls-key",
  },
  { name: "tls-key", value: "FILE", default: "none", meaning: "its private key (PEM)" },
  {
    name: "peer-ca",
    value: "FILE",
    default: "the system's",
    meaning: "certificates (PEM) that sign those of the https:// peers",
  },
  {
    name: "peer-port",
    value: "PORT",
    default: "--port",
    meaning: "port of its own for the peers; with --peer-ca: mutual TLS there",
  },
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

export type FlagName = (typeof FLAGS)[number]["name"];

const ENVIRONMENT_PREFIX = "FLOTILLA_";

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
export class GivenFlags {
  readonly #values = new Map<FlagName, readonly string[]>();
  readonly warnings: string[] = [];
  /** Flags whose value is that of their variable. */
  readonly #fromEnvironment = new Set<FlagName>();

  constructor(argv: readonly string[], env: Readonly<Record<string, string | undefined>>) {
    this.#readEnvironment(env);
    this.#readArguments(argv);
  }

  has(name: FlagName): boolean {
    return this.#values.has(name);
  }

  text(name: FlagName): string | null {
    return this.#values.get(name)?.[0] ?? null;
  }

  get fromEnvironment(): readonly FlagName[] {
    return [...this.#fromEnvironment];
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
        if (!parseSwitch(variable, value)) continue;
        this.#values.set(flag.name, []);
      } else {
        this.#values.set(flag.name, "repeatable" in flag ? splitList(value) : [value]);
      }
      this.#fromEnvironment.add(flag.name);
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
      if (values.length > 0 && !("repeatable" in flag)) {
        throw new ConfigError(`--${name} is given twice: give it once.`);
      }
      values.push(value);
    }
    for (const [name, values] of fromArguments) {
      this.#values.set(name, values);
      this.#fromEnvironment.delete(name);
    }
    // The flag wins over the variable of its twin too: otherwise the pair would be refused as given twice.
    if (fromArguments.has("secret") && !fromArguments.has("secret-file")) {
      this.#values.delete("secret-file");
      this.#fromEnvironment.delete("secret-file");
    }
    if (fromArguments.has("secret-file") && !fromArguments.has("secret")) {
      this.#values.delete("secret");
      this.#fromEnvironment.delete("secret");
    }
  }
}

/** The sentence about a flag, with the names that the operator used: the variable where that gave the value. */
export function asGiven(sentence: string, fromEnvironment: readonly FlagName[]): string {
  return sentence.replace(/--([a-z]+(?:-[a-z]+)*)/g, (flag, name: string) =>
    fromEnvironment.some((given) => given === name) ? variableOf(name) : flag,
  );
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

/** Items of a comma-separated list, trimmed, without empty ones. */
export function splitList(text: string): readonly string[] {
  return text
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}
