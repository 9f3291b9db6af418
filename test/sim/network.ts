/**
 * A model of the paths between members: what is lost, cut, clogged and late on them, and which process is at their ends. The
 * connections themselves are in `transport.ts`.
 *
 * Beyond what a real connection does, frames may be lost, doubled or overtaken in it: the ports promise
 * nothing better, and what is built on them must not need more.
 */
import type { Message, NodeId } from "../../src/raft/types.ts";
import type { Millis, PeerFrame, PeerHello, TransportEvents } from "../../src/replica/ports.ts";
import type { Echoes } from "./echo.ts";
import type { SimTransport } from "./transport.ts";
import type { World } from "./world.ts";

export interface NetworkOptions {
  /** One-way delay, drawn from [min, max]. */
  delayMin: Millis;
  delayMax: Millis;
  loss: number;
  duplicate: number;
  /** Share of frames that may be overtaken, by up to ten greatest delays. */
  reorder?: number;
  /** Share of a snapshot's chunks in which a bit flips. */
  corrupt?: number;
  /** Share of Raft's messages of which a copy arrives up to LATE_MS later, whatever connection there is by then. */
  late?: number;
  /** Share of appends that lose their last entries: what is left, an honest leader could have sent. */
  cut?: number;
  /** Share of frames that end the connection because their bytes are wrong. */
  garbage?: number;
  /** Frames on their way in one connection; beyond it they are refused. */
  sendLimit?: number;
  /** Every frame is encoded and decoded as on a real connection. */
  codec?: boolean;
}

export interface Endpoint {
  readonly transport: SimTransport;
  readonly events: TransportEvents;
  readonly hello: () => PeerHello;
  /** The process of each member that was let in last: of older ones nothing is heard any more. */
  readonly newest: Map<NodeId, SimTransport>;
  /** Runs a part of the process, when it is awake. */
  readonly enter: (run: () => void) => void;
}

export interface HeldVote {
  readonly term: number;
  readonly pre: boolean;
  readonly arrive: () => void;
}
/** What the simulator sees of the wire. */
export interface NetworkWatch {
  sent(from: NodeId, to: NodeId, frame: PeerFrame): void;
  delivered(from: NodeId, to: NodeId, frame: PeerFrame): void;
  /** The receiver has dealt with what was delivered; `incarnation`: of the folder on whose connection it came. */
  taken?(to: NodeId, frame: PeerFrame, incarnation: string): void;
  /** What was sent once will be delivered twice. */
  doubled?(from: NodeId, frame: PeerFrame): void;
}

/** Pings in a row that are not answered end a connection. */
export const PING_EVERY_MS: Millis = 500;
export const PINGS_MISSED_MAX = 6;
/** A cut path shows by pings that are not answered. */
const KEEP_ALIVE_MS: Millis = PING_EVERY_MS * PINGS_MISSED_MAX;

/** What is wrong with paths, by direction. Asked for with every frame, so that a key of both ends would be dear. */
class Paths<T> {
  readonly #from = new Map<NodeId, Map<NodeId, T>>();

  get(from: NodeId, to: NodeId): T | undefined {
    return this.#from.get(from)?.get(to);
  }

  set(from: NodeId, to: NodeId, what: T): void {
    const known = this.#from.get(from);
    if (known === undefined) this.#from.set(from, new Map([[to, what]]));
    else known.set(to, what);
  }

  delete(from: NodeId, to: NodeId): void {
    this.#from.get(from)?.delete(to);
  }

  clear(): void {
    this.#from.clear();
  }
}

export class Network {
  readonly #endpoints = new Map<NodeId, Endpoint>();
  /** Whether each cut is one of a partition: others cut as well. */
  readonly #cut = new Paths<boolean>();
  /** Until when nothing passes a path; nothing is lost. */
  readonly #clogged = new Paths<Millis>();
  /** The kind of Raft's messages that a path loses, or a snapshot's frames, and until when. */
  readonly #sieves = new Paths<{
    readonly type: Message["type"] | "snapshot";
    readonly until: Millis;
  }>();
  watch: NetworkWatch | null = null;
  /** Copies of answers in elections, by who asked for them: they arrive in a later election. */
  readonly heldVotes = new Map<NodeId, readonly HeldVote[]>();
  counts = {
    sent: 0,
    lost: 0,
    doubled: 0,
    overtaken: 0,
    refused: 0,
    partitioned: 0,
    clogged: 0,
    corrupted: 0,
    late: 0,
    shortened: 0,
    sieved: 0,
    echoed: 0,
    garbage: 0,
    stragglers: 0,
    swallowed: 0,
  };

  constructor(
    readonly world: World,
    readonly options: NetworkOptions,
    /** Null: nothing comes again but by `late` and `duplicate`. */
    readonly echoes: Echoes | null = null,
  ) {}

  /** Cuts, or heals, one direction. */
  setCut(from: NodeId, to: NodeId, cut: boolean, isPartition = false): void {
    if (cut) this.#cut.set(from, to, isPartition);
    else this.#cut.delete(from, to);
  }

  clog(from: NodeId, to: NodeId, ms: Millis): void {
    this.#clogged.set(from, to, this.world.now + ms);
  }

  /** One kind of Raft's messages, or all that a snapshot is made of, is lost on this path for so long. */
  sieve(from: NodeId, to: NodeId, type: Message["type"] | "snapshot", ms: Millis): void {
    this.#sieves.set(from, to, { type, until: this.world.now + ms });
  }

  isSieved(from: NodeId, to: NodeId, frame: PeerFrame): boolean {
    const sieve = this.#sieves.get(from, to);
    if (sieve === undefined || sieve.until <= this.world.now) return false;
    return sieve.type === (frame.kind === "raft" ? frame.message.type : frame.kind);
  }

  heal(): void {
    this.#sieves.clear();
    this.echoes?.heal();
    this.#cut.clear();
    this.#clogged.clear();
  }

  isPartitioned(from: NodeId, to: NodeId): boolean {
    return this.#cut.get(from, to) === true;
  }

  isCut(from: NodeId, to: NodeId): boolean {
    return this.#cut.get(from, to) !== undefined;
  }

  cloggedUntil(from: NodeId, to: NodeId): Millis {
    return this.#clogged.get(from, to) ?? 0;
  }

  attach(id: NodeId, endpoint: Endpoint): void {
    this.#endpoints.set(id, endpoint);
  }

  /** The process is gone: the others' connections to it close. */
  detach(id: NodeId, transport: SimTransport): void {
    if (this.#endpoints.get(id)?.transport !== transport) return;
    this.#endpoints.delete(id);
    for (const [other, endpoint] of this.#endpoints) {
      // Behind a cut nothing arrives: the half-open connection is found by its keep-alive.
      const cut = this.isCut(id, other);
      const at = this.world.now + (cut ? KEEP_ALIVE_MS : this.delay());
      this.world.at(at, () =>
        endpoint.transport.lost(id, transport, cut ? "timeout" : "closed-by-peer"),
      );
    }
  }

  endpoint(id: NodeId): Endpoint | undefined {
    return this.#endpoints.get(id);
  }

  delay(): Millis {
    return (
      this.options.delayMin +
      this.world.prng.float() * (this.options.delayMax - this.options.delayMin)
    );
  }
}
