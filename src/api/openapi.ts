/**
 * The OpenAPI document: what each route says of itself (`operation`), and the cleaning of what the swagger
 * plugin makes of it, which is not valid OpenAPI 3.0 as it comes.
 */
import { STATUS_CODES } from "node:http";
import type { Role } from "./auth.ts";
import { EXAMPLES } from "./examples.ts";
import type { ModelName, ObjectSchema } from "./schema.ts";

interface Answer {
  readonly description: string;
  readonly model?: ModelName;
  /** Of an answer that is not JSON. */
  readonly mediaType?: string;
  readonly headers?: readonly HeaderName[];
}

type HeaderName = keyof typeof HEADERS;
const HEADERS = {
  Location: "Path of the task.",
  ETag: "Its version, quoted.",
  Link: 'The next page, rel="next"; absent on the last one.',
  "Flotilla-Applied-Index": "Stale reads: log index that the answer reflects.",
  "Flotilla-Staleness-Ms": "Stale reads: how old the answer may be.",
  "Idempotency-Replayed": "true when an earlier answer is repeated.",
  "Preference-Applied": "return=minimal when that was asked for: ids alone.",
} as const;

interface OperationSpec {
  readonly id: string;
  readonly tag: "tasks" | "leases" | "workers" | "cluster" | "health";
  readonly summary: string;
  readonly description?: string;
  readonly role: Role | "open";
  readonly path?: ObjectSchema;
  readonly query?: ObjectSchema;
  readonly requestHeaders?: readonly ("Idempotency-Key" | "If-Match" | "Prefer")[];
  readonly body?: ModelName;
  readonly bodyOptional?: boolean;
  readonly answers: Readonly<Record<number, Answer>>;
  /** Statuses of problems beside 400, 401, 403 and 500, which are added where they belong. */
  readonly problems?: readonly number[];
}

const REQUEST_HEADERS = {
  "Idempotency-Key":
    "Makes repeats answer the same for 24 hours; 1 to 255 visible ASCII characters.",
  "If-Match": "ETag of the version that the change is meant for.",
  Prefer: "`return=minimal`: the answer holds ids alone (RFC 7240).",
} as const;

/** The hook of a route: its documentation, and no parsing by Elysia (body.ts reads the bytes). */
export function operation(spec: OperationSpec) {
  const open = spec.role === "open";
  const problems = new Set([400, ...(open ? [] : [401, 403]), 421, 500, ...(spec.problems ?? [])]);
  const responses: Record<string, unknown> = {};
  for (const [status, answer] of Object.entries(spec.answers)) responses[status] = response(answer);
  for (const status of [...problems].toSorted((a, b) => a - b)) {
    responses[String(status)] ??= {
      description: STATUS_CODES[status] ?? "Error",
      content: { "application/problem+json": { schema: modelRef("Problem") } },
    };
  }
  return {
    parse: "none" as const,
    detail: {
      operationId: spec.id,
      tags: [spec.tag],
      summary: spec.summary,
      description: `${spec.description ?? spec.summary}\n\nRole: ${open ? "none" : spec.role}.`,
      parameters: [
        ...parameters("path", spec.path),
        ...parameters("query", spec.query),
        ...(spec.requestHeaders ?? []).map((name) => ({
          name,
          in: "header" as const,
          required: false,
          description: REQUEST_HEADERS[name],
          schema: { type: "string" as const },
        })),
      ],
      ...(spec.body === undefined
        ? {}
        : {
            requestBody: {
              required: spec.bodyOptional !== true,
              content: {
                "application/json": { schema: modelRef(spec.body), example: EXAMPLES[spec.body] },
              },
            },
          }),
      responses: responses as Record<string, { description: string }>,
      security: open ? [] : [{ bearer: [] }],
    },
  };
}

function modelRef(model: ModelName): { readonly $ref: string } {
  return { $ref: `#/components/schemas/${model}` };
}

function response(answer: Answer): Record<string, unknown> {
  const headers = answer.headers ?? [];
  return {
    description: answer.description,
    ...(headers.length === 0
      ? {}
      : {
          headers: Object.fromEntries(
            headers.map((name) => [
              name,
              { description: HEADERS[name], schema: { type: "string" } },
            ]),
          ),
        }),
    ...(answer.model === undefined && answer.mediaType === undefined
      ? {}
      : {
          content: {
            [answer.mediaType ?? "application/json"]: {
              schema: answer.model === undefined ? { type: "string" } : modelRef(answer.model),
            },
          },
        }),
  };
}

function parameters(place: "path" | "query", schema: ObjectSchema | undefined) {
  return Object.entries(schema?.properties ?? {}).map(([name, node]) => {
    const { description, ...rest } = node as { description?: string };
    return {
      name,
      in: place,
      required: place === "path" || (schema?.required ?? []).includes(name),
      ...(description === undefined ? {} : { description }),
      schema: rest,
    };
  });
}

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/**
 * The plugin's document as valid OpenAPI 3.0.3: schemas without `$id` and without `type: "null"`, no empty
 * `content`, no routes but those that were described. The input is not changed.
 */
export function cleanDocument(document: unknown): Json {
  // Through JSON: drops TypeBox's symbols and undefined members.
  const plain = JSON.parse(JSON.stringify(document)) as Record<string, Json>;
  return cleanNode(plain);
}

function cleanNode(node: Json): Json {
  if (Array.isArray(node)) return (node as readonly Json[]).map(cleanNode);
  if (node === null || typeof node !== "object") return node;
  const clean: Record<string, Json> = {};
  for (const [key, value] of Object.entries(node as Record<string, Json>)) {
    if (key === "$id" || key === "$schema") continue;
    clean[key] = cleanNode(value);
  }
  return withoutNullBranch(clean);
}

/** OpenAPI 3.0 has no null type, only `nullable` beside a type or reference. */
function withoutNullBranch(node: Record<string, Json>): Json {
  const branches = node["anyOf"];
  if (!Array.isArray(branches)) return node;
  const real = (branches as readonly Json[]).filter((branch) => !isNullType(branch));
  if (real.length === branches.length) return node;
  const { anyOf: _, ...rest } = node;
  const [only] = real;
  if (real.length === 1 && only !== undefined && only !== null && typeof only === "object") {
    const branch = only as Record<string, Json>;
    return "$ref" in branch
      ? { ...rest, allOf: [branch], nullable: true }
      : { ...branch, ...rest, nullable: true };
  }
  return { ...rest, anyOf: real, nullable: true };
}

function isNullType(branch: Json): boolean {
  return (
    branch !== null &&
    typeof branch === "object" &&
    (branch as Record<string, Json>)["type"] === "null"
  );
}
