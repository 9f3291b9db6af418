/**
 * Which tasks each worker's recent claims got, so that a claim whose answer was lost can be repeated
 * (same principal, worker and request id) without taking a second set. The principal is part of it: whoever
 * guesses another's worker and request must neither get its tasks nor keep it from getting any. Claims that got nothing are not kept: the
 * repeat may find something. Kept for CLAIM_TTL_MS of log time, and the newest CLAIMS_PER_WORKER of a
 * worker; the map in memory is rebuilt from the rows at open.
 */
import type { Database, Statement } from "bun:sqlite";
import type { ClaimRecord } from "./answers.ts";
import type { ClaimRef } from "./types.ts";

const CLAIM_TTL_MS = 300_000;
/** A worker that repeats a claim older than this many newer ones has lost count, not an answer. */
const CLAIMS_PER_WORKER = 64;
/** Of all workers together; the oldest go first. About 4,000 workers with all of theirs. */
const CLAIMS_MAX = 262_144;

/** Principals hold no spaces. The column `worker` holds this. */
const claimant = ({ principal, worker_id }: ClaimRef): string => `${principal} ${worker_id}`;

interface Kept extends ClaimRecord {
  /** Principal and worker. */
  readonly worker: string;
  readonly request: string;
  readonly at: number;
}

export class ClaimMemory {
  /** By worker, then by request, oldest first. */
  readonly #byWorker = new Map<string, Map<string, Kept>>();
  /** By first fence, oldest first: fences only grow. */
  readonly #byFence = new Map<number, Kept>();
  /** Kept, and not in the table yet; many are dropped before they would be. */
  readonly #unsaved = new Set<Kept>();
  readonly #insert: Statement<unknown, [number, string, string, number, string]>;
  readonly #delete: Statement<unknown, [number]>;

  constructor(db: Database) {
    this.#insert = db.prepare(
      "INSERT INTO claims (fence, worker, request, at, seqs) VALUES (?, ?, ?, ?, ?)",
    );
    this.#delete = db.prepare("DELETE FROM claims WHERE fence = ?");
    const rows = db.query<
      { fence: number; worker: string; request: string; at: number; seqs: string },
      []
    >("SELECT fence, worker, request, at, seqs FROM claims ORDER BY fence");
    for (const { fence, worker, request, at, seqs } of rows.iterate()) {
      this.#index({ first: fence, worker, request, at, seqs: JSON.parse(seqs) as number[] });
    }
  }

  find(name: ClaimRef): ClaimRecord | null {
    return this.#byWorker.get(claimant(name))?.get(name.request_id) ?? null;
  }

  keep(name: ClaimRef, at: number, claim: ClaimRecord): void {
    const worker = claimant(name);
    const request = name.request_id;
    const earlier = this.#byWorker.get(worker)?.get(request);
    if (earlier !== undefined) this.#drop(earlier);
    const kept: Kept = { worker, request, at, ...claim };
    this.#index(kept);
    this.#unsaved.add(kept);
    const own = this.#byWorker.get(worker);
    if (own !== undefined && own.size > CLAIMS_PER_WORKER) this.#dropFirst(own.values());
    if (this.#byFence.size > CLAIMS_MAX) this.#dropFirst(this.#byFence.values());
  }

  /** Log time at which the oldest one may go; null: none is kept. */
  nextExpiry(): number | null {
    for (const kept of this.#byFence.values()) return kept.at + CLAIM_TTL_MS;
    return null;
  }

  /** Drops at most `max` of those whose time is over at log time `now`; returns how many. */
  purge(now: number, max: number): number {
    let dropped = 0;
    for (const kept of this.#byFence.values()) {
      if (dropped >= max || kept.at + CLAIM_TTL_MS > now) break;
      this.#drop(kept);
      dropped++;
    }
    return dropped;
  }

  save(): void {
    for (const kept of this.#unsaved) {
      const { first, worker, request, at, seqs } = kept;
      this.#insert.run(first, worker, request, at, JSON.stringify(seqs));
    }
    this.#unsaved.clear();
  }

  #index(kept: Kept): void {
    this.#byFence.set(kept.first, kept);
    const own = this.#byWorker.get(kept.worker);
    if (own === undefined) this.#byWorker.set(kept.worker, new Map([[kept.request, kept]]));
    else own.set(kept.request, kept);
  }

  #dropFirst(oldestFirst: Iterable<Kept>): void {
    for (const kept of oldestFirst) {
      this.#drop(kept);
      return;
    }
  }

  #drop(kept: Kept): void {
    this.#byFence.delete(kept.first);
    const own = this.#byWorker.get(kept.worker);
    own?.delete(kept.request);
    if (own?.size === 0) this.#byWorker.delete(kept.worker);
    if (!this.#unsaved.delete(kept)) this.#delete.run(kept.first);
  }
}
