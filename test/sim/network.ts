/**
 * A model of the peers' connections: a member sends on the connection that it dialled. Frames of one
 * connection arrive in order, or are lost; a partition cuts the path; a killed process closes its side.
 */
import type { NodeId } from "../../src/raft/types.ts";
import type {
  DisconnectReason,
  Millis,
  PeerFrame,
  PeerHello,
  Transport,
  TransportEvents,
} from "../../src/replica/ports.ts";
import type { World } from "./world.ts";

export interface NetworkOptions {
  /** One-way delay, drawn from [min, max]. */
  delayMin: Millis;
  delayMax: Millis;
  loss: number;
  duplicate: number;
}

interface Endpoint {
  readonly transport: SimTransport;
  readonly events: TransportEvents;
  readonly hello: () => PeerHello;
}

const REDIAL_MS: Millis = 50;
const KEEP_ALIVE_MS: Millis = 2_000;

export class Network {
  readonly #endpoints = new Map<NodeId, Endpoint>();
  readonly #cut = new Set<string>();

  constructor(
    readonly world: World,
    readonly options: NetworkOptions,
  ) {}

  /** Cuts, or heals, one direction. */
  setCut(from: NodeId, to: NodeId, cut: boolean): void {
    if (cut) this.#cut.add(`${from}>${to}`);
    else this.#cut.delete(`${from}>${to}`);
  }

  heal(): void {
    this.#cut.clear();
  }

  isCut(from: NodeId, to: NodeId): boolean {
    return this.#cut.has(`${from}>${to}`);
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
  #events: TransportEvents | null = null;
  #hello: (() => PeerHello) | null = null;
  readonly #peers = new Set<NodeId>();
  /** Live connections that this member dialled, each with the endpoint it reached and its newest delivery time. */
  readonly #connections = new Map<NodeId, { to: Endpoint; lastAt: Millis }>();
  readonly #dialling = new Set<NodeId>();
  #closed = false;

  constructor(network: Network, self: NodeId) {
    this.#network = network;
    this.#self = self;
  }

  start(self: () => PeerHello, events: TransportEvents): void {
    this.#hello = self;
    this.#events = events;
    this.#network.attach(this.#self, { transport: this, events, hello: self });
  }

  setPeers(peers: ReadonlyMap<NodeId, string>): void {
    this.#peers.clear();
    for (const id of peers.keys()) if (id !== this.#self) this.#peers.add(id);
    for (const id of this.#connections.keys())
      if (!this.#peers.has(id)) this.#connections.delete(id);
    for (const id of this.#peers) this.#dial(id);
  }

  send(to: NodeId, frame: PeerFrame): boolean {
    const connection = this.#connections.get(to);
    if (connection === undefined || this.#closed) return false;
    const { world, options } = this.#network;
    const copies = world.prng.chance(options.loss)
      ? 0
      : world.prng.chance(options.duplicate)
        ? 2
        : 1;
    for (let i = 0; i < copies; i++) {
      connection.lastAt = Math.max(connection.lastAt, world.now + this.#network.delay());
      world.at(connection.lastAt, () => {
        if (this.#network.isCut(this.#self, to)) return;
        if (this.#network.endpoint(to) !== connection.to) return;
        connection.to.events.frame(this.#self, frame);
      });
    }
    return true;
  }

  isConnected(peer: NodeId): boolean {
    return this.#connections.has(peer);
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
    this.#connections.delete(peer);
    this.#events?.disconnected(peer, reason);
    this.#dial(peer);
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
    world.at(world.now + 2 * this.#network.delay(), () => {
      this.#dialling.delete(peer);
      if (this.#closed || this.#hello === null || this.#events === null) return;
      const other = this.#network.endpoint(peer);
      const reachable =
        !this.#network.isCut(this.#self, peer) && !this.#network.isCut(peer, this.#self);
      if (!reachable || other === undefined) {
        if (reachable) this.#events.disconnected(peer, "refused");
        world.at(world.now + REDIAL_MS, () => this.#dial(peer));
        return;
      }
      const mine = this.#hello();
      const theirs = other.hello();
      if (other.events.admit(mine) !== null || this.#events.admit(theirs) !== null) {
        world.at(world.now + REDIAL_MS, () => this.#dial(peer));
        return;
      }
      this.#connections.set(peer, { to: other, lastAt: 0 });
      this.#events.connected(peer, theirs);
    });
  }
}
