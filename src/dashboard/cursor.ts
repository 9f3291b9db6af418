/**
 * Cursors in the addresses of list pages: the queue's own, bound to the filters of their list. One that was
 * cut, typed or carried to other filters is told apart here and never reaches the queue. It is no secret.
 */

function sum(cursor: string, scope: readonly unknown[]): string {
  return new Bun.CryptoHasher("sha256")
    .update(JSON.stringify([cursor, ...scope]))
    .digest("hex")
    .slice(0, 12);
}

/** `scope`: the filters of the list. */
export function sealCursor(cursor: string, scope: readonly unknown[]): string {
  return `${Buffer.from(cursor).toString("base64url")}.${sum(cursor, scope)}`;
}

/** The queue's cursor, or null when it is not one of this list. */
export function openCursor(sealed: string, scope: readonly unknown[]): string | null {
  const cursor = Buffer.from(sealed.split(".", 1)[0] ?? "", "base64url").toString();
  return sealCursor(cursor, scope) === sealed ? cursor : null;
}
