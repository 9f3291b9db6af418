/**
 * Cursors as clients see them: the queue's own cursor, bound to the filters of its list. A cursor that was
 * cut, typed or used with other filters is told apart here and never reaches the queue. This is no secret
 * and no signature: whoever forges one only chooses where his own list begins.
 */
import { badFields } from "./problem.ts";

function checksum(cursor: string, scope: unknown): string {
  return new Bun.CryptoHasher("sha256")
    .update(JSON.stringify([cursor, scope]))
    .digest("hex")
    .slice(0, 12);
}

export function sealCursor(cursor: string, scope: unknown): string {
  return `${Buffer.from(cursor).toString("base64url")}.${checksum(cursor, scope)}`;
}

/** The queue's cursor. `scope` is the filter it was made for. @throws Problem 400 */
export function openCursor(sealed: string, scope: unknown): string {
  const [encoded = "", sum] = sealed.split(".", 2);
  const cursor = Buffer.from(encoded, "base64url").toString();
  if (sealCursor(cursor, scope) === sealed && sum === checksum(cursor, scope)) return cursor;
  throw badFields([
    {
      pointer: "/query/cursor",
      detail: "is not a cursor of this list: take it from the page before, with the same filters",
    },
  ]);
}

/** `Link` to the next page: the same request with another cursor, as a path, whatever name the member has. */
export function nextLink(url: string, cursor: string, scope: unknown): string {
  const { pathname, searchParams } = new URL(url);
  searchParams.set("cursor", sealCursor(cursor, scope));
  return `<${pathname}?${searchParams}>; rel="next"`;
}
