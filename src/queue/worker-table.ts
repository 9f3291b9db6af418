/**
 * What the leader knows of workers: what they said with their claims and heartbeats, and what they shall
 * be told. In memory only; a new leader learns it anew within a lease period.
 */
import type { Clock, Millis } from "../replica/ports.ts";
import type { WorkerInfo, WorkerView } from "./service.ts";
import type { RunningLease } from "./state.ts";
import type { Claim, Directive } from "./types.ts";

/** The longest silent go first. */
export const WORKERS_MAX = 10_000;
/** A silent worker without leases is forgotten after this. */
const FORGET_MS: Millis = 300_000;

/** A member's executors, as they speak of themselves. */
export interface LocalWorker {
  readonly id: string;
  readonly info: WorkerInfo;
}

interface Worker {
  readonly id: string;
  readonly principal: string;
  member: string | null;
  queues: readonly string[] | null;
  names: readonly string[] | null;
  info: WorkerInfo | null;
  directive: Directive;
  heardAt: Millis;
}

const SEVERITY: Readonly<Record<Directive, number>> = { ok: 0, quiet: 1, terminate: 2 };

/** Two principals may use one id, and are two workers: what one claimed is not the other's. In order of the ids. */
const keyOf = (id: string, principal: string): string => `${id}\u0000${principal}`;

export class WorkerTable {
  readonly #clock: Clock;
  /** By id and principal, longest silent first. */
  readonly #workers = new Map<string, Worker>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  clear(): void {
    this.#workers.clear();
  }

  /** Returns what the worker shall be told: what was set here, or what it was told by an earlier leader. */
  claimed(claim: Claim, told: Directive, info: WorkerInfo | null = null): Directive {
    const worker = this.#heard(claim.worker_id, claim.principal, told);
    worker.queues = claim.queues;
    worker.names = claim.star && claim.names !== null ? [...claim.names, "*"] : claim.names;
    if (claim.local !== null) worker.member = claim.local.member;
    if (info !== null) worker.info = info;
    return worker.directive;
  }

  beat(id: string, principal: string, info: WorkerInfo | null, told: Directive): Directive {
    const worker = this.#heard(id, principal, told);
    if (info !== null) {
      worker.info = info;
      worker.member = info.member;
    }
    return worker.directive;
  }

  has(id: string): boolean {
    return [...this.#workers.values()].some((worker) => worker.id === id);
  }

  /** Whoever bears the id, of all principals. */
  direct(id: string, directive: Directive): void {
    for (const worker of this.#workers.values()) if (worker.id === id) worker.directive = directive;
  }

  /** Everyone who was heard of or holds a lease, by id and principal. `local`: known to this member, leader or not. */
  views(leases: Iterable<RunningLease>, local: LocalWorker | null = null): readonly WorkerView[] {
    const now = this.#clock.monotonic();
    const byWorker = new Map<string, RunningLease[]>();
    let own: string | null = null;
    for (const lease of leases) {
      const key = keyOf(lease.worker, lease.principal);
      const known = byWorker.get(key);
      if (known === undefined) byWorker.set(key, [lease]);
      else known.push(lease);
      if (lease.local !== null && lease.worker === local?.id) own = key;
    }
    for (const [key, worker] of this.#workers) {
      if (now - worker.heardAt < FORGET_MS) break;
      if (!byWorker.has(key)) this.#workers.delete(key);
    }
    for (const [key, worker] of this.#workers)
      if (worker.member !== null && worker.id === local?.id) own = key;
    const keys = new Set([...this.#workers.keys(), ...byWorker.keys()]);
    if (local !== null) keys.add((own ??= keyOf(local.id, "")));
    return [...keys]
      .sort()
      .slice(0, WORKERS_MAX)
      .map((key) => {
        const info = key === own ? (local?.info ?? null) : null;
        return this.#view(key, byWorker.get(key) ?? [], now, info);
      });
  }

  #view(
    key: string,
    leases: readonly RunningLease[],
    now: Millis,
    own: WorkerInfo | null,
  ): WorkerView {
    const worker = this.#workers.get(key);
    const info = worker?.info ?? own;
    const lease = leases[0];
    const [id = "", principal = ""] = key.split("\u0000");
    return {
      id,
      member: worker?.member ?? lease?.local?.member ?? own?.member ?? null,
      principal,
      queues: worker?.queues ?? null,
      names: worker?.names ?? info?.names ?? null,
      slots: info?.slots ?? null,
      running: leases.map(({ task_id, name, attempt, started_at }) => ({
        task_id,
        name,
        attempt,
        started_at,
      })),
      stuck: info?.stuck ?? 0,
      kills: info?.kills ?? 0,
      restarts: info?.restarts ?? 0,
      directive: worker?.directive ?? "ok",
      last_seen_ms: worker === undefined ? 0 : Math.round(now - worker.heardAt),
    };
  }

  #heard(id: string, principal: string, told: Directive): Worker {
    const key = keyOf(id, principal);
    const known = this.#workers.get(key);
    const worker: Worker = known ?? {
      id,
      principal,
      member: null,
      queues: null,
      names: null,
      info: null,
      directive: told,
      heardAt: 0,
    };
    worker.heardAt = this.#clock.monotonic();
    if (SEVERITY[told] > SEVERITY[worker.directive]) worker.directive = told;
    this.#workers.delete(key);
    this.#workers.set(key, worker);
    if (this.#workers.size > WORKERS_MAX) {
      for (const silent of this.#workers.keys()) {
        this.#workers.delete(silent);
        break;
      }
    }
    return worker;
  }
}
