/**
 * JSON whose opaque members keep the bytes that were sent: `1.0`, `1e400`, integers beyond 2^53 and the
 * spaces inside a payload survive, because nobody parses and prints them again.
 *
 * It does not judge shapes (validation.ts does); it refuses what is not JSON, what is nested too deeply, and
 * repeated keys outside opaque members, where two readers could see two different requests.
 */

import { scan } from "./json-scan.ts";
import { type OpaquePath, RawJson, stringEnd } from "./raw-json-text.ts";

export { type OpaquePath, RawJson } from "./raw-json-text.ts";

/** Nesting of objects and arrays, opaque members included: far above any honest request, far below any stack. */
export const JSON_DEPTH_MAX = 128;

/**
 * Members of one object, and elements of one array, outside opaque members: twice what any request may hold.
 * Without it a body of 8 MiB full of tiny members would occupy the thread for seconds, to be refused then.
 */
export const JSON_MEMBERS_MAX = 2_000;

const SCAN_LIMITS = { depth: JSON_DEPTH_MAX, members: JSON_MEMBERS_MAX };

export type JsonFaultCode = "malformed-json" | "too-deep" | "too-many-members" | "duplicate-key";

export class JsonFault extends Error {
  override name = "JsonFault";
  constructor(
    readonly reason: JsonFaultCode,
    message: string,
    /** JSON Pointer of the offending member, or null when there is none. */
    readonly pointer: string | null = null,
  ) {
    super(message);
  }
}

/** One more step of a JSON Pointer (RFC 6901), well-formed whatever the key holds. */
export function pointerTo(parent: string, key: string | number): string {
  const step = String(key).toWellFormed().replaceAll("~", "~0").replaceAll("/", "~1");
  return `${parent}/${step.length > 100 ? `${step.slice(0, 100).toWellFormed()}…` : step}`;
}

/**
 * Parses `text`; members at `opaque` paths come back as `RawJson`. Objects have no prototype, so a key named
 * `__proto__` or `constructor` is a key like any other.
 * @throws JsonFault
 */
export function parseKeeping(text: string, opaque: readonly OpaquePath[]): unknown {
  try {
    return scan(text, opaque, SCAN_LIMITS);
  } catch {
    return parseCarefully(text, opaque);
  }
}

/** Says what is wrong, and takes three passes for it. */
function parseCarefully(text: string, opaque: readonly OpaquePath[]): unknown {
  checkDepth(text);
  try {
    // The grammar's judge; the walk below may then assume valid JSON.
    JSON.parse(text);
  } catch (error) {
    throw new JsonFault(
      "malformed-json",
      `The body is not JSON: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  return new Walk(text).value(opaque, "");
}

/** Runs before JSON.parse, so it holds for text that is not JSON too. */
function checkDepth(text: string): void {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === 0x22) at = stringEnd(text, at) - 1;
    else if (code === 0x7b || code === 0x5b) {
      if (++depth > JSON_DEPTH_MAX) {
        throw new JsonFault(
          "too-deep",
          `The body nests objects and arrays more than ${JSON_DEPTH_MAX} deep.`,
        );
      }
    } else if (code === 0x7d || code === 0x5d) depth--;
  }
}

/** A cursor over text that is known to be JSON. */
class Walk {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  value(opaque: readonly OpaquePath[], pointer: string): unknown {
    this.#space();
    const start = this.#at;
    if (opaque.some((path) => path.length === 0)) {
      this.#skip();
      return new RawJson(this.#text.slice(start, this.#at));
    }
    const code = this.#text.charCodeAt(start);
    if (code === 0x7b) return this.#object(opaque, pointer);
    if (code === 0x5b) return this.#array(opaque, pointer);
    this.#skip();
    return JSON.parse(this.#text.slice(start, this.#at)) as unknown;
  }

  #object(opaque: readonly OpaquePath[], pointer: string): Record<string, unknown> {
    const members: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
    let count = 0;
    this.#at++;
    for (this.#space(); this.#text[this.#at] !== "}"; this.#space()) {
      if (++count > JSON_MEMBERS_MAX) throw tooMany(pointer);
      if (this.#text[this.#at] === ",") {
        this.#at++;
        this.#space();
      }
      const start = this.#at;
      this.#at = stringEnd(this.#text, start);
      const key = JSON.parse(this.#text.slice(start, this.#at)) as string;
      const member = pointerTo(pointer, key);
      if (key in members) {
        throw new JsonFault("duplicate-key", `The body has ${member} more than once.`, member);
      }
      this.#space();
      this.#at++; // the colon
      members[key] = this.value(below(opaque, key), member);
    }
    this.#at++;
    return members;
  }

  #array(opaque: readonly OpaquePath[], pointer: string): unknown[] {
    const items: unknown[] = [];
    const inside = below(opaque, "*");
    this.#at++;
    for (this.#space(); this.#text[this.#at] !== "]"; this.#space()) {
      if (items.length >= JSON_MEMBERS_MAX) throw tooMany(pointer);
      if (this.#text[this.#at] === ",") this.#at++;
      items.push(this.value(inside, pointerTo(pointer, items.length)));
    }
    this.#at++;
    return items;
  }

  /** Moves behind the value that starts here, of whatever kind, without building it. */
  #skip(): void {
    let depth = 0;
    do {
      this.#space();
      const code = this.#text.charCodeAt(this.#at);
      if (code === 0x22) this.#at = stringEnd(this.#text, this.#at);
      else if (code === 0x7b || code === 0x5b) {
        depth++;
        this.#at++;
      } else if (code === 0x7d || code === 0x5d) {
        depth--;
        this.#at++;
      } else if (code === 0x2c || code === 0x3a) this.#at++;
      else this.#scalar();
    } while (depth > 0);
  }

  #scalar(): void {
    for (; this.#at < this.#text.length; this.#at++) {
      const code = this.#text.charCodeAt(this.#at);
      // , ] } and white space end a number or a word
      if (code === 0x2c || code === 0x5d || code === 0x7d || code <= 0x20) return;
    }
  }

  #space(): void {
    while (this.#text.charCodeAt(this.#at) <= 0x20) this.#at++;
  }
}

function tooMany(pointer: string): JsonFault {
  return new JsonFault(
    "too-many-members",
    `${pointer === "" ? "The body" : pointer} has more than ${JSON_MEMBERS_MAX} members.`,
    pointer,
  );
}

/** The opaque paths that go on below `key`. */
function below(opaque: readonly OpaquePath[], key: string): readonly OpaquePath[] {
  if (opaque.length === 0) return opaque;
  return opaque.filter((path) => path[0] === key).map((path) => path.slice(1));
}
