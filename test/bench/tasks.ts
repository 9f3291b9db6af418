/** What is submitted: one small task with a payload of a given size, as JSON text; and the calls over plain HTTP that submit it. */
import type { HttpConnection } from "./http-connection.ts";

const NAME = "bench";

let made = 0;

export interface Payload {
  /** A number of its own. At the front, as in real ones: nothing can be saved by the likeness of two. */
  readonly id: string;
  /** When it was made or due: wall clock, ms; whole ones where nobody measures by it. */
  readonly t: number;
  readonly pad: string;
}

/** Of about `bytes` bytes of JSON. It costs little to make: the clients' own work is part of every figure. */
export function payload(bytes: number, at = Date.now()): Payload {
  const id = `${process.pid}-${made++}`;
  // The time has 13 digits, and braces, quotes and names have 23 characters.
  const fraction = Number.isInteger(at) ? 0 : 4;
  return { id, t: at, pad: fillerOf(Math.max(0, bytes - id.length - 13 - fraction - 23)) };
}

export function payloadText(bytes: number, at = Date.now()): string {
  const { id, t, pad } = payload(bytes, at);
  return `{"id":"${id}","t":${t},"pad":"${pad}"}`;
}

/** What was made last: it is the same for nearly all. */
let filler = "";

function fillerOf(length: number): string {
  if (filler.length !== length) filler = "x".repeat(length);
  return filler;
}

export function taskText(bytes: number, name = NAME): string {
  return `{"name":"${name}","payload":${payloadText(bytes)}}`;
}

export function bulkText(count: number, bytes: number, name = NAME): string {
  return `{"tasks":[${Array.from({ length: count }, () => taskText(bytes, name)).join(",")}]}`;
}

/** True when it was acknowledged. */
export async function submitOne(connection: HttpConnection, bytes: number): Promise<boolean> {
  const { status } = await connection.post("/api/tasks", taskText(bytes));
  return status === 201;
}

/** Ids alone in the answer: what a caller that only wants the acknowledgement asks for. */
export const MINIMAL = "Prefer: return=minimal\r\n";

export async function submitMany(
  connection: HttpConnection,
  count: number,
  bytes: number,
  name = NAME,
): Promise<boolean> {
  const { status } = await connection.post("/api/tasks/bulk", bulkText(count, bytes, name), {
    headers: MINIMAL,
  });
  return status === 201;
}
