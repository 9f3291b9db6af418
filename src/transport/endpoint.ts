/** What every connection of one member needs of it. */
import type { Clock, PeerHello, Random, TransportEvents } from "../replica/ports.ts";
import type { NodeId } from "../raft/types.ts";
import type { Notices } from "./notices.ts";
import type { ProtocolRange } from "./protocol-version.ts";

/** What a dialler of `https://` peers goes by; PEM. */
export interface DialTls {
  /** Who may have signed a peer's certificate; absent: whom the system trusts. */
  readonly ca?: string;
  /** Shown to a peer that asks for one, with its key. */
  readonly cert?: string;
  readonly key?: string;
}

export interface Endpoint {
  readonly selfId: NodeId;
  readonly secret: string | null;
  readonly protocol: ProtocolRange;
  readonly tls: DialTls;
  readonly clock: Clock;
  readonly random: Random;
  readonly notices: Notices;
  /** This member's hello as of now. */
  readonly self: () => PeerHello;
  readonly events: TransportEvents;
}

/** From the start of a dial, or of an accepted connection, to the end of the handshake. */
export const HANDSHAKE_TIMEOUT_MS = 2_000;
