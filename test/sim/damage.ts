/** What may be wrong with a frame that arrives: its end is missing, entries or bits of it are. Drawn by the network's options. */
import type { PeerFrame } from "../../src/replica/ports.ts";
import { CodecError, decodeFrame, encodeFrame } from "../../src/transport/codec.ts";
import type { Network } from "./network.ts";

/** The codec must see that a part is missing. True: it does, and the connection is to end. */
export function isGarbled({ world, options, counts }: Network, frame: PeerFrame): boolean {
  const share = options.garbage ?? 0;
  if (share === 0 || frame.kind === "snapshot" || !world.prng.chance(share)) return false;
  const bytes = encodeFrame(frame);
  try {
    decodeFrame(bytes.subarray(0, world.prng.between(0, bytes.length - 1)));
  } catch (error) {
    if (!(error instanceof CodecError)) throw error;
    counts.garbage += 1;
    return true;
  }
  throw new Error(`a frame of kind ${frame.kind} was read though its end is missing`);
}

/** Appends, which lose their last entries. */
export function perhapsShortened({ world, options, counts }: Network, frame: PeerFrame): PeerFrame {
  if ((options.cut ?? 0) === 0 || frame.kind !== "raft") return frame;
  const { message } = frame;
  if (message.type !== "append" || message.entries.length === 0) return frame;
  if (!world.prng.chance(options.cut ?? 0)) return frame;
  counts.shortened += 1;
  const none = world.prng.chance(0.5);
  const kept = none ? 0 : world.prng.between(0, message.entries.length - 1);
  return { kind: "raft", message: { ...message, entries: message.entries.slice(0, kept) } };
}

/** Only chunks: everything else has the connection's own checksum, and no other to fall back on. */
export function perhapsCorrupted({ world, options, counts }: Network, frame: PeerFrame): PeerFrame {
  if (frame.kind !== "snapshot" || frame.frame.type !== "chunk") return frame;
  if ((options.corrupt ?? 0) === 0 || !world.prng.chance(options.corrupt ?? 0)) return frame;
  counts.corrupted += 1;
  const data = new Uint8Array(frame.frame.data);
  const at = world.prng.between(0, data.length - 1);
  data[at] = (data[at] ?? 0) ^ (1 << world.prng.between(0, 7));
  return { kind: "snapshot", frame: { ...frame.frame, data } };
}
