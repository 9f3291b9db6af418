/** Real members' transports on real sockets, with what each of them was told. */
import type { Server } from "bun";
import type {
  DisconnectReason,
  Log,
  PeerFrame,
  PeerHello,
  Refusal,
} from "../../src/replica/ports.ts";
import { asIndex, asNodeId, asTerm, type NodeId } from "../../src/raft/types.ts";
import type { Inbound } from "../../src/transport/inbound.ts";
import { systemClock } from "../../src/system/clock.ts";
import { systemRandom } from "../../src/system/random.ts";
import type { ProtocolRange } from "../../src/transport/protocol-version.ts";
import { WebSocketTransport } from "../../src/transport/websocket-transport.ts";

export const SECRET = "correct horse battery staple";

export interface MemberOptions {
  readonly secret?: string | null;
  readonly acceptsPeers?: boolean;
  readonly port?: number;
  readonly boot?: number;
  readonly clusterId?: string | null;
  readonly protocol?: ProtocolRange;
  readonly admit?: (hello: PeerHello) => string | null;
}

/** A transport behind a real server, recording what it reports. */
export class Member {
  readonly id: NodeId;
  readonly transport: WebSocketTransport;
  readonly server: Server<Inbound>;
  readonly frames: { readonly from: NodeId; readonly frame: PeerFrame }[] = [];
  readonly connects: { readonly peer: NodeId; readonly hello: PeerHello }[] = [];
  readonly disconnects: { readonly peer: NodeId; readonly reason: DisconnectReason }[] = [];
  readonly refusals: ({ readonly peer: NodeId } & Refusal)[] = [];
  readonly warnings: string[] = [];
  hello: PeerHello;

  constructor(id: string, options: MemberOptions = {}) {
    this.id = asNodeId(id);
    this.hello = {
      id: this.id,
      incarnation: `folder-of-${id}`,
      boot: options.boot ?? 1,
      clusterId: options.clusterId ?? null,
      lastIndex: asIndex(7),
      lastTerm: asTerm(2),
      peerIds: [this.id],
      advertise: "http://127.0.0.1:1",
      machineVersion: 1,
      machineVersionOldest: 1,
      bootstrap: null,
    };
    const record = (message: string): void => void this.warnings.push(message);
    const log: Log = { debug: () => {}, info: () => {}, warn: record, error: record };
    this.transport = new WebSocketTransport({
      selfId: this.id,
      secret: options.secret === undefined ? SECRET : options.secret,
      acceptsPeers: () => options.acceptsPeers ?? true,
      clock: systemClock,
      random: systemRandom,
      log,
      ...(options.protocol === undefined ? {} : { protocol: options.protocol }),
    });
    const { transport } = this;
    this.server = Bun.serve<Inbound>({
      hostname: "127.0.0.1",
      port: options.port ?? 0,
      fetch: (request, server) => transport.upgrade(request, server),
      websocket: transport.websocket,
    });
    transport.start(() => this.hello, {
      connected: (peer, hello) => void this.connects.push({ peer, hello }),
      disconnected: (peer, reason) => void this.disconnects.push({ peer, reason }),
      frame: (from, frame) => void this.frames.push({ from, frame }),
      admit: (hello) => {
        const sentence = options.admit?.(hello) ?? null;
        return sentence === null ? null : { sentence, code: "refused" };
      },
      refused: (peer, refusal) => void this.refusals.push({ peer, ...refusal }),
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.server.port}`;
  }

  dials(...members: readonly Member[]): void {
    this.transport.setPeers(new Map(members.map((member) => [member.id, [member.url]])));
  }

  reasons(): readonly DisconnectReason[] {
    return this.disconnects.map((entry) => entry.reason);
  }

  async stop(): Promise<void> {
    await this.transport.close();
    await this.server.stop(true);
  }
}

/** Waits for a condition; fails loudly instead of hanging. */
export async function until(what: string, holds: () => boolean, limitMs = 5_000): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`never happened: ${what}`);
    await Bun.sleep(5);
  }
}
