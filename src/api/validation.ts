/**
 * Checks values against the schemas of schema.ts and names everything that is wrong at once, each with a
 * JSON Pointer. Strict: "5" is no integer, a field that does not exist is an error. Knows exactly the
 * keywords that schema.ts uses; a test feeds it every one.
 */
import type { Static, TSchema } from "elysia";
import { badFields, type FieldError } from "./problem.ts";
import { pointerTo, RawJson } from "./raw-json.ts";
import type { ObjectSchema } from "./schema.ts";
import { parseTime } from "./time.ts";

/** JSON Schema as far as schema.ts goes. */
interface Node {
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

/** Collected at most; a body of 8 MiB could hold a million of them. */
const ERRORS_KEPT_MAX = 1_000;
/** Control characters: they break logs, terminals and SQL text functions, and no name needs them. */
// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f\u007f]/;

/** `value` as the schema's type, or null with the reasons in `errors`. */
export function validate<T extends TSchema>(
  schema: T,
  value: unknown,
  errors: FieldError[],
  pointer = "",
): Static<T> | null {
  const before = errors.length;
  check(schema as unknown as Node, value, pointer, errors);
  return errors.length === before ? value : null;
}

function check(node: Node, value: unknown, pointer: string, errors: FieldError[]): void {
  if (errors.length >= ERRORS_KEPT_MAX) return;
  const fail = (detail: string): void => {
    errors.push({ pointer, detail });
  };
  if (node["x-raw-json"] === true) {
    if (!(value instanceof RawJson)) fail("must be a JSON value");
    return;
  }
  if (node.anyOf !== undefined) {
    checkAnyOf(node.anyOf, value, pointer, errors);
    return;
  }
  switch (node.type) {
    case "object":
      if (!isObject(value)) fail("must be an object");
      else checkObject(node, value, pointer, errors);
      return;
    case "array":
      if (!Array.isArray(value)) fail("must be an array");
      else checkArray(node, value, pointer, errors);
      return;
    case "string":
      if (typeof value !== "string") fail("must be a string");
      else {
        const fault = stringFault(node, value);
        if (fault !== null) fail(fault);
      }
      return;
    case "integer":
    case "number": {
      const { minimum = -Infinity, maximum = Infinity } = node;
      const whole = node.type === "integer";
      const kind = whole ? "an integer" : "a number";
      if (
        typeof value !== "number" ||
        !(whole ? Number.isSafeInteger(value) : Number.isFinite(value))
      ) {
        fail(`must be ${kind}`);
      } else if (value < minimum || value > maximum) {
        fail(`must be ${kind} from ${minimum} to ${maximum}`);
      }
      return;
    }
    case "boolean":
      if (typeof value !== "boolean") fail("must be true or false");
      return;
    case "null":
      if (value !== null) fail("must be null");
      return;
    case undefined:
      fail("cannot be checked");
  }
}

/** The branch of the value's own kind tells what is wrong; with none, the kinds are listed. */
function checkAnyOf(
  branches: readonly Node[],
  value: unknown,
  pointer: string,
  errors: FieldError[],
): void {
  const fitting = branches.find((branch) => kindOf(branch) === kindOf(value, true));
  if (fitting !== undefined) {
    check(fitting, value, pointer, errors);
    return;
  }
  const kinds = branches.map((branch) =>
    branch.type === "null"
      ? "null"
      : `${/^[aeio]/.test(branch.type ?? "") ? "an" : "a"} ${branch.type}`,
  );
  errors.push({ pointer, detail: `must be ${kinds.join(" or ")}` });
}

function kindOf(subject: unknown, isValue = false): string {
  if (!isValue) {
    const type = (subject as Node).type;
    return type === "integer" ? "number" : String(type);
  }
  if (subject === null) return "null";
  if (Array.isArray(subject)) return "array";
  return typeof subject;
}

function checkObject(
  node: Node,
  value: Record<string, unknown>,
  pointer: string,
  errors: FieldError[],
): void {
  const properties = node.properties ?? {};
  for (const key of node.required ?? []) {
    if (!Object.hasOwn(value, key)) {
      errors.push({ pointer: pointerTo(pointer, key), detail: "is required" });
    }
  }
  for (const [key, member] of Object.entries(value)) {
    const inner = Object.hasOwn(properties, key) ? properties[key] : undefined;
    const at = pointerTo(pointer, key);
    if (inner !== undefined) check(inner, member, at, errors);
    else if (errors.length < ERRORS_KEPT_MAX) {
      errors.push({ pointer: at, detail: "is not a field of this request" });
    }
  }
}

function checkArray(
  node: Node,
  value: readonly unknown[],
  pointer: string,
  errors: FieldError[],
): void {
  const { minItems = 0, maxItems = Infinity, items } = node;
  if (value.length < minItems || value.length > maxItems) {
    errors.push({
      pointer,
      detail: `must have ${minItems} to ${maxItems} items, not ${value.length}`,
    });
    return;
  }
  if (items === undefined) return;
  for (const [index, item] of value.entries()) {
    check(items, item, pointerTo(pointer, index), errors);
  }
}

function stringFault(node: Node, value: string): string | null {
  if (!value.isWellFormed()) return "holds half a surrogate pair, which is no Unicode text";
  if (value.length < (node.minLength ?? 0)) return "must not be empty";
  const maxBytes = node["x-max-bytes"];
  if (maxBytes !== undefined && Buffer.byteLength(value) > maxBytes) {
    return `must be at most ${maxBytes} bytes of UTF-8, not ${Buffer.byteLength(value)}`;
  }
  if (node["x-plain"] === true && CONTROL.test(value)) return "must not hold control characters";
  const { not } = node;
  if (
    not?.enum?.includes(value) === true ||
    (not?.pattern !== undefined && new RegExp(not.pattern).test(value))
  ) {
    return not.title;
  }
  if (node.enum !== undefined && !node.enum.includes(value)) {
    return `must be one of ${node.enum.join(", ")}, not ${quote(value)}`;
  }
  if (node.format === "date-time" && parseTime(value) === null) {
    return "must be an RFC 3339 date-time such as 2030-01-31T12:00:00Z";
  }
  if (node.format === "uuid" && !new RegExp(node.pattern ?? "").test(value)) {
    return "must be a UUIDv7 in lower case";
  }
  return null;
}

/** What was sent, short enough for an error message. */
function quote(value: string): string {
  return JSON.stringify(value.length > 64 ? `${value.slice(0, 64).toWellFormed()}…` : value);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof RawJson)
  );
}

/** The members of a query string that `schema` does not name and `rest` takes. */
export type RestParameter = (name: string, value: string, errors: FieldError[]) => boolean;

/**
 * The query string of `url` as the schema's type: numbers parsed strictly, arrays from repeats or comma
 * lists; unknown and repeated parameters are errors. @throws Problem 400
 */
export function readQuery<T extends ObjectSchema>(
  url: string,
  schema: T,
  rest: RestParameter = () => false,
): Static<T> {
  const errors: FieldError[] = [];
  const properties = schema.properties as unknown as Readonly<Record<string, Node>>;
  const values: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  const start = url.indexOf("?");
  const query = start < 0 ? "" : url.slice(start + 1);
  if (!decodes(query)) {
    throw badFields([{ pointer: "/query", detail: "is not percent-encoded UTF-8" }]);
  }
  for (const [key, text] of new URLSearchParams(query)) {
    const pointer = pointerTo("/query", key);
    const node = Object.hasOwn(properties, key) ? properties[key] : undefined;
    if (node === undefined) {
      if (!rest(key, text, errors))
        errors.push({ pointer, detail: "is not a parameter of this route" });
    } else if (node.type === "array") {
      values[key] = [...((values[key] as string[] | undefined) ?? []), ...text.split(",")];
    } else if (key in values) errors.push({ pointer, detail: "is given more than once" });
    else values[key] = fromText(node, text);
  }
  const read = validate(schema, values, errors, "/query");
  if (read === null || errors.length > 0) {
    // Which of a parameter's comma-separated values it is, the detail says.
    throw badFields(
      errors.map(({ pointer, detail }) => ({
        pointer: pointer.replace(/^(\/query\/[^/]+)\/\d+$/, "$1"),
        detail,
      })),
    );
  }
  return read;
}

/** A parameter's text as the type that the schema wants; what does not parse stays text and fails there. */
function fromText(node: Node, text: string): unknown {
  if (node.type === "integer" && /^-?\d{1,15}$/.test(text)) return Number(text);
  if (node.type === "number" && /^-?\d{1,15}(\.\d{1,15})?$/.test(text)) return Number(text);
  return text;
}

function decodes(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

/** Path parameters as the schema's type. @throws Problem 400 */
export function readPath<T extends ObjectSchema>(
  params: Readonly<Record<string, string>>,
  schema: T,
): Static<T> {
  const errors: FieldError[] = [];
  for (const [key, value] of Object.entries<string | null>(params)) {
    if (typeof value === "string") continue;
    // What the router could not decode.
    errors.push({ pointer: pointerTo("/path", key), detail: "is not percent-encoded UTF-8" });
  }
  if (errors.length > 0) throw badFields(errors);
  const read = validate(schema, params, errors, "/path");
  if (read === null) throw badFields(errors);
  return read;
}
