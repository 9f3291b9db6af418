/** What is particular to Bun's WebSocket client: its extra methods, its errors, and closing it for sure. */
import type { Clock, DisconnectReason } from "../replica/ports.ts";
import type { DialTls } from "./endpoint.ts";

/** Bun's client socket: the DOM's type of the same name hides what Bun adds. */
export interface ClientSocket extends WebSocket {
  ping(data: string): void;
  /** Cuts the connection without a closing handshake. */
  terminate(): void;
}

/** How Bun's client begins to say that HTTP answered instead of a WebSocket; there is no code for it. */
export const UPGRADE_REFUSED = "Expected 101 status code";
/** The same from a member that is starting, stopping or full: it passes by itself. */
export const UPGRADE_NOT_YET = `${UPGRADE_REFUSED}: 503`;

/** How it says that the certificate was refused, or that there was no TLS; the reason follows. */
export const TLS_FAILED = "TLS handshake failed";

/** How long a close frame may take to leave before the connection is cut. */
const CLOSE_GRACE_MS = 200;

/**
 * Dials the member at `url`; an `https://` one must show a certificate for that host, signed by one of
 * `tls.ca` or, without it, by one that the system trusts. @throws when the URL cannot be dialled
 */
export function openClientSocket(url: string, tls: DialTls): ClientSocket {
  // The DOM's type of the constructor hides Bun's second argument as well.
  const Client = WebSocket as unknown as new (
    url: string,
    options: { readonly tls: DialTls },
  ) => ClientSocket;
  return new Client(peerSocketUrl(url), { tls });
}

/** `http://host:port` → `ws://host:port/raft`. */
function peerSocketUrl(url: string): string {
  const target = new URL("/raft", url);
  target.protocol = target.protocol === "https:" ? "wss:" : "ws:";
  return target.href;
}

/** Bytes of a close reason, as RFC 6455 limits it. */
const MAX_CLOSE_REASON_BYTES = 123;

/** Sends a close frame; a peer that does not take it in time is cut off. */
export async function closeThenCut(
  socket: ClientSocket,
  code: number,
  sentence: string,
  clock: Clock,
): Promise<void> {
  if (socket.readyState !== WebSocket.OPEN) {
    socket.terminate();
    return;
  }
  await new Promise<void>((resolve) => {
    const timer = clock.after(CLOSE_GRACE_MS, () => {
      socket.terminate();
      resolve();
    });
    socket.addEventListener("close", () => {
      timer.cancel();
      resolve();
    });
    socket.close(code, sentence.replace(/[^\x20-\x7e]/g, "?").slice(0, MAX_CLOSE_REASON_BYTES));
  });
}

/** What a dial that failed before the WebSocket was open says about the other process. */
export function reasonOfError(code: string): DisconnectReason {
  switch (code) {
    case "ECONNREFUSED":
      return "refused";
    case "ECONNRESET":
    case "EPIPE":
      return "closed-by-peer";
    // No such name, no route: says nothing about the process.
    default:
      return "timeout";
  }
}

export function codeOf(error: unknown): string | null {
  if (!(error instanceof Error) || !("code" in error)) return null;
  return typeof error.code === "string" ? error.code : null;
}

export function textOf(payload: unknown): string {
  if (typeof payload === "string") return payload;
  if (payload instanceof ArrayBuffer) return new TextDecoder().decode(payload);
  return payload instanceof Uint8Array ? new TextDecoder().decode(payload) : "";
}
