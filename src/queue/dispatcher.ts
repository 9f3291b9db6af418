/**
 * The leader's side of claims (T4, T5): workers that wait are parked here as offers, and a `claim` command
 * is proposed for one as soon as there is a task for it: in the very entry that carries a submit, right behind it when
 * the offer comes while that entry is under way, or at once when an offer or a ready task turns up. Nothing is asked
 * again and again.
 *
 * An offer is a wish, not a promise: apply decides what a claim gets. The counting here only keeps the log
 * free of claims that would get nothing. A claim that was proposed twice takes one set, because the
 * machine knows (worker, request).
 */
import type { NodeId } from "../raft/types.ts";
import type { SealedRequest } from "../replica/consensus.ts";
import type { Clock, Log, Millis, Timer } from "../replica/ports.ts";
import { encodeCommand } from "./command-codec.ts";
import type { Answer, Signal } from "./commands.ts";
import type { OfferState } from "./messages.ts";
import type { TaskState } from "./state.ts";
import type { Claim, ClaimedTask, ClaimRef } from "./types.ts";

/** Offers parked at one leader; 10,000 waits of each of five members. */
const OFFERS_MAX = 50_000;
/** Claims proposed and not answered; a quarter of what a member may have unanswered in all. */
const CLAIMS_IN_FLIGHT_MAX = 1_024;
/** Tasks that the claims added to one entry may take together: half of an entry's budget of rows (T3). */
const SEAL_TASKS_MAX = 1_000;
/** Outside workers' requests of which is known who asks; those that fall out are left to their leases. */
const ASKERS_MAX = 10_000;
/** After a claim could not be proposed (a busy or faltering leader). */
const RETRY_MS: Millis = 100;

/** What a submit says of itself, for `onSeal`. */
export interface ReadyHint {
  /** Tasks that will be ready once the entry is applied: queue, name, count. */
  readonly ready: readonly (readonly [queue: string, name: string, count: number])[];
}

export const claimKey = ({ principal, worker_id, request_id }: ClaimRef): string =>
  `${principal}\u0000${worker_id}\u0000${request_id}`;

type Counts = Map<string, Map<string, number>>;
type ReadyCounts = ReadonlyMap<string, ReadonlyMap<string, number>>;

/** What an entry that is not applied here yet will make ready. */
interface Coming {
  readonly index: number;
  readonly ready: readonly (readonly [queue: string, name: string, count: number])[];
}

interface Offer {
  readonly key: string;
  readonly claim: Claim;
  shape: Shape;
  /** Grows: who came first is served first. */
  readonly order: number;
  owner: NodeId;
  expiresAt: Millis;
  /** Ready tasks that were counted as its own when it was proposed; null: not proposed. */
  reserved: (readonly [string, string, number])[] | null;
  /** While it was proposed somebody asked again: by then that member may have applied what it took. */
  again: boolean;
  /** While it was proposed whoever waited has gone. */
  withdrawn: boolean;
}

/** Offers that ask for the same tasks, first come first. */
interface Shape {
  readonly key: string;
  readonly queues: ReadonlySet<string> | null;
  readonly names: ReadonlySet<string> | null;
  readonly star: boolean;
  /** Behind every shape that is not. */
  readonly ahead: boolean;
  /** By order; those under way are elsewhere. */
  readonly waiting: Map<string, Offer>;
  /** Came back with nothing: before `waiting`, ascending by order. */
  returned: Offer[];
  /** Change count at which a claim of this shape got nothing: not proposed again before something changed. */
  emptyAt: number;
}

/** Who asked for a request, in this leadership. */
interface Asked {
  /** The member that asked last. */
  readonly last: NodeId;
  /** Members where somebody may wait for it, or has got it. */
  readonly waiting: Set<NodeId>;
}

/** How the dispatcher speaks to the members that own the waits. */
export interface OwnerPort {
  /** The claim is settled in the state: read it there. */
  known(owner: NodeId, claim: Claim): void;
  /** The claim was proposed and took nothing; it is parked again. */
  returned(owner: NodeId, claim: Claim): void;
  refused(owner: NodeId, claim: Claim, code: string, detail: string): void;
}

export interface DispatcherOptions {
  readonly state: TaskState;
  readonly clock: Clock;
  readonly log: Log;
  readonly propose: (command: Uint8Array, weight: number) => Promise<unknown>;
  readonly owners: OwnerPort;
}

export class Dispatcher {
  readonly #o: DispatcherOptions;
  readonly #offers = new Map<string, Offer>();
  readonly #shapes = new Map<string, Shape>();
  readonly #reserved: Counts = new Map();
  /** Of entries under way, oldest first; a claim goes behind them in the log, so it need not wait until they are applied. */
  #underWay: Coming[] = [];
  /** Their sum. */
  readonly #coming: Counts = new Map();
  /** By request, oldest first; executors of members ask at their own alone, and are not among them. */
  readonly #askers = new Map<string, Asked>();
  /** Requests of which nobody waits for the tasks: those are on their way back. */
  readonly #givingBack = new Map<string, Promise<void>>();
  #inFlight = 0;
  #nextOrder = 1;
  /** Counts what may make a claim succeed that got nothing before. */
  #changes = 1;
  /** Grows with every start and stop: answers of an earlier leadership are ignored. */
  #generation = 0;
  #active = false;
  #matchScheduled = false;
  #retry: Timer | null = null;

  constructor(options: DispatcherOptions) {
    this.#o = options;
  }

  get size(): number {
    return this.#offers.size;
  }

  start(): void {
    this.stop();
    this.#active = true;
  }

  /** Forgets everything: the owners offer again to the next leader. */
  stop(): void {
    this.#generation += 1;
    this.#active = false;
    this.#offers.clear();
    this.#shapes.clear();
    this.#reserved.clear();
    this.#underWay = [];
    this.#coming.clear();
    this.#askers.clear();
    this.#givingBack.clear();
    this.#inFlight = 0;
    this.#retry?.cancel();
    this.#retry = null;
  }

  /** Parks a claim for `ttlMs`, or says that its outcome is in the state already. A repeat replaces it. */
  offer(claim: Claim, owner: NodeId, ttlMs: Millis): OfferState {
    const key = claimKey(claim);
    if (this.isKnown(claim, owner)) return "known";
    const expiresAt = this.#o.clock.monotonic() + ttlMs;
    const parked = this.#offers.get(key);
    if (parked !== undefined) {
      parked.owner = owner;
      parked.expiresAt = expiresAt;
      parked.again = parked.reserved !== null;
      parked.withdrawn = false;
      return "parked";
    }
    if (this.#offers.size >= OFFERS_MAX && !this.#sweep()) return "full";
    const shape = this.#shapeOf(claim);
    const offer: Offer = {
      key,
      claim,
      shape,
      order: this.#nextOrder++,
      owner,
      expiresAt,
      reserved: null,
      again: false,
      withdrawn: false,
    };
    this.#offers.set(key, offer);
    // A name that nobody named before is put on record at once, so that "*" leaves it alone from now on.
    const named = this.#o.state.namedNames();
    if (claim.names?.some((name) => !named.has(name)) === true) {
      this.#launch(offer, [], this.#submit);
      return "parked";
    }
    shape.waiting.set(key, offer);
    this.#match(this.#submit);
    return "parked";
  }

  /** Is the outcome in the state already? What the request got, or may still get, is `owner`'s from now on. */
  isKnown(claim: Claim, owner: NodeId): boolean {
    const key = claimKey(claim);
    if (claim.local === null) this.#asked(key, owner);
    if (this.#o.state.claimAnswer(claim) === null) return false;
    // Told, it has them: whoever waited before has nothing to give back.
    this.#askers.delete(key);
    return true;
  }

  /** Proposed, or only kept from it by how many others are. */
  isUnderWay(ref: ClaimRef): boolean {
    const offer = this.#offers.get(claimKey(ref));
    if (offer === undefined) return false;
    return offer.reserved !== null || this.#inFlight >= CLAIMS_IN_FLIGHT_MAX;
  }

  /** `owner` gives its wait up; a repeat at another member goes on waiting. */
  withdraw(ref: ClaimRef, owner: NodeId): void {
    const key = claimKey(ref);
    const waiting = this.#askers.get(key)?.waiting;
    waiting?.delete(owner);
    const offer = this.#offers.get(key);
    if (offer?.owner !== owner) return;
    // After an election members offer again in any order.
    const other = firstOf(waiting ?? []);
    // What is under way is known of until it is answered: a repeat must hear of it.
    if (other !== null) offer.owner = other;
    else if (offer.reserved !== null && offer.claim.local === null) offer.withdrawn = true;
    else this.#remove(offer);
  }

  /**
   * What the request got goes back by `giveBack`, unless somebody asked after `owner` did, or waits for it: then it is
   * theirs. When nobody knows that any more the leases end it.
   */
  abandon(
    ref: ClaimRef,
    owner: NodeId,
    giveBack: (tasks: readonly ClaimedTask[]) => Promise<void>,
  ): void {
    const key = claimKey(ref);
    const asked = this.#askers.get(key);
    if (asked === undefined || asked.last !== owner || asked.waiting.size > 0) return;
    if (this.#givingBack.has(key) || this.#givingBack.size >= ASKERS_MAX) return;
    const tasks = this.#o.state.claimAnswer(ref) ?? [];
    if (tasks.length === 0) return;
    const done = giveBack(tasks).finally(() => {
      if (this.#givingBack.get(key) === done) this.#givingBack.delete(key);
    });
    this.#givingBack.set(key, done);
  }

  get givesBack(): boolean {
    return this.#givingBack.size > 0;
  }

  /** Resolves once nothing of what these requests got is on its way back: it is nobody's, until that is applied. */
  async settled(refs: readonly ClaimRef[]): Promise<void> {
    for (const ref of refs) await this.#givingBack.get(claimKey(ref));
  }

  withdrawWorker(workerId: string): void {
    for (const offer of this.#offers.values())
      if (offer.claim.worker_id === workerId) this.#remove(offer);
  }

  /** Adds claims to the entry that is about to be sealed, and will stand at `index` (T5). */
  seal(
    batch: readonly SealedRequest[],
    index: number,
    add: (command: Uint8Array) => Promise<unknown>,
  ): void {
    if (!this.#active) return;
    const ready = batch.flatMap(({ hint }) => readyOf(hint));
    if (ready.length > 0) {
      this.#underWay.push({ index, ready });
      for (const [queue, name, count] of ready) bump(this.#coming, queue, name, count);
      this.#changes += 1;
    }
    this.#match(add);
  }

  applied(signals: readonly Signal[]): void {
    if (!this.#active) return;
    let ready = false;
    let last: Claim | null = null;
    for (const signal of signals) {
      if (signal.type === "ready") {
        ready = true;
      } else if (signal.type === "claimed" && signal.claim !== last) {
        last = signal.claim;
        const offer = this.#offers.get(claimKey(signal.claim));
        if (offer === undefined) continue;
        this.#remove(offer);
        if (offer.again && !offer.withdrawn) this.#o.owners.known(offer.owner, offer.claim);
      }
    }
    if (!ready) return;
    this.#changes += 1;
    this.#scheduleMatch();
  }

  // ------------------------------------------------------------------ matching

  readonly #submit = (command: Uint8Array, weight: number): Promise<unknown> =>
    this.#o.propose(command, weight);

  #scheduleMatch(): void {
    if (this.#matchScheduled || this.#offers.size === 0) return;
    this.#matchScheduled = true;
    this.#o.clock.soon(() => {
      this.#matchScheduled = false;
      if (this.#active) this.#match(this.#submit);
    });
  }

  /**
   * Proposes claims while somebody waits for a task that is not counted as another's. Explicit names go
   * first; "*" then takes what nobody ever named.
   */
  #match(propose: (command: Uint8Array, weight: number) => Promise<unknown>): void {
    this.#forgetApplied();
    if (this.#offers.size === 0) return;
    const ready = this.#o.state.ready();
    if (ready.size === 0 && this.#coming.size === 0) return;
    let room = SEAL_TASKS_MAX;
    for (const pass of ["explicit", "star"] as const) {
      for (;;) {
        const candidates = this.#candidates(pass);
        const found = this.#first(candidates, pass, ready);
        if (found === null) break;
        if (room <= 0 || this.#inFlight >= CLAIMS_IN_FLIGHT_MAX) {
          // Answers of those under way start the next round; what is bounded by room goes on next turn.
          if (room <= 0) this.#scheduleMatch();
          return;
        }
        room -= found.count;
        this.#take(found.offer);
        this.#launch(found.offer, found.reserved, propose);
      }
    }
  }

  /** What entries made ready is counted by the state once they are applied. */
  #forgetApplied(): void {
    const applied = this.#o.state.applied().index;
    for (let [first] = this.#underWay; first !== undefined; [first] = this.#underWay) {
      if (first.index > applied) return;
      this.#underWay.shift();
      for (const [queue, name, count] of first.ready) bump(this.#coming, queue, name, -count);
    }
  }

  /** Shapes with somebody waiting, whoever waits longest first; those that wait ahead of a free slot last. */
  #candidates(pass: "explicit" | "star"): Shape[] {
    const shapes: { shape: Shape; order: number }[] = [];
    for (const shape of this.#shapes.values()) {
      if (shape.emptyAt === this.#changes) continue;
      if (pass === "star" && !(shape.star && shape.names !== null)) continue;
      const head = this.#head(shape);
      if (head !== null) shapes.push({ shape, order: head.order });
    }
    return shapes
      .toSorted((a, b) => Number(a.shape.ahead) - Number(b.shape.ahead) || a.order - b.order)
      .map(({ shape }) => shape);
  }

  #first(
    shapes: readonly Shape[],
    pass: "explicit" | "star",
    ready: ReadyCounts,
  ): { offer: Offer; reserved: (readonly [string, string, number])[]; count: number } | null {
    for (const shape of shapes) {
      const offer = this.#head(shape);
      if (offer === null) continue;
      const reserved: (readonly [string, string, number])[] = [];
      let left = offer.claim.max;
      for (const source of [ready, this.#coming]) {
        for (const [queue, name, count] of this.#pairs(shape, pass, source)) {
          if (left <= 0) break;
          // What is ready and coming is looked at once.
          const other = source === ready ? countOf(this.#coming, queue, name) : 0;
          if (source !== ready && countOf(ready, queue, name) > 0) continue;
          const free = count + other - countOf(this.#reserved, queue, name);
          const taken = Math.min(left, Math.max(0, free));
          if (taken > 0) reserved.push([queue, name, taken]);
          left -= taken;
        }
      }
      const count = offer.claim.max - left;
      if (count > 0) return { offer, reserved, count };
    }
    return null;
  }

  /** Queue, name and count of what this shape may take in this pass. */
  *#pairs(
    shape: Shape,
    pass: "explicit" | "star",
    source: ReadyCounts,
  ): Generator<readonly [string, string, number]> {
    for (const queue of shape.queues ?? source.keys()) {
      const counts = source.get(queue);
      if (counts === undefined) continue;
      const byName = pass === "explicit" && shape.names !== null;
      if (byName && shape.names.size <= counts.size) {
        for (const name of shape.names) {
          const count = counts.get(name);
          if (count !== undefined) yield [queue, name, count];
        }
        continue;
      }
      for (const [name, count] of counts) {
        if (byName ? shape.names.has(name) : pass === "explicit" || this.#isStray(name))
          yield [queue, name, count];
      }
    }
  }

  #isStray(name: string): boolean {
    return !this.#o.state.namedNames().has(name);
  }

  // ------------------------------------------------------------------ claims under way

  #launch(
    offer: Offer,
    reserved: (readonly [string, string, number])[],
    propose: (command: Uint8Array, weight: number) => Promise<unknown>,
  ): void {
    offer.reserved = reserved;
    for (const [queue, name, count] of reserved) bump(this.#reserved, queue, name, count);
    this.#inFlight += 1;
    const generation = this.#generation;
    // Expected to take something: if it gets nothing, the like of it need not be proposed again so soon.
    const expectedAt = reserved.length > 0 ? this.#changes : 0;
    const command = encodeCommand({ type: "claim", ...offer.claim });
    const weight = Math.max(
      1,
      reserved.reduce((sum, [, , count]) => sum + count, 0),
    );
    propose(command, weight).then(
      (answer) => {
        if (generation === this.#generation) this.#answered(offer, answer as Answer, expectedAt);
      },
      (error: unknown) => {
        if (generation === this.#generation) this.#failed(offer, error);
      },
    );
  }

  #answered(offer: Offer, answer: Answer, expectedAt: number): void {
    this.#inFlight -= 1;
    this.#unreserve(offer);
    // Usually gone by now: applying the claim removed it.
    if (this.#offers.get(offer.key) === offer) {
      const { claim, owner } = offer;
      if (offer.withdrawn) {
        this.#remove(offer);
      } else if (!answer.ok) {
        this.#remove(offer);
        this.#o.owners.refused(owner, claim, answer.code, answer.detail ?? answer.code);
      } else if (answer.replayed === true || this.#o.state.claimAnswer(claim) !== null) {
        this.#remove(offer);
        this.#o.owners.known(owner, claim);
      } else {
        this.#return(offer);
        this.#o.owners.returned(owner, claim);
        offer.shape.emptyAt = Math.max(offer.shape.emptyAt, expectedAt);
      }
    }
    this.#scheduleMatch();
  }

  #failed(offer: Offer, error: unknown): void {
    this.#inFlight -= 1;
    this.#unreserve(offer);
    // It may still happen: the offer stays, and a second claim of the same request takes nothing more.
    if (this.#offers.get(offer.key) === offer) {
      if (offer.withdrawn) this.#remove(offer);
      else this.#return(offer);
    }
    this.#o.log.debug("a claim could not be proposed", { error: String(error) });
    this.#retry ??= this.#o.clock.after(RETRY_MS, () => {
      this.#retry = null;
      this.#scheduleMatch();
    });
  }

  #unreserve(offer: Offer): void {
    for (const [queue, name, count] of offer.reserved ?? [])
      bump(this.#reserved, queue, name, -count);
    offer.reserved = null;
  }

  // ------------------------------------------------------------------ the parked ones

  #asked(key: string, owner: NodeId): void {
    const waiting = this.#askers.get(key)?.waiting ?? new Set();
    this.#askers.delete(key);
    this.#askers.set(key, { last: owner, waiting: waiting.add(owner) });
    if (this.#askers.size <= ASKERS_MAX) return;
    const oldest = firstOf(this.#askers.keys());
    if (oldest !== null) this.#askers.delete(oldest);
  }

  #shapeOf(claim: Claim): Shape {
    const ahead = claim.ahead === true;
    const key = JSON.stringify([claim.queues, claim.names, claim.star, ahead]);
    let shape = this.#shapes.get(key);
    if (shape === undefined) {
      shape = {
        key,
        queues: claim.queues === null ? null : new Set(claim.queues),
        names: claim.names === null ? null : new Set(claim.names),
        star: claim.star,
        ahead,
        waiting: new Map(),
        returned: [],
        emptyAt: 0,
      };
      this.#shapes.set(key, shape);
    }
    return shape;
  }

  /** Who waits longest in this shape; those whose time is up go. */
  #head(shape: Shape): Offer | null {
    const now = this.#o.clock.monotonic();
    for (;;) {
      const offer = shape.returned[0] ?? firstOf(shape.waiting.values());
      if (offer === null || offer.expiresAt > now) return offer;
      this.#remove(offer);
    }
  }

  #take(offer: Offer): void {
    const { shape } = offer;
    if (shape.waiting.delete(offer.key)) return;
    shape.returned = shape.returned.filter((other) => other !== offer);
  }

  #return(offer: Offer): void {
    const shape = this.#shapes.get(offer.shape.key) ?? offer.shape;
    offer.shape = shape;
    this.#shapes.set(shape.key, shape);
    const at = shape.returned.findIndex((other) => other.order > offer.order);
    shape.returned.splice(at === -1 ? shape.returned.length : at, 0, offer);
  }

  #remove(offer: Offer): void {
    this.#offers.delete(offer.key);
    this.#take(offer);
    // One under way keeps its shape alive by itself.
    const { shape } = offer;
    // Others may wait in a newer shape of this key meanwhile.
    const isCurrent = this.#shapes.get(shape.key) === shape;
    if (isCurrent && shape.waiting.size === 0 && shape.returned.length === 0)
      this.#shapes.delete(shape.key);
    this.#unreserve(offer);
  }

  /** Drops those whose time is up. True: there is room again. */
  #sweep(): boolean {
    const now = this.#o.clock.monotonic();
    for (const offer of this.#offers.values()) if (offer.expiresAt <= now) this.#remove(offer);
    return this.#offers.size < OFFERS_MAX;
  }
}

function firstOf<T>(items: Iterable<T>): T | null {
  for (const item of items) return item;
  return null;
}

/** The hint of another member's submit, checked; anything else is no hint. */
function readyOf(hint: unknown): (readonly [string, string, number])[] {
  if (typeof hint !== "object" || hint === null || !("ready" in hint)) return [];
  const { ready } = hint;
  if (!Array.isArray(ready)) return [];
  const found: (readonly [string, string, number])[] = [];
  for (const item of ready as readonly unknown[]) {
    if (!Array.isArray(item)) continue;
    const [queue, name, count] = item as readonly unknown[];
    if (typeof queue !== "string" || typeof name !== "string") continue;
    if (typeof count === "number" && count > 0) found.push([queue, name, count]);
  }
  return found;
}

function countOf(counts: ReadyCounts, queue: string, name: string): number {
  return counts.get(queue)?.get(name) ?? 0;
}

function bump(counts: Counts, queue: string, name: string, by: number): void {
  let names = counts.get(queue);
  if (names === undefined) counts.set(queue, (names = new Map<string, number>()));
  const count = (names.get(name) ?? 0) + by;
  if (count > 0) names.set(name, count);
  else names.delete(name);
  if (names.size === 0) counts.delete(queue);
}
