/**
 * Frames between members as bytes, and back.
 *
 *     | version u8 | kind u8 | header length u32 BE | header | raw parts, back to back |
 *     | version u8 | several u8 | length u32 BE, frame | length u32 BE, frame | … |
 *
 * The header is bytes for what travels with every commit (message-codec.ts), UTF-8 JSON for the rest. Entry data of an
 * `append`, a chunk of a snapshot and the commands of a `propose` travel raw behind it, and it holds their lengths
 * only: as a JSON string a command could double, and no longer fit. What is sent to a peer in one turn is one message
 * of the socket, `several` frames if need be. Everything that comes in is foreign: whatever is wrong with it is a
 * `CodecError`, nothing else, and nothing half-read.
 */
import type { Message } from "../raft/types.ts";
import type { ForwardedProposal, PeerFrame } from "../replica/ports.ts";
import { decodeAppend, decodeBrief, encodeAppend, encodeBrief, isBrief } from "./message-codec.ts";
import { readMessage } from "./message-shape.ts";
import { readSnapshotFrame, snapshotHeader } from "./snapshot-shape.ts";
import { PROTOCOL } from "./protocol-version.ts";
import {
  CodecError,
  type Fields,
  readArray,
  readCount,
  readIdOrNull,
  readRecord,
  readText,
} from "./shape.ts";

export { CodecError } from "./shape.ts";

/**
 * Also the sockets' `maxPayloadLength`. An append holds one entry at least, and an entry one command at least:
 * a body of 8 MiB whose payload, a text within the command's JSON, doubles, and a thousand tasks' defaults.
 * An entry that fitted no frame could never be replicated, and would stop all writes behind it.
 */
export const MAX_FRAME_BYTES = 20 * 1024 * 1024;
const PREFIX_BYTES = 6;
/** Requests of one forwarded proposal; the driver's batches are far smaller. */
const MAX_REQUESTS = 100_000;

/** The numbers on the wire: never reused, only added to. */
const KIND = {
  append: 1,
  raft: 2,
  propose: 3,
  refuse: 4,
  call: 5,
  reply: 6,
  error: 7,
  snapshot: 8,
  brief: 9,
  several: 10,
} as const;

const REFUSALS = ["not-leader", "overloaded", "low-disk"] as const;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const NO_DATA: readonly Uint8Array[] = [];

/**
 * `version`: as agreed on the connection (protocol-version.ts). All versions so far are written alike.
 * @throws CodecError the frame is larger than `MAX_FRAME_BYTES`, or no JSON can hold it
 */
export function encodeFrame(
  frame: PeerFrame,
  version: number = PROTOCOL.newest,
): Uint8Array<ArrayBuffer> {
  const bytes = encodeBody(frame);
  bytes[0] = version;
  return bytes;
}

function encodeBody(frame: PeerFrame): Uint8Array<ArrayBuffer> {
  switch (frame.kind) {
    case "raft":
      return encodeMessage(frame.message);
    case "propose":
      return encodeProposal(frame.proposal);
    case "refuse":
      return assemble(KIND.refuse, frame.refusal, NO_DATA);
    case "call":
      return assemble(KIND.call, { id: frame.id, method: frame.method, body: frame.body }, NO_DATA);
    case "reply":
      return assemble(KIND.reply, { id: frame.id, body: frame.body }, NO_DATA);
    case "error":
      return assemble(
        KIND.error,
        { id: frame.id, code: frame.code, detail: frame.detail },
        NO_DATA,
      );
    case "snapshot":
      return assemble(
        KIND.snapshot,
        snapshotHeader(frame.frame),
        frame.frame.type === "chunk" ? [frame.frame.data] : NO_DATA,
      );
  }
}

function encodeMessage(message: Message): Uint8Array<ArrayBuffer> {
  if (message.type === "append")
    return assembleBytes(
      KIND.append,
      encodeAppend(message),
      message.entries.map(({ data }) => data),
    );
  if (isBrief(message)) return assembleBytes(KIND.brief, encodeBrief(message), NO_DATA);
  return assemble(KIND.raft, message, NO_DATA);
}

/** Frames of one version as one message of the socket. @throws CodecError larger than `MAX_FRAME_BYTES` together */
export function joinFrames(frames: readonly Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
  const [first] = frames;
  if (first === undefined) throw new CodecError("no frame");
  if (frames.length === 1) return first;
  const size = frames.reduce((sum, frame) => sum + 4 + frame.length, 2);
  if (size > MAX_FRAME_BYTES) throw new CodecError(`frames of ${size} bytes together`);
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  bytes[0] = first[0] ?? 0;
  bytes[1] = KIND.several;
  let at = 2;
  for (const frame of frames) {
    view.setUint32(at, frame.length);
    bytes.set(frame, at + 4);
    at += 4 + frame.length;
  }
  return bytes;
}

/** The frames in one message of the socket, as views; each is to be decoded. @throws CodecError */
export function splitFrames(bytes: Uint8Array): readonly Uint8Array[] {
  if (bytes[1] !== KIND.several) return [bytes];
  if (bytes.length > MAX_FRAME_BYTES) throw new CodecError(`the frame has ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const frames: Uint8Array[] = [];
  for (let at = 2; at < bytes.length;) {
    if (at + 4 > bytes.length) throw new CodecError("the frames are cut");
    const end = at + 4 + view.getUint32(at);
    if (end > bytes.length) throw new CodecError("the frames are cut");
    frames.push(bytes.subarray(at + 4, end));
    at = end;
  }
  return frames;
}

/**
 * The bytes are copied where they are kept: a decoded entry never holds a whole frame in memory.
 * @throws CodecError for anything that `encodeFrame` cannot have made
 */
export function decodeFrame(bytes: Uint8Array, agreed: number = PROTOCOL.newest): PeerFrame {
  if (bytes.length < PREFIX_BYTES) throw new CodecError("the frame is cut: no prefix");
  if (bytes.length > MAX_FRAME_BYTES) throw new CodecError(`the frame has ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint8(0);
  if (version !== agreed)
    throw new CodecError(`the frame has version ${version}, ${agreed} was agreed on`);
  const kind = view.getUint8(1);
  const bodyStart = PREFIX_BYTES + view.getUint32(2);
  if (bodyStart > bytes.length) throw new CodecError("the frame is cut: in its header");
  const head = bytes.subarray(PREFIX_BYTES, bodyStart);
  const body = bytes.subarray(bodyStart);
  if (kind === KIND.append) return { kind: "raft", message: decodeAppend(head, body) };
  if (kind === KIND.brief) {
    if (body.length > 0) throw new CodecError("there are bytes behind the frame");
    return { kind: "raft", message: decodeBrief(head) };
  }
  const header = parseHeader(head);
  if (kind === KIND.propose) {
    return { kind: "propose", proposal: decodeProposal(header, new RawParts(body)) };
  }
  if (kind === KIND.snapshot) {
    return { kind: "snapshot", frame: readSnapshotFrame(header, new Uint8Array(body)) };
  }
  if (body.length > 0) throw new CodecError("there are bytes behind the frame");
  switch (kind) {
    case KIND.raft:
      return { kind: "raft", message: readMessage(header) };
    case KIND.refuse: {
      const code = REFUSALS.find((known) => known === header["code"]);
      if (code === undefined) throw new CodecError("code is none of a refusal");
      return {
        kind: "refuse",
        refusal: {
          boot: readCount(header, "boot"),
          seqs: readArray(header, "seqs", MAX_REQUESTS).map((item) =>
            readCount({ seq: item }, "seq"),
          ),
          code,
          leader: readIdOrNull(header, "leader"),
        },
      };
    }
    case KIND.call:
      return {
        kind: "call",
        id: readCount(header, "id"),
        method: readText(header, "method"),
        body: header["body"],
      };
    case KIND.reply:
      return { kind: "reply", id: readCount(header, "id"), body: header["body"] };
    case KIND.error:
      return {
        kind: "error",
        id: readCount(header, "id"),
        code: readText(header, "code"),
        detail: readText(header, "detail"),
      };
    default:
      throw new CodecError(`the frame has kind ${kind}`);
  }
}

function encodeProposal(proposal: ForwardedProposal): Uint8Array<ArrayBuffer> {
  const data: Uint8Array[] = [];
  const requests = proposal.requests.map(({ seq, command, hint }) => {
    data.push(command);
    return { seq, bytes: command.length, hint };
  });
  return assemble(KIND.propose, { boot: proposal.boot, acked: proposal.acked, requests }, data);
}

function decodeProposal(header: Fields, parts: RawParts): ForwardedProposal {
  const requests = readArray(header, "requests", MAX_REQUESTS).map((item) => {
    const request = readRecord(item, "request");
    // Copied: it is kept until it is in an entry, and would hold the whole frame until then.
    const command = new Uint8Array(parts.take(readCount(request, "bytes")));
    return { seq: readCount(request, "seq"), command, hint: request["hint"] };
  });
  parts.end();
  return { boot: readCount(header, "boot"), acked: readCount(header, "acked"), requests };
}

/** What stands behind the header, taken from front to back. */
class RawParts {
  readonly #body: Uint8Array;
  #offset = 0;

  constructor(body: Uint8Array) {
    this.#body = body;
  }

  /** A view. @throws CodecError the body is shorter */
  take(length: number): Uint8Array {
    const end = this.#offset + length;
    if (end > this.#body.length) throw new CodecError("the frame is cut: behind its header");
    const part = this.#body.subarray(this.#offset, end);
    this.#offset = end;
    return part;
  }

  /** @throws CodecError something is left */
  end(): void {
    if (this.#offset !== this.#body.length)
      throw new CodecError("there are bytes behind the frame");
  }
}

function assemble(
  kind: number,
  header: unknown,
  data: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  let text: string;
  try {
    text = JSON.stringify(header);
  } catch (error) {
    throw new CodecError(`the frame cannot be written as JSON: ${String(error)}`);
  }
  return assembleBytes(kind, encoder.encode(text), data);
}

function assembleBytes(
  kind: number,
  head: Uint8Array,
  data: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const size = data.reduce((sum, part) => sum + part.length, PREFIX_BYTES + head.length);
  if (size > MAX_FRAME_BYTES) {
    throw new CodecError(`the frame has ${size} bytes, more than ${MAX_FRAME_BYTES}`);
  }
  const bytes = new Uint8Array(size);
  bytes[1] = kind;
  new DataView(bytes.buffer).setUint32(2, head.length);
  bytes.set(head, PREFIX_BYTES);
  let offset = PREFIX_BYTES + head.length;
  for (const part of data) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

function parseHeader(bytes: Uint8Array): Fields {
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(bytes));
  } catch {
    throw new CodecError("the frame's header is not JSON");
  }
  return readRecord(value, "header");
}
