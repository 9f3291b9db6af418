/**
 * Reads request bodies: bounded, strict about media type and UTF-8, JSON with its opaque members kept, then
 * checked against a schema.
 */
import type { Static, TSchema } from "elysia";
import { LIMITS } from "../queue/types.ts";
import { badFields, Problem, type FieldError } from "./problem.ts";
import { JsonFault, parseKeeping, type OpaquePath } from "./raw-json.ts";
import { validate } from "./validation.ts";

export interface Body<T> {
  readonly value: T;
  /** As they came, for the hash of an Idempotency-Key. */
  readonly bytes: Uint8Array;
}

const EMPTY = new Uint8Array(0);
/** Parsing a body of this size takes tens of milliseconds, and what follows takes as long again. */
const LONG_BODY_BYTES = 1024 * 1024;

/**
 * The JSON body of `request`. `ifEmpty`: what an absent body means, where one is allowed.
 * @throws Problem 400 malformed-json, invalid-utf8, too-deep, duplicate-key or invalid-request; 413; 415 unsupported-media-type or unsupported-content-encoding
 */
export async function readJson<T extends TSchema>(
  request: Request,
  schema: T,
  opaque: readonly OpaquePath[] = [],
  ifEmpty: "refuse" | "{}" = "refuse",
): Promise<Body<Static<T>>> {
  const bytes = await readBytes(request);
  if (bytes.byteLength === 0 && ifEmpty === "{}") {
    return { value: checked(schema, {}), bytes };
  }
  checkMediaType(request);
  checkCoding(request);
  const value = checked(schema, parse(decode(bytes), opaque));
  // The clock of consensus is on this thread: it gets its turn in between, so that a long body costs no election.
  if (bytes.byteLength >= LONG_BODY_BYTES) await nextTurn();
  return { value, bytes };
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

function checked<T extends TSchema>(schema: T, value: unknown): Static<T> {
  const errors: FieldError[] = [];
  const valid = validate(schema, value, errors);
  if (valid === null) throw badFields(errors);
  return valid;
}

function checkMediaType(request: Request): void {
  const given = request.headers.get("content-type") ?? "";
  if (given === "application/json") return;
  const [type = "", ...parameters] = given.split(";");
  const charset = parameters
    .map((parameter) => parameter.trim().toLowerCase())
    .find((parameter) => parameter.startsWith("charset="));
  const utf8 = charset === undefined || /^charset="?utf-?8"?$/.test(charset);
  if (type.trim().toLowerCase() === "application/json" && utf8) return;
  throw new Problem(
    415,
    "unsupported-media-type",
    "The body must be sent as Content-Type: application/json, in UTF-8.",
    { errors: [{ pointer: "/header/Content-Type", detail: "must be application/json" }] },
  );
}

/** A compressed body would be refused as broken UTF-8 otherwise, and its limit would say nothing. */
function checkCoding(request: Request): void {
  const coding = request.headers.get("content-encoding")?.trim().toLowerCase() ?? "identity";
  if (coding === "identity" || coding === "") return;
  throw new Problem(415, "unsupported-content-encoding", "The body must be sent as it is.", {
    errors: [{ pointer: "/header/Content-Encoding", detail: "must be identity, or left out" }],
    headers: { "accept-encoding": "identity" },
  });
}

function tooLarge(): Problem {
  return new Problem(413, "body-too-large", `The body is larger than ${LIMITS.body} bytes.`, {
    errors: [{ pointer: "", detail: `must be at most ${LIMITS.body} bytes` }],
  });
}

/** The whole body, never holding more than the limit and one chunk of it. */
async function readBytes(request: Request): Promise<Uint8Array> {
  const announced = Number(request.headers.get("content-length") ?? Number.NaN);
  if (announced > LIMITS.body) throw tooLarge();
  if (Number.isFinite(announced)) {
    // Before anything looks at `request.body`, which would make a stream of it: a tenth of what the rest of a request costs.
    const bytes = new Uint8Array(await request.arrayBuffer());
    if (bytes.byteLength > LIMITS.body) throw tooLarge();
    return bytes;
  }
  if (request.body === null) return EMPTY;
  const chunks: Uint8Array[] = [];
  let size = 0;
  const reader = request.body.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    const chunk: Uint8Array = next.value;
    size += chunk.byteLength;
    if (size > LIMITS.body) {
      await reader.cancel();
      throw tooLarge();
    }
    chunks.push(chunk);
  }
  return chunks.length === 1 ? (chunks[0] ?? EMPTY) : Buffer.concat(chunks, size);
}

/** A byte order mark stays in the text, and is refused there: it is not JSON (RFC 8259, 8.1). */
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decode(bytes: Uint8Array): string {
  try {
    return UTF8.decode(bytes);
  } catch {
    throw new Problem(400, "invalid-utf8", "The body is not valid UTF-8.", {
      errors: [{ pointer: "", detail: "must be UTF-8" }],
    });
  }
}

function parse(text: string, opaque: readonly OpaquePath[]): unknown {
  try {
    return parseKeeping(text, opaque);
  } catch (error) {
    if (!(error instanceof JsonFault)) throw error;
    const pointer = error.pointer ?? "";
    throw new Problem(400, error.reason, error.message, {
      errors: [{ pointer, detail: error.message }],
    });
  }
}
