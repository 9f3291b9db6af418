/**
 * The WebSocket close codes that members give each other, and what a close says about the other process.
 */
import type { DisconnectReason } from "../replica/ports.ts";

/** 4000–4999 are the application's own (RFC 6455, 7.4.2). Fixed on the wire: only added to. */
export const CLOSE = {
  /** The member stops, or no longer has this peer. */
  drain: 4000,
  /** A newer connection of the same member took the place of this one. */
  duplicate: 4001,
  /** Bytes or a message that make no sense here. */
  protocol: 4002,
  /** The member refuses this peer; the sentence went ahead as a message. */
  rejected: 4003,
  /** The peer did not prove the cluster's secret, or only one side has one. */
  secret: 4004,
  /** The handshake took too long. */
  timeout: 4005,
} as const;

/** The socket's own: a message over `maxPayloadLength`. */
const MESSAGE_TOO_BIG = 1009;

/**
 * What a close by the other side means. Only what a dying process leaves behind (1006: the kernel closed,
 * 1001: the server was stopped) points at its death; whatever a living member closed on purpose does not.
 */
export function reasonOf(code: number): DisconnectReason {
  switch (code) {
    case CLOSE.rejected:
    case CLOSE.secret:
      return "rejected";
    case CLOSE.timeout:
      return "timeout";
    case MESSAGE_TOO_BIG:
      return "ours";
    default:
      return code >= 4000 && code <= 4999 ? "ours" : "closed-by-peer";
  }
}
