/**
 * Checks values against the schemas of schema.ts and names everything that is wrong at once, each with a
 * JSON Pointer. Strict: "5" is no integer, a field that does not exist is an error. Knows exactly the
 * keywords that schema.ts uses; a test feeds it every one.
 */
import type { Static, TSchema } from "elysia";
import { badFields, type FieldError } from "./problem.ts";
import { fits } from "./fits.ts";
import { isObject, type Node, stringFault } from "./json-schema.ts";
import { pointerTo, RawJson } from "./raw-json.ts";
import type { ObjectSchema } from "./schema.ts";

/** Collected at most; a body of 8 MiB could hold a million of them. */
const ERRORS_KEPT_MAX = 1_000;
/** `value` as the schema's type, or null with the reasons in `errors`. */
export function validate<T extends TSchema>(
  schema: T,
  value: unknown,
  errors: FieldError[],
  pointer = "",
): Static<T> | null {
  if (fits(schema as unknown as Node, value)) return value;
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

/** What nearly every request has. */
const NO_PARAMETERS: unknown = Object.freeze(Object.create(null));

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
  if (start < 0 && (schema.required ?? []).length === 0) return NO_PARAMETERS;
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
