/**
 * Whether a value fits its schema: yes or no, and nothing else. Nearly every request does, and saying where it does not costs a
 * pointer for each member; that is validation.ts's, which is asked only after a no. Each schema is turned into a
 * function once.
 */
import { isObject, type Node, stringFault } from "./json-schema.ts";
import { RawJson } from "./raw-json-text.ts";

type Check = (value: unknown) => boolean;

const checks = new WeakMap<Node, Check>();

/** The same answer as whether `validate` would find no errors. */
export function fits(node: Node, value: unknown): boolean {
  return checkOf(node)(value);
}

function checkOf(node: Node): Check {
  let check = checks.get(node);
  if (check === undefined) {
    check = build(node);
    checks.set(node, check);
  }
  return check;
}

function build(node: Node): Check {
  if (node["x-raw-json"] === true) return (value) => value instanceof RawJson;
  if (node.anyOf !== undefined) return anyOf(node.anyOf);
  switch (node.type) {
    case "object":
      return object(node);
    case "array":
      return array(node);
    case "string":
      return (value) => typeof value === "string" && stringFault(node, value) === null;
    case "integer": {
      const { minimum = -Infinity, maximum = Infinity } = node;
      return (value) =>
        typeof value === "number" &&
        Number.isSafeInteger(value) &&
        value >= minimum &&
        value <= maximum;
    }
    case "number": {
      const { minimum = -Infinity, maximum = Infinity } = node;
      return (value) =>
        typeof value === "number" && Number.isFinite(value) && value >= minimum && value <= maximum;
    }
    case "boolean":
      return (value) => typeof value === "boolean";
    case "null":
      return (value) => value === null;
    case undefined:
      break;
  }
  return () => false;
}

/** No two branches of one are of the same kind, so that fitting any is fitting the one of the value's kind. */
function anyOf(branches: readonly Node[]): Check {
  const own = branches.map(checkOf);
  return (value) => own.some((check) => check(value));
}

function object(node: Node): Check {
  const properties = new Map(
    Object.entries(node.properties ?? {}).map(([key, inner]) => [key, checkOf(inner)]),
  );
  const required = node.required ?? [];
  return (value) => {
    if (!isObject(value)) return false;
    for (const key of required) if (!Object.hasOwn(value, key)) return false;
    for (const key of Object.keys(value)) {
      const check = properties.get(key);
      if (check === undefined || !check(value[key])) return false;
    }
    return true;
  };
}

function array({ minItems = 0, maxItems = Infinity, items }: Node): Check {
  const check = items === undefined ? null : checkOf(items);
  return (value) => {
    if (!Array.isArray(value) || value.length < minItems || value.length > maxItems) return false;
    return check === null || value.every(check);
  };
}
