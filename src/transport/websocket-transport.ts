/**
 * `Transport` over Bun's native WebSockets, on the same port as HTTP, path `/raft`.
 *
 * The composition root owns `Bun.serve`: it gives `websocket` to it and calls `upgrade` for `/raft`. Every
 * pair of members holds two connections; each member sends on the one it dialled.
 */
import type { Server, WebSocketHandler } from "bun";
import type {
  Clock,
  Log,
  Millis,
  PeerFrame,
  PeerHello,
  Random,
  Refusal,
  Transport,
  TransportEvents,
} from "../replica/ports.ts";
import type { NodeId } from "../raft/types.ts";
import { CLOSE } from "./close-codes.ts";
import { CodecError, encodeFrame, MAX_FRAME_BYTES } from "./codec.ts";
import type { DialTls, Endpoint } from "./endpoint.ts";
import { Inbound } from "./inbound.ts";
import { Notices } from "./notices.ts";
import { Outbound } from "./outbound.ts";
import { PROTOCOL, type ProtocolRange } from "./protocol-version.ts";

/** Accepted connections, proved or not: a member has one per peer, the rest are strangers or left-overs. */
const MAX_SESSIONS = 256;
/**
 * Of them, those that have not proved who they are; the oldest gives way, so that whoever knocks without end
 * keeps no member out, and cannot make this one hold more than so many messages of the largest size.
 */
const MAX_STRANGERS = 32;
/** Seconds without anything from the dialler, which pings twice a second; Bun's smallest value. */
const INBOUND_IDLE_TIMEOUT_S = 8;
/** How long `close` waits for close frames to be answered before it cuts. */
const CLOSE_GRACE_MS = 200;
const ORIGIN_SENTENCE = "Members do not send an Origin: no web page may drive a cluster.\n";
const ALONE_SENTENCE =
  "This member takes no others: it is alone, and was started without --peers, --join and --secret. Start it with a --secret, or add the other one first.\n";

export interface WebSocketTransportOptions {
  readonly selfId: NodeId;
  readonly secret: string | null;
  /** False: every upgrade is refused (no other members, no peers, no join and no secret). */
  readonly acceptsPeers: () => boolean;
  /** For `https://` peers. */
  readonly tls?: DialTls;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** What it speaks; for tests that play another build. */
  readonly protocol?: ProtocolRange;
}

export class WebSocketTransport implements Transport {
  /** For `Bun.serve`; its sockets are those that `upgrade` let in. */
  readonly websocket: WebSocketHandler<Inbound> = {
    maxPayloadLength: MAX_FRAME_BYTES,
    idleTimeout: INBOUND_IDLE_TIMEOUT_S,
    sendPings: true,
    perMessageDeflate: false,
    open: (socket) => socket.data.opened(socket),
    message: (socket, message) => socket.data.received(message),
    close: (socket) => socket.data.ended(),
  };

  readonly #options: WebSocketTransportOptions;
  readonly #notices: Notices;
  readonly #outbound = new Map<NodeId, Outbound>();
  readonly #sessions = new Set<Inbound>();
  /** The one connection of each member whose frames count. */
  readonly #current = new Map<NodeId, Inbound>();
  #endpoint: Endpoint | null = null;
  #closed = false;

  constructor(options: WebSocketTransportOptions) {
    this.#options = options;
    this.#notices = new Notices(options.log, options.clock);
  }

  /** Answers `GET /raft`. Undefined: the connection was upgraded and no response is to be sent. */
  upgrade(request: Request, server: Server<Inbound>): Response | undefined {
    if (request.headers.has("origin")) return new Response(ORIGIN_SENTENCE, { status: 403 });
    if (!this.#options.acceptsPeers()) return new Response(ALONE_SENTENCE, { status: 403 });
    if (this.#endpoint === null || this.#closed) {
      return new Response("This member is starting or stopping.\n", { status: 503 });
    }
    if (this.#sessions.size >= MAX_SESSIONS) {
      this.#notices.warn("too many connections of members: refused one", { limit: MAX_SESSIONS });
      return new Response("Too many connections of members.\n", { status: 503 });
    }
    this.#makeRoom();
    const session = new Inbound(this.#endpoint, {
      admitted: (proved, hello) => this.#admitted(proved, hello),
      closed: (ended) => this.#ended(ended),
    });
    this.#sessions.add(session);
    if (server.upgrade(request, { data: session })) return undefined;
    session.ended();
    return new Response("This path speaks WebSocket only.\n", {
      status: 426,
      headers: { upgrade: "websocket" },
    });
  }

  start(self: () => PeerHello, events: TransportEvents): void {
    const { selfId, secret, tls = {}, clock, random, protocol = PROTOCOL } = this.#options;
    this.#endpoint = {
      selfId,
      secret,
      protocol,
      tls,
      clock,
      random,
      notices: this.#notices,
      self,
      events,
    };
  }

  setPeers(peers: ReadonlyMap<NodeId, readonly string[]>): void {
    const endpoint = this.#endpoint;
    if (endpoint === null || this.#closed) return;
    for (const [id, outbound] of this.#outbound) {
      if (outbound.mayBeAt(peers.get(id) ?? [])) continue;
      this.#outbound.delete(id);
      void outbound.stop("no longer dialled at this address");
    }
    for (const [id, urls] of peers) {
      if (id === this.#options.selfId || this.#outbound.has(id)) continue;
      const outbound = new Outbound(id, urls, endpoint);
      this.#outbound.set(id, outbound);
      outbound.dial();
    }
  }

  send(to: NodeId, frame: PeerFrame): boolean {
    const outbound = this.#outbound.get(to);
    const version = outbound?.version ?? null;
    if (outbound === undefined || version === null) return false;
    try {
      return outbound.send(encodeFrame(frame, version));
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      this.#options.log.error("a frame cannot be sent", {
        to,
        kind: frame.kind,
        error: error.message,
      });
      return false;
    }
  }

  flush(): void {
    for (const outbound of this.#outbound.values()) outbound.flush();
  }

  waitingBytes(peer: NodeId): number {
    return this.#outbound.get(peer)?.bufferedBytes ?? 0;
  }

  isConnected(peer: NodeId): boolean {
    return this.#outbound.get(peer)?.isOpen === true;
  }

  dismiss(peer: NodeId, refusal: Refusal): void {
    const session = this.#current.get(peer);
    if (session === undefined) return;
    this.#current.delete(peer);
    session.dismiss(refusal);
  }

  /** Bytes that each peer's socket was given and has not sent yet. */
  sendBuffers(): Record<string, number> {
    return Object.fromEntries(
      [...this.#outbound].map(([id, outbound]) => [id, outbound.bufferedBytes]),
    );
  }

  roundTripMs(peer: NodeId): Millis | null {
    return this.#outbound.get(peer)?.roundTripMs ?? null;
  }

  /** Closes every connection with a code that says it is on purpose; takes and dials none from then on. */
  async close(): Promise<void> {
    this.#closed = true;
    const dialled = [...this.#outbound.values()].map((outbound) => outbound.stop("stopping"));
    this.#outbound.clear();
    for (const session of this.#sessions) session.close(CLOSE.drain, "stopping");
    await Promise.all(dialled);
    if (this.#sessions.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#options.clock.after(CLOSE_GRACE_MS, resolve);
    });
    for (const session of this.#sessions) session.terminate();
  }

  /**
   * A member's newest connection takes the place of its older one; only a process older than the one that
   * is connected (same folder, smaller boot) is turned away.
   */
  #admitted(session: Inbound, hello: PeerHello): boolean {
    const older = this.#current.get(hello.id);
    const before = older?.hello ?? null;
    if (before !== null && before.incarnation === hello.incarnation && before.boot > hello.boot) {
      return false;
    }
    this.#current.set(hello.id, session);
    older?.close(CLOSE.duplicate, `a newer connection of ${hello.id}`);
    // The peer is alive: no reason to wait out the backoff of the other direction.
    this.#options.clock.soon(() => this.#outbound.get(hello.id)?.dialSoon());
    return true;
  }

  #makeRoom(): void {
    const strangers = [...this.#sessions].filter(({ hello }) => hello === null);
    // In the order of their coming.
    for (const oldest of strangers.slice(0, Math.max(0, strangers.length + 1 - MAX_STRANGERS))) {
      oldest.close(CLOSE.timeout, "too many connections without a handshake");
      oldest.terminate();
    }
  }

  #ended(session: Inbound): void {
    this.#sessions.delete(session);
    for (const [id, current] of this.#current) {
      if (current === session) this.#current.delete(id);
    }
  }
}
