/**
 * The quick reader of requests: one pass over what clients really send. It never says what is wrong: on anything
 * unusual it throws, and the careful reader (raw-json.ts), which tells JSON from what is none, has the word.
 *
 * What it accepts is JSON: outside opaque members every character is looked at here or by JSON.parse; the text of an
 * opaque member goes through JSON.parse alone.
 */
import { type OpaquePath, RawJson, stringEnd } from "./raw-json-text.ts";

/** Opaque paths as a tree. Keys are exact; `*` stands for the elements of an array, as in the paths. */
interface Opaque {
  /** This very value is opaque. */
  readonly whole: boolean;
  readonly below: ReadonlyMap<string, Opaque>;
}

const NOTHING: Opaque = { whole: false, below: new Map() };
/** By the array that a route passes each time. */
const trees = new WeakMap<readonly OpaquePath[], Opaque>();

/** Its stack tells nothing, and thousands may be thrown. */
const UNUSUAL = new Error("not for the quick reader");

/** Letters and digits of an integer that is exact whatever it is. */
const DIGITS_MAX = 15;
const ESCAPED_OR_CONTROL = /[\\\u0000-\u001f]/; // oxlint-disable-line no-control-regex

function treeOf(paths: readonly OpaquePath[]): Opaque {
  if (paths.length === 0) return NOTHING;
  let tree = trees.get(paths);
  if (tree === undefined) {
    tree = grow(paths);
    trees.set(paths, tree);
  }
  return tree;
}

function grow(paths: readonly OpaquePath[]): Opaque {
  const heads = new Set(paths.flatMap((path) => path.slice(0, 1)));
  const below = [...heads].map((head): [string, Opaque] => {
    const rest = paths.filter((path) => path[0] === head).map((path) => path.slice(1));
    return [head, grow(rest)];
  });
  return { whole: paths.some((path) => path.length === 0), below: new Map(below) };
}

export interface ScanLimits {
  readonly depth: number;
  /** Of one object or array, outside opaque members. */
  readonly members: number;
}

/** @throws Error, always the same or JSON.parse's, when the careful reader has to look. */
export function scan(text: string, paths: readonly OpaquePath[], limits: ScanLimits): unknown {
  return new Scan(text, limits).document(treeOf(paths));
}

class Scan {
  readonly #text: string;
  readonly #limits: ScanLimits;
  #at = 0;

  constructor(text: string, limits: ScanLimits) {
    this.#text = text;
    this.#limits = limits;
  }

  document(opaque: Opaque): unknown {
    const value = this.#value(opaque, 0);
    this.#code();
    if (this.#at !== this.#text.length) throw UNUSUAL;
    return value;
  }

  /** The next character that is no white space, by its code; NaN at the end. */
  #code(): number {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return code;
      this.#at++;
    }
  }

  #value(opaque: Opaque, depth: number): unknown {
    const code = this.#code();
    if (opaque.whole) return new RawJson(this.#raw(code, depth));
    switch (code) {
      case 0x22:
        return this.#string();
      case 0x7b:
        return this.#object(opaque, depth + 1);
      case 0x5b:
        return this.#array(opaque, depth + 1);
      default:
        return this.#scalar();
    }
  }

  #object(opaque: Opaque, depth: number): Record<string, unknown> {
    if (depth > this.#limits.depth) throw UNUSUAL;
    const members: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
    this.#at++;
    if (this.#code() === 0x7d) {
      this.#at++;
      return members;
    }
    for (let count = 1; ; count++) {
      if (count > this.#limits.members || this.#code() !== 0x22) throw UNUSUAL;
      const key = this.#string();
      if (key in members || this.#code() !== 0x3a) throw UNUSUAL;
      this.#at++;
      members[key] = this.#value(opaque.below.get(key) ?? NOTHING, depth);
      const code = this.#code();
      this.#at++;
      if (code === 0x7d) return members;
      if (code !== 0x2c) throw UNUSUAL;
    }
  }

  #array(opaque: Opaque, depth: number): unknown[] {
    if (depth > this.#limits.depth) throw UNUSUAL;
    const items: unknown[] = [];
    const inside = opaque.below.get("*") ?? NOTHING;
    this.#at++;
    if (this.#code() === 0x5d) {
      this.#at++;
      return items;
    }
    for (;;) {
      if (items.length >= this.#limits.members) throw UNUSUAL;
      items.push(this.#value(inside, depth));
      const code = this.#code();
      this.#at++;
      if (code === 0x5d) return items;
      if (code !== 0x2c) throw UNUSUAL;
    }
  }

  #string(): string {
    const start = this.#at;
    const end = this.#text.indexOf('"', start + 1);
    if (end < 0) throw UNUSUAL;
    const inner = this.#text.slice(start + 1, end);
    this.#at = end + 1;
    if (!ESCAPED_OR_CONTROL.test(inner)) return inner;
    this.#at = stringEnd(this.#text, start);
    return JSON.parse(this.#text.slice(start, this.#at)) as string;
  }

  #scalar(): unknown {
    const start = this.#at;
    const end = this.#scalarEnd();
    this.#at = end;
    let whole = 0;
    let at = start;
    for (; at < end; at++) {
      const digit = this.#text.charCodeAt(at) - 0x30;
      if (!(digit >= 0 && digit <= 9)) break;
      whole = whole * 10 + digit;
    }
    const digits = at - start;
    const leadingZero = digits > 1 && this.#text.charCodeAt(start) === 0x30;
    if (at === end && digits > 0 && digits <= DIGITS_MAX && !leadingZero) return whole;
    return JSON.parse(this.#text.slice(start, end)) as unknown;
  }

  /** Of the number or word that starts here. */
  #scalarEnd(): number {
    for (let at = this.#at; ; at++) {
      const code = this.#text.charCodeAt(at);
      // , ] } and white space end it, and so does the end of the text, whose code is no number.
      if (code === 0x2c || code === 0x5d || code === 0x7d || !(code > 0x20)) return at;
    }
  }

  /** The text of the value that starts here, known to be JSON. */
  #raw(code: number, depth: number): string {
    const start = this.#at;
    if (code === 0x22) this.#at = stringEnd(this.#text, start);
    else if (code === 0x7b || code === 0x5b) this.#at = this.#closed(depth);
    else this.#at = this.#scalarEnd();
    const raw = this.#text.slice(start, this.#at);
    JSON.parse(raw);
    return raw;
  }

  /** Behind the bracket that closes the one here. Which kind closes which is JSON.parse's to judge. */
  #closed(depthHere: number): number {
    const text = this.#text;
    let depth = depthHere;
    for (let at = this.#at; at < text.length; at++) {
      const code = text.charCodeAt(at);
      if (code === 0x22) at = stringEnd(text, at) - 1;
      else if (code === 0x7b || code === 0x5b) {
        if (++depth > this.#limits.depth) throw UNUSUAL;
      } else if ((code === 0x7d || code === 0x5d) && --depth === depthHere) return at + 1;
    }
    throw UNUSUAL;
  }
}
