/**
 * Idempotency keys (CONTRACT section 3): the same key with the same body gives the first outcome again,
 * for 24 h of log time; with another body it is refused. Only outcomes that did something are kept: a
 * refusal changed nothing, so that repeating it is harmless, and a full queue must not stick to a key.
 */
import type { Database, Statement } from "bun:sqlite";
import type { StoredAnswer } from "./answers.ts";
import { INTEGER } from "./schema.ts";
import { type IdempotencyScope, LIMITS } from "./types.ts";

export type Found =
  | { readonly kind: "none" }
  | { readonly kind: "mismatch" }
  | { readonly kind: "replay"; readonly answer: StoredAnswer };

interface KeyRow {
  readonly hash: string;
  readonly expires_at: number;
  readonly answer: string;
}
type Key = [principal: string, route: string, key: string];

export class IdempotencyKeys {
  #count: number;
  readonly #max: number;
  readonly #get: Statement<KeyRow, Key>;
  readonly #insert: Statement<unknown, [string, string, string, string, number, string]>;
  readonly #delete: Statement<unknown, Key>;
  readonly #oldest: Statement<
    { principal: string; route: string; key: string; expires_at: number },
    [number]
  >;

  constructor(db: Database, count: number, max: number = LIMITS.idempotencyKeys) {
    this.#count = count;
    this.#max = max;
    this.#get = db.prepare(
      "SELECT hash, expires_at, answer FROM idempotency WHERE principal = ? AND route = ? AND key = ?",
    );
    this.#insert = db.prepare(
      "INSERT INTO idempotency (principal, route, key, hash, expires_at, answer) VALUES (?, ?, ?, ?, ?, ?)",
    );
    this.#delete = db.prepare(
      "DELETE FROM idempotency WHERE principal = ? AND route = ? AND key = ?",
    );
    this.#oldest = db.prepare(
      `SELECT principal, route, key, expires_at FROM idempotency ORDER BY expires_at, principal, route, key LIMIT ${INTEGER}`,
    );
  }

  /** Keys kept; equals a recount of the table. */
  get count(): number {
    return this.#count;
  }

  find(scope: IdempotencyScope, now: number): Found {
    const row = this.#get.get(scope.principal, scope.route, scope.key);
    if (row === null || row.expires_at <= now) return { kind: "none" };
    if (row.hash !== scope.hash) return { kind: "mismatch" };
    return { kind: "replay", answer: JSON.parse(row.answer) as StoredAnswer };
  }

  /** Whether one more fits; an expired one makes room. */
  reserve(scope: IdempotencyScope, now: number): boolean {
    this.#count -= this.#delete.run(scope.principal, scope.route, scope.key).changes;
    if (this.#count < this.#max) return true;
    return this.purge(now, 1) === 1;
  }

  keep(scope: IdempotencyScope, now: number, answer: StoredAnswer): void {
    const expires = now + LIMITS.idempotencyTtlMs;
    const text = JSON.stringify(answer);
    this.#insert.run(scope.principal, scope.route, scope.key, scope.hash, expires, text);
    this.#count++;
  }

  /** Log time at which the oldest one expires; null: none is kept. */
  nextExpiry(): number | null {
    return this.#oldest.get(1)?.expires_at ?? null;
  }

  /** Drops at most `max` expired ones; returns how many. */
  purge(now: number, max: number): number {
    let dropped = 0;
    for (const row of this.#oldest.all(max)) {
      if (row.expires_at > now) break;
      this.#delete.run(row.principal, row.route, row.key);
      dropped++;
    }
    this.#count -= dropped;
    return dropped;
  }
}
