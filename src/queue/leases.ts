/**
 * The leader's table of leases (T6): when each was last heard of, on the leader's monotonic clock, and
 * when its attempt times out, in log time. Heartbeats change this table and nothing else; only the first
 * one of a lease in a leadership, an expiry and a time-out become commands.
 *
 * The table may be wrong without harm: apply checks status, attempt, fence and term again.
 */
import type { Clock, Log, Millis, Timer } from "../replica/ports.ts";
import type { Command, Signal } from "./commands.ts";
import { Deadlines } from "./deadlines.ts";
import { EXPIRY_PERIODS } from "./leaderships.ts";
import type { RunningLease, TaskState } from "./state.ts";
import type { LeaseRef, LeaseVerdict } from "./types.ts";

/** Leases in one command: each touches a few rows (T3). */
const LEASES_PER_COMMAND = 400;
/** How often the leader looks whether it was away itself; only while there are leases. */
const WATCH_MS: Millis = 500;
/** Later than this on top: the process did not run, and nobody's heartbeat could be heard. */
const AWAY_MS: Millis = 500;
/** Between two looks at whether a command about a lease is to be proposed again: it did not get through. */
const AGAIN_MS: Millis = 1_000;

interface Lease {
  readonly id: string;
  readonly attempt: number;
  readonly fence: number;
  readonly timeoutAt: Millis | null;
  heardAt: Millis;
  confirm: "unheard" | "proposed" | "confirmed";
  /**
   * Its expiry was proposed: true once that was applied, false when it did not get through as far as is known.
   * From then on no heartbeat may be answered `ok` before the outcome is seen: the entry may be on its way.
   */
  expiring: Promise<boolean> | null;
  /** What was proposed about its end and has no outcome yet: proposed again, it would stand in the queue twice. */
  readonly underWay: Record<End, boolean>;
}

type End = "expire" | "timeout";

export interface LeaseTableOptions {
  readonly state: TaskState;
  readonly clock: Clock;
  readonly log: Log;
  /** Log time of this leader. */
  readonly logNow: () => Millis;
  readonly propose: (command: Command, weight: number) => Promise<unknown>;
}

export class LeaseTable {
  readonly #o: LeaseTableOptions;
  readonly #leases = new Map<string, Lease>();
  readonly #expiries: Deadlines<string>;
  readonly #timeouts: Deadlines<string>;
  #confirming: LeaseRef[] = [];
  #term: number | null = null;
  #watch: Timer | null = null;
  #watchAt: Millis = 0;
  /** When to look next for leases that no leadership heard of; monotonic. */
  #unconfirmedAt: Millis = 0;

  constructor(options: LeaseTableOptions) {
    this.#o = options;
    const { clock, logNow } = options;
    this.#expiries = new Deadlines(
      clock,
      () => clock.monotonic(),
      (ids) => this.#expired(ids),
    );
    this.#timeouts = new Deadlines(clock, logNow, (ids) => this.#timedOut(ids));
  }

  get size(): number {
    return this.#leases.size;
  }

  /** A leadership begins: every lease gets a full period from now. */
  start(term: number): void {
    this.stop();
    this.#term = term;
    for (const lease of this.#o.state.running()) {
      this.#add(lease.task_id, lease.attempt, lease.fence, lease.timeout_at);
    }
    void this.#send({ type: "takeover", term }, 1);
    this.#unconfirmedAt = 0;
  }

  stop(): void {
    this.#term = null;
    this.#leases.clear();
    this.#confirming = [];
    this.#expiries.clear();
    this.#timeouts.clear();
    this.#watch?.cancel();
    this.#watch = null;
  }

  applied(signals: readonly Signal[], now: Millis): void {
    if (this.#term === null) return;
    for (const signal of signals) {
      switch (signal.type) {
        case "claimed": {
          const { id, lease, started_at, timeout_ms } = signal.task;
          const timeoutAt = timeout_ms === null ? null : (started_at ?? now) + timeout_ms;
          this.#add(id, lease.attempt, lease.fence, timeoutAt);
          break;
        }
        case "lease-end":
          if (this.#leases.get(signal.id)?.fence === signal.fence) this.#forget(signal.id);
          break;
        case "settings":
          this.#rearm();
          break;
        case "ready":
        case "lease-lost":
        case "lease-cancel":
        case "final":
        case "changed":
        case "cleared":
          break;
      }
    }
  }

  /**
   * A heartbeat came, and the quorum round before its answer begins: what it names does not expire meanwhile.
   * Nothing is told yet.
   */
  arrived(workerId: string, principal: string, refs: readonly LeaseRef[], arrivedAt: Millis): void {
    for (const ref of refs) {
      const lease = this.#leases.get(ref.task_id);
      if (lease === undefined || lease.fence !== ref.fence) continue;
      const held = this.#o.state.leaseOf(ref.task_id);
      if (verdictOn(held, ref, workerId, principal) !== "lost") this.#postpone(lease, arrivedAt);
    }
  }

  /**
   * Waits for the expiries that are on their way. False: one did not get through as far as is known, and may
   * be applied all the same; nothing can be said of these leases until it is proposed again.
   */
  async settled(refs: readonly LeaseRef[]): Promise<boolean> {
    const seen = new Set<Promise<boolean>>();
    let all = true;
    for (;;) {
      // Another may have been proposed while this waited.
      let next: Promise<boolean> | null = null;
      for (const { task_id } of refs) {
        const expiring = this.#leases.get(task_id)?.expiring ?? null;
        if (expiring !== null && !seen.has(expiring)) next = expiring;
      }
      if (next === null) return all;
      seen.add(next);
      if (!(await next)) all = false;
    }
  }

  /**
   * What to tell a worker of its leases; `arrivedAt`: when its heartbeat came, monotonic. The caller made
   * sure that this member led, and had applied all that was acknowledged, after that.
   */
  heartbeat(
    workerId: string,
    principal: string,
    refs: readonly LeaseRef[],
    arrivedAt: Millis,
  ): LeaseVerdict[] {
    return refs.map((ref) => {
      const held = this.#o.state.leaseOf(ref.task_id);
      const verdict = verdictOn(held, ref, workerId, principal);
      if (verdict !== "lost") this.#heard(ref, arrivedAt);
      return verdict;
    });
  }

  // ------------------------------------------------------------------ the table

  #add(id: string, attempt: number, fence: number, timeoutAt: Millis | null): void {
    const heardAt = this.#o.clock.monotonic();
    this.#leases.set(id, {
      id,
      attempt,
      fence,
      timeoutAt,
      heardAt,
      confirm: "unheard",
      expiring: null,
      underWay: { expire: false, timeout: false },
    });
    this.#expiries.set(id, heardAt + this.#patienceMs());
    if (timeoutAt === null) this.#timeouts.delete(id);
    else this.#timeouts.set(id, timeoutAt);
    this.#startWatch();
  }

  #forget(id: string): void {
    this.#leases.delete(id);
    this.#expiries.delete(id);
    this.#timeouts.delete(id);
  }

  #heard(ref: LeaseRef, at: Millis): void {
    const lease = this.#leases.get(ref.task_id);
    if (lease === undefined || lease.fence !== ref.fence) return;
    this.#postpone(lease, at);
    if (lease.confirm !== "unheard") return;
    lease.confirm = "proposed";
    this.#confirming.push({ task_id: lease.id, attempt: lease.attempt, fence: lease.fence });
    if (this.#confirming.length === 1) this.#o.clock.soon(() => this.#confirm());
  }

  #postpone(lease: Lease, at: Millis): void {
    lease.heardAt = Math.max(lease.heardAt, at);
    if (lease.expiring === null) this.#expiries.set(lease.id, lease.heardAt + this.#patienceMs());
  }

  #patienceMs(): Millis {
    return this.#o.state.settings().lease * EXPIRY_PERIODS;
  }

  /** The period was changed, or this process was away. */
  #rearm(): void {
    for (const lease of this.#leases.values())
      this.#expiries.set(lease.id, lease.heardAt + this.#patienceMs());
  }

  // ------------------------------------------------------------------ being away

  #startWatch(): void {
    if (this.#watch !== null) return;
    const { clock } = this.#o;
    this.#watchAt = clock.monotonic() + WATCH_MS;
    this.#watch = clock.after(WATCH_MS, () => {
      this.#watch = null;
      this.#lookBack();
      this.#expireUnconfirmed();
      if (this.#leases.size > 0) this.#startWatch();
    });
  }

  /** True: this process did not run for a while; every lease has a full period again (T6). */
  #lookBack(): boolean {
    const now = this.#o.clock.monotonic();
    if (now - this.#watchAt <= AWAY_MS) return false;
    this.#watchAt = now + WATCH_MS;
    this.#o.log.warn("this leader did not run for a while; every lease gets a full period", {
      leases: this.#leases.size,
    });
    for (const lease of this.#leases.values()) lease.heardAt = now;
    this.#rearm();
    return true;
  }

  // ------------------------------------------------------------------ commands

  /** Elections give every lease a full period; so many in a row must not keep a dead worker's alive (T6). */
  #expireUnconfirmed(): void {
    const term = this.#term;
    const now = this.#o.clock.monotonic();
    if (term === null || now < this.#unconfirmedAt) return;
    this.#unconfirmedAt = now + this.#o.state.settings().lease / 3;
    const leases = this.#o.state
      .unconfirmed(this.#o.logNow(), LEASES_PER_COMMAND)
      .filter(({ task_id }) => this.#leases.get(task_id)?.underWay.expire !== true);
    if (leases.length === 0) return;
    this.#o.log.info("leases that no leader heard of expired", { leases: leases.length });
    const items = leases.map(({ task_id, attempt, fence, seen }) => ({
      task_id,
      attempt,
      fence,
      seen,
    }));
    this.#expire(term, items);
  }

  #confirm(): void {
    const term = this.#term;
    const refs = this.#confirming;
    this.#confirming = [];
    if (term === null) return;
    for (const items of pieces(refs)) {
      const mark = (confirm: Lease["confirm"]): void => {
        if (this.#term !== term) return;
        for (const { task_id, fence } of items) {
          const lease = this.#leases.get(task_id);
          if (lease?.fence === fence) lease.confirm = confirm;
        }
      };
      this.#o.propose({ type: "confirm", term, items }, items.length).then(
        () => mark("confirmed"),
        // The next heartbeat tries again.
        () => mark("unheard"),
      );
    }
  }

  #expired(ids: readonly string[]): void {
    const term = this.#term;
    if (term === null) return;
    if (this.#lookBack()) {
      for (const id of ids) {
        const lease = this.#leases.get(id);
        if (lease !== undefined) this.#expiries.set(id, lease.heardAt + this.#patienceMs());
      }
      return;
    }
    const items = this.#due(ids, "expire").map((lease) => ({
      ...refOf(lease),
      seen: lease.confirm !== "unheard" || this.#o.state.leaseOf(lease.id)?.seen === true,
    }));
    for (const piece of pieces(items)) {
      this.#o.log.info("leases expired", { leases: piece.length });
      this.#expire(term, piece);
    }
  }

  #expire(term: number, items: readonly (LeaseRef & { readonly seen: boolean })[]): void {
    const outcome = this.#end({ type: "expire", term, items });
    for (const { task_id, fence } of items) {
      const lease = this.#leases.get(task_id);
      if (lease?.fence === fence) lease.expiring = outcome;
    }
  }

  #timedOut(ids: readonly string[]): void {
    const term = this.#term;
    if (term === null) return;
    const items = this.#due(ids, "timeout").map(refOf);
    for (const piece of pieces(items)) void this.#end({ type: "timeout", term, items: piece });
  }

  /** Proposes the end of these leases. */
  async #end(command: Extract<Command, { type: End }>): Promise<boolean> {
    const { items, type } = command;
    const ending: Lease[] = [];
    for (const { task_id, fence } of items) {
      const lease = this.#leases.get(task_id);
      if (lease?.fence === fence) ending.push(lease);
    }
    for (const { underWay } of ending) underWay[type] = true;
    const gotThrough = await this.#send(command, items.length);
    for (const { underWay } of ending) underWay[type] = false;
    return gotThrough;
  }

  /** The leases of `ids` whose end is not under way; each is looked at again later in case its command is lost. */
  #due(ids: readonly string[], end: End): Lease[] {
    const deadlines = end === "expire" ? this.#expiries : this.#timeouts;
    const now = end === "expire" ? this.#o.clock.monotonic() : this.#o.logNow();
    const due: Lease[] = [];
    for (const id of ids) {
      const lease = this.#leases.get(id);
      if (lease === undefined) continue;
      if (!lease.underWay[end]) due.push(lease);
      deadlines.set(id, now + AGAIN_MS);
    }
    return due;
  }

  /** True once it was applied; false when it was not, as far as is known. */
  async #send(command: Command, weight: number): Promise<boolean> {
    try {
      await this.#o.propose(command, weight);
      return true;
    } catch (error) {
      this.#o.log.debug("a command about leases did not get through", {
        type: command.type,
        error: String(error),
      });
      return false;
    }
  }
}

function verdictOn(
  held: RunningLease | null,
  ref: LeaseRef,
  workerId: string,
  principal: string,
): LeaseVerdict {
  if (held === null || held.attempt !== ref.attempt || held.fence !== ref.fence) return "lost";
  if (held.worker !== workerId || held.principal !== principal) return "lost";
  return held.cancelling ? "cancel" : "ok";
}

function refOf({ id, attempt, fence }: Lease): LeaseRef {
  return { task_id: id, attempt, fence };
}

function* pieces<T>(items: readonly T[]): Generator<readonly T[]> {
  for (let from = 0; from < items.length; from += LEASES_PER_COMMAND)
    yield items.slice(from, from + LEASES_PER_COMMAND);
}
