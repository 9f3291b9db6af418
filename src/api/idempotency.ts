/** `Idempotency-Key`: what makes a repeated POST the same POST (docs/api.md). */
import type { TaskQueue } from "../queue/service.ts";
import type { IdempotencyScope } from "../queue/types.ts";
import { badFields } from "./problem.ts";

const KEY = /^[\x21-\x7e]{1,255}$/;

/** Null without the header. `route` is method and path, so that the same key on two tasks is two keys. @throws Problem 400 */
export function idempotencyScope(
  request: Request,
  principal: string,
  body: Uint8Array,
): IdempotencyScope | null {
  const key = request.headers.get("idempotency-key");
  if (key === null) return null;
  if (!KEY.test(key)) {
    throw badFields([
      {
        pointer: "/header/Idempotency-Key",
        detail: "must be 1 to 255 visible ASCII characters",
      },
    ]);
  }
  return {
    principal,
    route: `${request.method} ${new URL(request.url).pathname}`,
    key,
    hash: new Bun.CryptoHasher("sha256").update(body).digest("hex"),
  };
}

/** The request id of a claim that names none: the same at every member that the same claim is repeated at. */
export function claimRequestId({ principal, key, hash }: IdempotencyScope): string {
  const text = JSON.stringify([principal, key, hash]);
  return `key-${new Bun.CryptoHasher("sha256").update(text).digest("hex")}`;
}

/**
 * Refusals by what holds at this moment (the age of an id, a limit of the settings) are not for a repeat: it
 * does nothing, and gets the answer of when it did. @throws whatever `check` throws at a first try
 */
export async function unlessRepeated(
  queue: TaskQueue,
  scope: IdempotencyScope | null,
  check: () => void,
): Promise<void> {
  try {
    check();
  } catch (error) {
    if (scope === null || !(await queue.keyed.known(scope))) throw error;
  }
}

export function replayedHeader(replayed: boolean): Readonly<Record<string, string>> {
  return replayed ? { "idempotency-replayed": "true" } : {};
}
