/** The tokens file: who may do what, by the hash of a token. */
import { ConfigError } from "./error.ts";

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

/** Every request hashes its token once and looks it up; a file beyond this is a mistake. */
const MAX_TOKENS = 10_000;
const TOKEN_NAME_PATTERN = /^[\x21-\x7e]{1,64}$/;
/** Principals of the members' own executors and of whoever asks an open queue: a token of theirs could take over. */
const RESERVED_NAMES: ReadonlySet<string> = new Set(["executor", "anonymous"]);

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
  if (RESERVED_NAMES.has(name)) {
    throw wrong(`the name ${JSON.stringify(name)} is the members' own, give another one`);
  }
  const knownRole = TOKEN_ROLES.find((candidate) => candidate === role);
  if (knownRole === undefined) throw wrong(`role must be one of ${TOKEN_ROLES.join(", ")}`);
  if (typeof sha256 !== "string" || !/^[0-9a-f]{64}$/i.test(sha256)) {
    throw wrong("sha256 must be the 64 hex digits of the token's SHA-256");
  }
  return { name, role: knownRole, sha256: sha256.toLowerCase() };
}
