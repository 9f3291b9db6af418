/** What is submitted: one small task with a payload of a given size, as JSON text; and the calls over plain HTTP that submit it. */
import { now } from "./statistics.ts";
import type { HttpConnection } from "./http-connection.ts";

const NAME = "bench";

let made = 0;

/**
 * A payload of about `bytes` bytes of JSON: a number of its own, when it was made, and filler. (What differs between two payloads is
 * at the front, as in real ones, so that nothing can be saved by their likeness.)
 */
export function payloadText(bytes: number): string {
  const head = `{"id":"${process.pid}-${made++}","t":${now().toFixed(3)},"pad":"`;
  return `${head}${"x".repeat(Math.max(0, bytes - head.length - 2))}"}`;
}

export function taskText(bytes: number): string {
  return `{"name":"${NAME}","payload":${payloadText(bytes)}}`;
}

export function bulkText(count: number, bytes: number): string {
  return `{"tasks":[${Array.from({ length: count }, () => taskText(bytes)).join(",")}]}`;
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
): Promise<boolean> {
  const { status } = await connection.post("/api/tasks/bulk", bulkText(count, bytes), {
    headers: MINIMAL,
  });
  return status === 201;
}
