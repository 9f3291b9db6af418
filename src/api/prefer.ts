/** `Prefer: return=minimal` (RFC 7240): a caller that made the tasks needs no copy of them back, only their ids. */
import type { Headers } from "./render.ts";

export function prefersMinimal(request: Request): boolean {
  const header = request.headers.get("prefer");
  if (header === null) return false;
  return header
    .split(",")
    .map((preference) => preference.split(";", 1)[0]?.replaceAll(/[\s"]/g, "").toLowerCase())
    .includes("return=minimal");
}

/** Says that it was heeded. */
export const MINIMAL_HEADER: Headers = { "preference-applied": "return=minimal" };
