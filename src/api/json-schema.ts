/** The part of JSON Schema that schema.ts speaks, and what its texts have to be. */
import { RawJson } from "./raw-json-text.ts";
import { parseTime } from "./time.ts";

/** JSON Schema as far as schema.ts goes. */
export interface Node {
  readonly type?: "object" | "array" | "string" | "integer" | "number" | "boolean" | "null";
  readonly anyOf?: readonly Node[];
  readonly enum?: readonly string[];
  readonly properties?: Readonly<Record<string, Node>>;
  readonly required?: readonly string[];
  readonly items?: Node;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly format?: string;
  readonly pattern?: string;
  readonly not?: {
    readonly title: string;
    readonly enum?: readonly string[];
    readonly pattern?: string;
  };
  readonly "x-max-bytes"?: number;
  readonly "x-plain"?: boolean;
  readonly "x-raw-json"?: boolean;
}

/** Control characters: they break logs, terminals and SQL text functions, and no name needs them. */
// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f\u007f]/;

/** Of schema.ts, which are few. */
const patterns = new Map<string, RegExp>();

function patternOf(source: string): RegExp {
  let pattern = patterns.get(source);
  if (pattern === undefined) {
    pattern = new RegExp(source);
    patterns.set(source, pattern);
  }
  return pattern;
}

/** What is wrong with a text, or null. */
export function stringFault(node: Node, value: string): string | null {
  if (!value.isWellFormed()) return "holds half a surrogate pair, which is no Unicode text";
  if (value.length < (node.minLength ?? 0)) return "must not be empty";
  const maxBytes = node["x-max-bytes"];
  // A character has three bytes at most.
  if (
    maxBytes !== undefined &&
    value.length * 3 > maxBytes &&
    Buffer.byteLength(value) > maxBytes
  ) {
    return `must be at most ${maxBytes} bytes of UTF-8, not ${Buffer.byteLength(value)}`;
  }
  if (node["x-plain"] === true && CONTROL.test(value)) return "must not hold control characters";
  const { not } = node;
  if (
    not?.enum?.includes(value) === true ||
    (not?.pattern !== undefined && patternOf(not.pattern).test(value))
  ) {
    return not.title;
  }
  if (node.enum !== undefined && !node.enum.includes(value)) {
    return `must be one of ${node.enum.join(", ")}, not ${quote(value)}`;
  }
  if (node.format === "date-time" && parseTime(value) === null) {
    return "must be an RFC 3339 date-time from 1970 on, such as 2030-01-31T12:00:00Z";
  }
  if (node.format === "uuid" && !patternOf(node.pattern ?? "").test(value)) {
    return "must be a UUIDv7 in lower case";
  }
  if (node.format === "member-id" && !patternOf(node.pattern ?? "").test(value)) {
    return "must be a member's name: 1 to 32 of a-z, 0-9 and -";
  }
  return null;
}

/** What was sent, short enough for an error message. */
function quote(value: string): string {
  return JSON.stringify(value.length > 64 ? `${value.slice(0, 64).toWellFormed()}…` : value);
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof RawJson)
  );
}
