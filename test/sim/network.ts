/**
 * A model of the peers' connections: a member sends on the connection that it dialled. Frames of one
 * connection arrive in order, or are lost; a partition cuts the path; a killed process closes its side.
 *
 * Beyond what a real connection does, frames may be lost, doubled or overtaken in it: the ports promise
 * nothing better, and what is built on them must not need more.
 */
import { INDEX_0, type Message, type NodeId } from "../../src/raft/types.ts";
import type {
  DisconnectReason,
  Millis,
  PeerFrame,
  PeerHello,
  Refusal,
  Transport,
  TransportEvents,
} from "../../src/replica/ports.ts";
import { CodecError, decodeFrame, encodeFrame } from "../../src/transport/codec.ts";
import type { Echoes } from "./echo.ts";
import type { NodeClock, World } from "./world.ts";

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

interface Endpoint {
  readonly transport: SimTransport;
  readonly events: TransportEvents;
  readonly hello: () => PeerHello;
  /** The process of each member that was let in last: of older ones nothing is heard any more. */
  readonly newest: Map<NodeId, SimTransport>;
  /** Runs a part of the process, when it is awake. */
  readonly enter: (run: () => void) => void;
}

interface Connection {
  readonly to: Endpoint;
  /** Of the folder that dialled. */
  readonly incarnation: string;
  lastAt: Millis;
  inFlight: number;
  pingsMissed: number;
  /** Frames that would arrive later than this are lost with the connection. */
  brokenAt: Millis;
  /** Frames of a connection that is over arrive not before this. */
  stragglersAt: Millis;
  /** Writes succeed and nothing arrives, until pings that are not answered tell. */
  halfOpen: boolean;
}

interface HeldVote {
  readonly term: number;
  readonly pre: boolean;
  readonly arrive: () => void;
}
const HELD_VOTES_MAX = 16;

/** What the simulator sees of the wire. */
export interface NetworkWatch {
  sent(from: NodeId, to: NodeId, frame: PeerFrame): void;
  delivered(from: NodeId, to: NodeId, frame: PeerFrame): void;
  /** The receiver has dealt with what was delivered; `incarnation`: of the folder on whose connection it came. */
  taken?(to: NodeId, frame: PeerFrame, incarnation: string): void;
}

const REDIAL_MS: Millis = 50;
const HANDSHAKE_TIMEOUT_MS: Millis = 2_000;
const PING_EVERY_MS: Millis = 500;
const PINGS_MISSED_MAX = 6;
/** A cut path shows by pings that are not answered. */
const KEEP_ALIVE_MS: Millis = PING_EVERY_MS * PINGS_MISSED_MAX;
const LATE_MS: Millis = 5_000;
const STRAGGLE_MS: Millis = 2_000;

export class Network {
  readonly #endpoints = new Map<NodeId, Endpoint>();
  /** Whether each cut is one of a partition: others cut as well. */
  readonly #cut = new Map<string, boolean>();
  /** Until when nothing passes a path; nothing is lost. */
  readonly #clogged = new Map<string, Millis>();
  /** The kind of Raft's messages that a path loses, and until when. */
  readonly #sieves = new Map<string, { readonly type: Message["type"]; readonly until: Millis }>();
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
    if (cut) this.#cut.set(`${from}>${to}`, isPartition);
    else this.#cut.delete(`${from}>${to}`);
  }

  clog(from: NodeId, to: NodeId, ms: Millis): void {
    this.#clogged.set(`${from}>${to}`, this.world.now + ms);
  }

  /** One kind of Raft's messages is lost on this path for so long. */
  sieve(from: NodeId, to: NodeId, type: Message["type"], ms: Millis): void {
    this.#sieves.set(`${from}>${to}`, { type, until: this.world.now + ms });
  }

  isSieved(from: NodeId, to: NodeId, frame: PeerFrame): boolean {
    if (this.#sieves.size === 0 || frame.kind !== "raft") return false;
    const sieve = this.#sieves.get(`${from}>${to}`);
    return sieve?.type === frame.message.type && sieve.until > this.world.now;
  }

  heal(): void {
    this.#sieves.clear();
    this.echoes?.clear();
    this.#cut.clear();
    this.#clogged.clear();
  }

  isPartitioned(from: NodeId, to: NodeId): boolean {
    return this.#cut.get(`${from}>${to}`) === true;
  }

  isCut(from: NodeId, to: NodeId): boolean {
    return this.#cut.size > 0 && this.#cut.has(`${from}>${to}`);
  }

  cloggedUntil(from: NodeId, to: NodeId): Millis {
    return this.#clogged.size === 0 ? 0 : (this.#clogged.get(`${from}>${to}`) ?? 0);
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

export class SimTransport implements Transport {
  readonly #network: Network;
  readonly #self: NodeId;
  readonly #clock: NodeClock | null;
  #events: TransportEvents | null = null;
  #hello: (() => PeerHello) | null = null;
  readonly #peers = new Set<NodeId>();
  /** Live connections that this member dialled, each with the endpoint it reached and its newest delivery time. */
  readonly #connections = new Map<NodeId, Connection>();
  /** Dials under way, by peer; each is a new object. */
  readonly #dialling = new Map<NodeId, object>();
  #closed = false;

  /** `clock`: the process that this transport belongs to; nothing reaches it while that stands still. */
  constructor(network: Network, self: NodeId, clock: NodeClock | null = null) {
    this.#network = network;
    this.#self = self;
    this.#clock = clock;
  }

  start(self: () => PeerHello, events: TransportEvents): void {
    if (this.#closed) return;
    this.#hello = self;
    this.#events = events;
    const enter = (run: () => void): void => this.#enter(run);
    const newest = new Map<NodeId, SimTransport>();
    this.#network.attach(this.#self, { transport: this, events, hello: self, enter, newest });
  }

  #enter(run: () => void): void {
    const guarded = (): void => {
      if (!this.#closed) run();
    };
    if (this.#clock === null) guarded();
    else this.#clock.enter(guarded);
  }

  setPeers(peers: ReadonlyMap<NodeId, unknown>): void {
    this.#peers.clear();
    for (const id of peers.keys()) if (id !== this.#self) this.#peers.add(id);
    for (const id of this.#connections.keys())
      if (!this.#peers.has(id)) this.#connections.delete(id);
    for (const id of this.#peers) this.#dial(id);
  }

  send(to: NodeId, frame: PeerFrame): boolean {
    const connection = this.#connections.get(to);
    if (connection === undefined || this.#closed) return false;
    const { world, options, counts, watch } = this.#network;
    const { prng } = world;
    if (connection.inFlight >= (options.sendLimit ?? Number.POSITIVE_INFINITY)) {
      counts.refused += 1;
      return false;
    }
    counts.sent += 1;
    watch?.sent(this.#self, to, frame);
    if (this.#garbled(to, frame) || connection.halfOpen) {
      if (connection.halfOpen) counts.swallowed += 1;
      return true;
    }
    if (this.#keptBack(to, connection, frame)) return true;
    if (this.#network.isSieved(this.#self, to, frame)) {
      counts.sieved += 1;
      return true;
    }
    const whole = options.codec === true ? decodeFrame(encodeFrame(frame)) : frame;
    const sent = this.#perhapsShortened(whole);
    this.#perhapsLate(to, connection, sent);
    this.#perhapsForLaterElection(to, connection, sent);
    let copies = 1;
    if (options.loss > 0 && prng.chance(options.loss)) {
      copies = 0;
      counts.lost += 1;
    } else if (options.duplicate > 0 && prng.chance(options.duplicate)) {
      copies = 2;
      counts.doubled += 1;
    }
    for (let i = 0; i < copies; i++) this.#deliver(to, connection, this.#perhapsCorrupted(sent));
    return true;
  }

  /** The codec must see that a part is missing; the connection ends. */
  #garbled(to: NodeId, frame: PeerFrame): boolean {
    const { world, options, counts } = this.#network;
    const share = options.garbage ?? 0;
    if (share === 0 || frame.kind === "snapshot" || !world.prng.chance(share)) return false;
    const bytes = encodeFrame(frame);
    try {
      decodeFrame(bytes.subarray(0, world.prng.between(0, bytes.length - 1)));
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      counts.garbage += 1;
      this.#end(to, "rejected");
      return true;
    }
    throw new Error(`a frame of kind ${frame.kind} was read though its end is missing`);
  }

  #perhapsShortened(frame: PeerFrame): PeerFrame {
    const { world, options, counts } = this.#network;
    if ((options.cut ?? 0) === 0 || frame.kind !== "raft") return frame;
    const { message } = frame;
    if (message.type !== "append" || message.entries.length === 0) return frame;
    if (!world.prng.chance(options.cut ?? 0)) return frame;
    counts.shortened += 1;
    const none = world.prng.chance(0.5);
    const kept = none ? 0 : world.prng.between(0, message.entries.length - 1);
    return { kind: "raft", message: { ...message, entries: message.entries.slice(0, kept) } };
  }

  /** To the same process, which may have changed term, role and connection since. */
  #perhapsLate(to: NodeId, connection: Connection, frame: PeerFrame): void {
    const { to: endpoint } = connection;
    const { world, options } = this.#network;
    if ((options.late ?? 0) === 0 || frame.kind !== "raft") return;
    // An answer that outlives the question's term is what tells a careful reader from another.
    const share = (options.late ?? 0) * (frame.message.type.endsWith("-reply") ? 3 : 1);
    if (!world.prng.chance(share)) return;
    const lateMs = world.prng.pick([LATE_MS, LATE_MS / 8]);
    world.at(world.now + world.prng.float() * lateMs, () =>
      this.#arriveLate(to, endpoint, connection, frame),
    );
  }

  #arriveLate(to: NodeId, endpoint: Endpoint, connection: Connection, frame: PeerFrame): void {
    const { options, counts } = this.#network;
    if ((options.late ?? 0) === 0) return;
    if (this.#arriveAgain(to, endpoint, connection, frame)) counts.late += 1;
  }

  /** False: that process is gone, cut off, or hears of a newer process of this member. */
  #arriveAgain(to: NodeId, endpoint: Endpoint, connection: Connection, frame: PeerFrame): boolean {
    if (this.#network.endpoint(to) !== endpoint || this.#network.isCut(this.#self, to))
      return false;
    if (endpoint.newest.get(this.#self) !== this) return false;
    endpoint.enter(() => {
      this.#network.watch?.delivered(this.#self, to, frame);
      endpoint.events.frame(this.#self, frame, connection.incarnation);
      this.#network.watch?.taken?.(to, frame, connection.incarnation);
    });
    return true;
  }

  /** Kept to come again. True: it does not come now. */
  #keptBack(to: NodeId, connection: Connection, frame: PeerFrame): boolean {
    const { echoes, counts } = this.#network;
    if (echoes === null || frame.kind !== "raft") return false;
    const { to: endpoint } = connection;
    return echoes.keep(frame.message, () => {
      const arrives = this.#arriveAgain(to, endpoint, connection, frame);
      if (arrives) counts.echoed += 1;
      return arrives;
    });
  }

  /** An election is over so soon that hardly any answer would outlive it by chance: a copy comes in the next one. */
  #perhapsForLaterElection(to: NodeId, connection: Connection, frame: PeerFrame): void {
    const { world, options, heldVotes } = this.#network;
    if ((options.late ?? 0) === 0 || frame.kind !== "raft") return;
    const { message } = frame;
    const { to: endpoint } = connection;
    if (message.type === "vote-reply") {
      const { term, pre } = message;
      const arrive = (): void => this.#arriveLate(to, endpoint, connection, frame);
      const held = heldVotes.get(to) ?? [];
      heldVotes.set(to, [...held, { term, pre, arrive }].slice(-HELD_VOTES_MAX));
    }
    if (message.type !== "vote") return;
    const held = heldVotes.get(this.#self) ?? [];
    const due = held.filter(({ term, pre }) => term < message.term && pre === message.pre);
    if (due.length === 0) return;
    heldVotes.set(
      this.#self,
      held.filter((each) => !due.includes(each)),
    );
    for (const { arrive } of due)
      if (world.prng.chance(0.5)) world.at(world.now + this.#network.delay(), arrive);
  }

  /** Only chunks: everything else has the connection's own checksum, and no other to fall back on. */
  #perhapsCorrupted(frame: PeerFrame): PeerFrame {
    const { world, options, counts } = this.#network;
    if (frame.kind !== "snapshot" || frame.frame.type !== "chunk") return frame;
    if ((options.corrupt ?? 0) === 0 || !world.prng.chance(options.corrupt ?? 0)) return frame;
    counts.corrupted += 1;
    const data = new Uint8Array(frame.frame.data);
    const at = world.prng.between(0, data.length - 1);
    data[at] = (data[at] ?? 0) ^ (1 << world.prng.between(0, 7));
    return { kind: "snapshot", frame: { ...frame.frame, data } };
  }

  #deliver(to: NodeId, connection: Connection, frame: PeerFrame): void {
    const { world, options, counts } = this.#network;
    const delay = this.#network.delay();
    const overtaken = (options.reorder ?? 0) > 0 && world.prng.chance(options.reorder ?? 0);
    const cloggedUntil = this.#network.cloggedUntil(this.#self, to);
    if (cloggedUntil > world.now + delay) counts.clogged += 1;
    let at = Math.max(world.now + delay, cloggedUntil);
    if (overtaken) {
      counts.overtaken += 1;
      at += world.prng.float() * 10 * options.delayMax;
    } else {
      at = Math.max(connection.lastAt, at);
      connection.lastAt = at;
    }
    connection.inFlight += 1;
    world.at(at, () => this.#arrive(to, connection, frame));
  }

  #arrive(to: NodeId, connection: Connection, frame: PeerFrame): void {
    const { world, counts } = this.#network;
    const until = this.#network.cloggedUntil(this.#self, to);
    if (until > world.now) {
      counts.clogged += 1;
      world.at(until, () => this.#arrive(to, connection, frame));
      return;
    }
    if (connection.stragglersAt > world.now) {
      counts.stragglers += 1;
      world.at(connection.stragglersAt, () => this.#arrive(to, connection, frame));
      return;
    }
    connection.inFlight -= 1;
    if (connection.brokenAt < world.now) return;
    if (this.#network.isCut(this.#self, to)) {
      if (this.#network.isPartitioned(this.#self, to)) counts.partitioned += 1;
      return;
    }
    if (this.#network.endpoint(to) !== connection.to) return;
    if (connection.to.newest.get(this.#self) !== this) return;
    connection.to.enter(() => {
      this.#network.watch?.delivered(this.#self, to, frame);
      connection.to.events.frame(this.#self, frame, connection.incarnation);
      this.#network.watch?.taken?.(to, frame, connection.incarnation);
    });
  }

  isConnected(peer: NodeId): boolean {
    return this.#connections.has(peer);
  }

  /** Ends what `peer` dialled. */
  dismiss(peer: NodeId, refusal: Refusal): void {
    const other = this.#network.endpoint(peer);
    const { world } = this.#network;
    world.at(world.now + this.#network.delay(), () =>
      other?.enter(() => {
        if (this.#network.endpoint(peer) !== other) return;
        other.events.refused(this.#self, refusal, {
          what: "connection",
          configIndex: INDEX_0,
        });
        other.transport.lost(this.#self, this, "rejected");
      }),
    );
  }

  roundTripMs(): number | null {
    return null;
  }

  async close(): Promise<void> {
    this.kill();
  }

  kill(): void {
    this.#closed = true;
    this.#connections.clear();
    this.#network.detach(this.#self, this);
  }

  /** The connection to that process is over; one to its successor is not meant. */
  lost(peer: NodeId, process: SimTransport, reason: DisconnectReason): void {
    if (this.#closed || this.#connections.get(peer)?.to.transport !== process) return;
    this.#end(peer, reason);
  }

  /**
   * The connection breaks in mid-stream. What is on its way is lost from some point on, or (`straggle`) arrives
   * late, when the next connection has carried frames already. False: there is none.
   */
  break(peer: NodeId, straggle = false): boolean {
    const connection = this.#connections.get(peer);
    if (connection === undefined) return false;
    const { world } = this.#network;
    if (straggle) connection.stragglersAt = world.now + STRAGGLE_MS * world.prng.float();
    else connection.brokenAt = world.now + this.#network.delay() * world.prng.float();
    this.#end(peer, "closed-by-peer");
    return true;
  }

  /** False: there is no connection. */
  halfOpen(peer: NodeId): boolean {
    const connection = this.#connections.get(peer);
    if (connection === undefined) return false;
    connection.halfOpen = true;
    return true;
  }

  /** Whether what this member sends now would be on its way to whoever it is connected to. */
  reaches(peer: NodeId): boolean {
    const connection = this.#connections.get(peer);
    return connection !== undefined && !connection.halfOpen;
  }

  /** Whether its connection is to that very process. */
  isConnectedTo(peer: NodeId, process: SimTransport | null): boolean {
    return process !== null && this.#connections.get(peer)?.to.transport === process;
  }

  #end(peer: NodeId, reason: DisconnectReason): void {
    this.#connections.delete(peer);
    this.#enter(() => {
      this.#events?.disconnected(peer, reason);
      this.#dial(peer);
    });
  }

  #dial(peer: NodeId): void {
    if (
      this.#closed ||
      this.#dialling.has(peer) ||
      this.#connections.has(peer) ||
      !this.#peers.has(peer)
    )
      return;
    const attempt = {};
    this.#dialling.set(peer, attempt);
    const { world } = this.#network;
    const over = (): boolean => this.#closed || this.#dialling.get(peer) !== attempt;
    const again = (): void => {
      if (over()) return;
      this.#dialling.delete(peer);
      world.at(world.now + REDIAL_MS, () => this.#dial(peer));
    };
    world.at(world.now + HANDSHAKE_TIMEOUT_MS, again);
    world.at(world.now + this.#network.delay(), () => {
      if (over() || this.#hello === null) return;
      const other = this.#network.endpoint(peer);
      if (this.#network.isCut(this.#self, peer)) {
        again();
        return;
      }
      if (other === undefined) {
        const refused = !this.#network.isCut(peer, this.#self);
        if (refused) this.#enter(() => this.#events?.disconnected(peer, "refused"));
        again();
        return;
      }
      other.enter(() => this.#handshake(peer, other, over, again));
    });
  }

  /** Runs in the other process; what follows, in this one. */
  #handshake(peer: NodeId, other: Endpoint, over: () => boolean, again: () => void): void {
    const { world } = this.#network;
    if (over() || this.#hello === null) return;
    if (this.#network.isCut(peer, this.#self) || this.#network.endpoint(peer) !== other) {
      again();
      return;
    }
    const hello = this.#hello();
    const refusal = other.events.admit(hello);
    if (refusal === null) other.newest.set(this.#self, this);
    const theirs = other.hello();
    world.at(world.now + this.#network.delay(), () =>
      this.#enter(() => {
        if (over()) return;
        const own = refusal ?? this.#events?.admit(theirs) ?? null;
        if (own !== null || this.#events === null) {
          const word = own ?? ({ sentence: "stopped", code: "refused" } as const);
          const { configIndex = INDEX_0 } = hello;
          const judged = { what: "hello", configIndex } as const;
          this.#events?.refused(peer, word, refusal === null ? { what: "peer" } : judged);
          again();
          return;
        }
        this.#dialling.delete(peer);
        if (this.#network.endpoint(peer) !== other) {
          this.#events.disconnected(peer, "closed-by-peer");
          this.#dial(peer);
          return;
        }
        const connection: Connection = {
          to: other,
          incarnation: hello.incarnation,
          lastAt: 0,
          inFlight: 0,
          pingsMissed: 0,
          brokenAt: Number.POSITIVE_INFINITY,
          stragglersAt: 0,
          halfOpen: false,
        };
        this.#connections.set(peer, connection);
        this.#events.connected(peer, theirs);
        this.#ping(peer, connection);
      }),
    );
  }

  /** Pings in a row that were not answered end the connection. */
  #ping(peer: NodeId, connection: Connection): void {
    const { world } = this.#network;
    world.at(world.now + PING_EVERY_MS, () => {
      if (this.#closed || this.#connections.get(peer) !== connection) return;
      const silent =
        connection.halfOpen ||
        this.#network.isCut(this.#self, peer) ||
        this.#network.isCut(peer, this.#self) ||
        connection.to.transport.still;
      connection.pingsMissed = silent ? connection.pingsMissed + 1 : 0;
      if (connection.pingsMissed >= PINGS_MISSED_MAX) this.#end(peer, "timeout");
      else this.#ping(peer, connection);
    });
  }

  get still(): boolean {
    return this.#clock?.still ?? false;
  }
}
