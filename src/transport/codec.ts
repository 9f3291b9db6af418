/**
 * Frames between members as bytes, and back.
 *
 *     | version u8 | kind u8 | header length u32 BE | header: UTF-8 JSON | raw parts, back to back |
 *
 * Entry data of an `append`, a chunk of a snapshot and the commands of a `propose` travel raw behind the header, which holds their
 * lengths only: as a JSON string a command could double, and no longer fit. Everything that comes in is foreign: whatever is wrong with it is a `CodecError`, nothing else, and nothing half-read.
 */
import type { ForwardedProposal, PeerFrame } from "../replica/ports.ts";
import { asIndex, asTerm, type Entry, type Message } from "../raft/types.ts";
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
/** Entries of one append; the core's own limit on bytes in flight keeps it far below. */
const MAX_ENTRIES = 100_000;
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
} as const;

const ENTRY_KINDS = ["noop", "command", "config", "bootstrap"] as const;
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
      return frame.message.type === "append"
        ? encodeAppend(frame.message)
        : assemble(KIND.raft, frame.message, NO_DATA);
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
  const header = parseHeader(bytes.subarray(PREFIX_BYTES, bodyStart));
  const body = bytes.subarray(bodyStart);
  if (kind === KIND.append)
    return { kind: "raft", message: decodeAppend(header, new RawParts(body)) };
  if (kind === KIND.propose) {
    return { kind: "propose", proposal: decodeProposal(header, new RawParts(body)) };
  }
  if (kind === KIND.snapshot) {
    return { kind: "snapshot", frame: readSnapshotFrame(header, new Uint8Array(body)) };
  }
  if (body.length > 0) throw new CodecError("there are bytes behind the frame");
  switch (kind) {
    case KIND.raft: {
      const message = readMessage(header);
      // An append in here would lose its entries in silence.
      if (message.type === "append") throw new CodecError("an append in the frame of the others");
      return { kind: "raft", message };
    }
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

type Append = Extract<Message, { type: "append" }>;

function encodeAppend(message: Append): Uint8Array<ArrayBuffer> {
  const { entries, ...rest } = message;
  const lengths = entries.map((entry, at) => {
    if (entry.index !== message.prevIndex + 1 + at) {
      throw new CodecError(
        `entry ${entry.index} of an append does not follow ${message.prevIndex + at}`,
      );
    }
    return [entry.term, ENTRY_KINDS.indexOf(entry.kind), entry.data.length] as const;
  });
  return assemble(
    KIND.append,
    { ...rest, entries: lengths },
    entries.map((entry) => entry.data),
  );
}

function decodeAppend(header: Fields, parts: RawParts): Append {
  const message = readMessage({ ...header, entries: [] });
  if (message.type !== "append")
    throw new CodecError("the frame holds another message than append");
  let lastTerm: number = message.prevTerm;
  const entries = readArray(header, "entries", MAX_ENTRIES).map((item, at): Entry => {
    if (!Array.isArray(item) || item.length !== 3) throw new CodecError("entry is no triple");
    const [rawTerm, rawKind, rawLength] = item as readonly unknown[];
    const term = readCount({ term: rawTerm }, "term");
    const length = readCount({ length: rawLength }, "length");
    const kind = ENTRY_KINDS[readCount({ kind: rawKind }, "kind")];
    if (kind === undefined) throw new CodecError("entry has an unknown kind");
    // Terms of a log never fall, and none is newer than the leader that sends them (Raft 5.3).
    if (term < lastTerm || term > message.term)
      throw new CodecError("entry has an impossible term");
    lastTerm = term;
    const data = new Uint8Array(parts.take(length));
    const index = message.prevIndex + 1 + at;
    if (!Number.isSafeInteger(index)) throw new CodecError("entry has an impossible index");
    return { term: asTerm(term), index: asIndex(index), kind, data };
  });
  parts.end();
  return { ...message, entries };
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
  const head = encoder.encode(text);
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
