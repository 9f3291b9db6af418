/**
 * Idempotency keys (docs/api.md): the same key with the same body gives the first answer again, for
 * 24 h of log time; with another body it is refused. What is kept, and what is not, is in first-answer.ts.
 */
import type { Database, Statement } from "bun:sqlite";
import { INTEGER } from "./schema.ts";
import { type IdempotencyScope, LIMITS } from "./types.ts";

export type Found =
  | { readonly kind: "none" }
  | { readonly kind: "mismatch" }
  /** `answer`: as first-answer.ts packed it. */
  | { readonly kind: "replay"; readonly answer: string };

/** Tests lower these. `bytes` may be passed by one answer: how large it is shows when it is there. */
export interface KeyLimits {
  readonly keys: number;
  readonly bytes: number;
}

/** What is kept at the moment. */
export interface Kept {
  readonly keys: number;
  readonly bytes: number;
}

/** Expired keys that one new key drops at most, when there is no room: the rest goes by `purge` commands. */
const MAKE_ROOM_MAX = 64;

interface KeyRow {
  readonly hash: string;
  readonly expires_at: number;
  readonly answer: string;
}
interface OldKey {
  readonly principal: string;
  readonly route: string;
  readonly key: string;
  readonly expires_at: number;
}
type Key = [principal: string, route: string, key: string];

export class IdempotencyKeys {
  #keys: number;
  #bytes: number;
  readonly #limits: KeyLimits;
  readonly #get: Statement<KeyRow, Key>;
  readonly #insert: Statement<unknown, [string, string, string, string, number, number, string]>;
  readonly #delete: Statement<{ size: number }, Key>;
  readonly #oldest: Statement<OldKey, [number]>;

  /** `kept`: as the state row counts it. */
  constructor(db: Database, kept: Kept, limits: Partial<KeyLimits> = {}) {
    this.#keys = kept.keys;
    this.#bytes = kept.bytes;
    this.#limits = { keys: LIMITS.idempotencyKeys, bytes: LIMITS.idempotencyBytes, ...limits };
    this.#get = db.prepare(
      "SELECT hash, expires_at, answer FROM idempotency WHERE principal = ? AND route = ? AND key = ?",
    );
    this.#insert = db.prepare(
      "INSERT INTO idempotency (principal, route, key, hash, expires_at, size, answer) VALUES (?, ?, ?, ?, ?, ?, ?)",
    );
    this.#delete = db.prepare(
      "DELETE FROM idempotency WHERE principal = ? AND route = ? AND key = ? RETURNING size",
    );
    this.#oldest = db.prepare(
      `SELECT principal, route, key, expires_at FROM idempotency ORDER BY expires_at, principal, route, key LIMIT ${INTEGER}`,
    );
  }

  /** Keys and bytes of answers kept; equal to a recount of the table. */
  get kept(): Kept {
    return { keys: this.#keys, bytes: this.#bytes };
  }

  /** `now`: log time. */
  find(scope: IdempotencyScope, now: number): Found {
    const row = this.#get.get(scope.principal, scope.route, scope.key);
    if (row === null || row.expires_at <= now) return { kind: "none" };
    if (row.hash !== scope.hash) return { kind: "mismatch" };
    return { kind: "replay", answer: row.answer };
  }

  /** Whether one more fits; expired ones make room. */
  reserve(scope: IdempotencyScope, now: number): boolean {
    this.#drop(scope);
    if (!this.#full()) return true;
    this.purge(now, MAKE_ROOM_MAX);
    return !this.#full();
  }

  keep(scope: IdempotencyScope, now: number, answer: string): void {
    const expires = now + LIMITS.idempotencyTtlMs;
    const size = Buffer.byteLength(answer);
    this.#insert.run(scope.principal, scope.route, scope.key, scope.hash, expires, size, answer);
    this.#keys++;
    this.#bytes += size;
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
      this.#drop(row);
      dropped++;
    }
    return dropped;
  }

  #full(): boolean {
    return this.#keys >= this.#limits.keys || this.#bytes >= this.#limits.bytes;
  }

  #drop({ principal, route, key }: Pick<IdempotencyScope, "principal" | "route" | "key">): void {
    const gone = this.#delete.get(principal, route, key);
    if (gone === null) return;
    this.#keys--;
    this.#bytes -= gone.size;
  }
}
