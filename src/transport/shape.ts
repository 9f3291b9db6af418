/**
 * Readers for values that came from another process: each returns what the type says, or throws.
 */
import { asNodeId, type NodeId } from "../raft/types.ts";

/** Bytes or a message that no member of this version can have sent. */
export class CodecError extends Error {
  override name = "CodecError";
}

export type Fields = Readonly<Record<string, unknown>>;

export const ID_PATTERN = /^[a-z0-9-]{1,32}$/;

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @throws CodecError not an object */
export function readRecord(value: unknown, what: string): Fields {
  if (isFields(value)) return value;
  throw new CodecError(`${what} is not an object`);
}

/** A non-negative safe integer. @throws CodecError */
export function readCount(fields: Fields, name: string): number {
  const value = fields[name];
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new CodecError(`${name} is not a whole number`);
}

/** @throws CodecError */
export function readText(fields: Fields, name: string): string {
  const value = fields[name];
  if (typeof value === "string") return value;
  throw new CodecError(`${name} is not a text`);
}

/** @throws CodecError */
export function readTextOrNull(fields: Fields, name: string): string | null {
  return fields[name] === null ? null : readText(fields, name);
}

/** @throws CodecError */
export function readFlag(fields: Fields, name: string): boolean {
  const value = fields[name];
  if (typeof value === "boolean") return value;
  throw new CodecError(`${name} is not true or false`);
}

/** A member's name. @throws CodecError */
export function readId(fields: Fields, name: string): NodeId {
  const value = readText(fields, name);
  if (ID_PATTERN.test(value)) return asNodeId(value);
  throw new CodecError(`${name} is not a member name`);
}

/** @throws CodecError */
export function readIdOrNull(fields: Fields, name: string): NodeId | null {
  return fields[name] === null ? null : readId(fields, name);
}

/** @throws CodecError not an array, or longer than `limit` */
export function readArray(fields: Fields, name: string, limit: number): readonly unknown[] {
  const value = fields[name];
  if (!Array.isArray(value)) throw new CodecError(`${name} is not a list`);
  if (value.length > limit) throw new CodecError(`${name} holds more than ${limit}`);
  return value;
}

/** @throws CodecError */
export function readIds(fields: Fields, name: string, limit: number): readonly NodeId[] {
  return readArray(fields, name, limit).map((id) => readId({ [name]: id }, name));
}
