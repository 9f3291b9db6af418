/** What is submitted: one small task with a payload of a given size, as JSON text; and the calls over plain HTTP that submit it. */
import { now } from "./statistics.ts";
import type { HttpConnection } from "./http-connection.ts";

const NAME = "bench";

let made = 0;

/**
 * A payload of about `bytes` bytes of JSON: a number of its own, when it was made or due (wall clock), and filler. (What differs between two payloads is
 * at the front, as in real ones, so that nothing can be saved by their likeness.)
 */
export function payloadText(bytes: number, at = now()): string {
  const head = `{"id":"${process.pid}-${made++}","t":${at.toFixed(3)},"pad":"`;
  return `${head}${"x".repeat(Math.max(0, bytes - head.length - 2))}"}`;
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
const MINIMAL = "Prefer: return=minimal\r\n";

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
