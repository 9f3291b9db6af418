/**
 * A model of one process's connections: it sends on those that it dialled. Frames of one connection arrive in order, or are
 * lost; a killed process closes its side. What happens on the way is drawn here, by the network's options.
 */
import { INDEX_0, type NodeId } from "../../src/raft/types.ts";
import type {
  DisconnectReason,
  Millis,
  PeerFrame,
  PeerHello,
  Refusal,
  Transport,
  TransportEvents,
} from "../../src/replica/ports.ts";
import { decodeFrame, encodeFrame } from "../../src/transport/codec.ts";
import { isGarbled, perhapsCorrupted, perhapsShortened } from "./damage.ts";
import { type Endpoint, type Network, PING_EVERY_MS, PINGS_MISSED_MAX } from "./network.ts";
import type { NodeClock } from "./world.ts";

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

/** A dial under way. */
interface Attempt {
  isOver: boolean;
}

const HELD_VOTES_MAX = 16;

const REDIAL_MS: Millis = 50;
const HANDSHAKE_TIMEOUT_MS: Millis = 2_000;
const LATE_MS: Millis = 5_000;
const STRAGGLE_MS: Millis = 2_000;

export class SimTransport implements Transport {
  readonly #network: Network;
  readonly #self: NodeId;
  readonly #clock: NodeClock | null;
  #events: TransportEvents | null = null;
  #hello: (() => PeerHello) | null = null;
  readonly #peers = new Set<NodeId>();
  /** Live connections that this member dialled, each with the endpoint it reached and its newest delivery time. */
  readonly #connections = new Map<NodeId, Connection>();
  /** Peers to which a dial is under way. */
  readonly #dialling = new Set<NodeId>();
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
    if (this.#clock?.awake === false) {
      this.#clock.enter(() => this.#enter(run));
      return;
    }
    if (!this.#closed) run();
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
    if (isGarbled(this.#network, frame)) {
      if (connection.halfOpen) counts.swallowed += 1;
      this.#end(to, "rejected");
      return true;
    }
    if (connection.halfOpen) {
      counts.swallowed += 1;
      return true;
    }
    if (this.#keptBack(to, connection, frame)) return true;
    if (this.#network.isSieved(this.#self, to, frame)) {
      counts.sieved += 1;
      return true;
    }
    const whole = options.codec === true ? decodeFrame(encodeFrame(frame)) : frame;
    const sent = perhapsShortened(this.#network, whole);
    this.#perhapsLate(to, connection, sent);
    this.#perhapsForLaterElection(to, connection, sent);
    let copies = 1;
    if (options.loss > 0 && prng.chance(options.loss)) {
      copies = 0;
      counts.lost += 1;
    } else if (options.duplicate > 0 && prng.chance(options.duplicate)) {
      copies = 2;
      counts.doubled += 1;
      watch?.doubled?.(this.#self, sent);
    }
    for (let i = 0; i < copies; i++)
      this.#deliver(to, connection, perhapsCorrupted(this.#network, sent));
    return true;
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
    this.#dialling.add(peer);
    const { world } = this.#network;
    const attempt: Attempt = { isOver: false };
    const again = (): void => {
      if (this.#closed || attempt.isOver) return;
      this.#dialled(peer, attempt);
      world.at(world.now + REDIAL_MS, () => this.#dial(peer));
    };
    world.at(world.now + HANDSHAKE_TIMEOUT_MS, again);
    world.at(world.now + this.#network.delay(), () => {
      if (this.#closed || attempt.isOver || this.#hello === null) return;
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
      other.enter(() => this.#handshake(peer, other, attempt, again));
    });
  }

  #dialled(peer: NodeId, attempt: Attempt): void {
    attempt.isOver = true;
    this.#dialling.delete(peer);
  }

  /** Runs in the other process; what follows, in this one. */
  #handshake(peer: NodeId, other: Endpoint, attempt: Attempt, again: () => void): void {
    const { world } = this.#network;
    if (this.#closed || attempt.isOver || this.#hello === null) return;
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
        if (this.#closed || attempt.isOver) return;
        const own = refusal ?? this.#events?.admit(theirs) ?? null;
        if (own !== null || this.#events === null) {
          const word = own ?? ({ sentence: "stopped", code: "refused" } as const);
          const { configIndex = INDEX_0 } = hello;
          const judged = { what: "hello", configIndex } as const;
          this.#events?.refused(peer, word, refusal === null ? { what: "peer" } : judged);
          again();
          return;
        }
        this.#dialled(peer, attempt);
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
