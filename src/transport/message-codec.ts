/**
 * The messages of the core that travel with every commit, as bytes: no text is made or parsed for them.
 *
 *     id       u8 length | ASCII
 *     number   u64 BE, a safe integer
 *     append   id from | id to | term | prevIndex | prevTerm | commit | u32 entries
 *              | for each: term, u8 kind, u32 bytes of data          (their data follows behind the header)
 *     brief    u8 type | id from | id to | term | fields of the type, in the order of `BRIEF`
 *
 * All others are JSON (message-shape.ts): votes, transfers and snapshots are rare.
 */
import {
  asIndex,
  asNodeId,
  asTerm,
  type Entry,
  type LogIndex,
  type Message,
  type NodeId,
  type Term,
} from "../raft/types.ts";
import { CodecError, ID_PATTERN } from "./shape.ts";

export type Append = Extract<Message, { type: "append" }>;
/** Small, and as often as commits are. */
export type Brief = Extract<
  Message,
  {
    type:
      | "append-reply"
      | "commit"
      | "heartbeat"
      | "heartbeat-reply"
      | "read-index"
      | "read-index-reply";
  }
>;

/** The numbers on the wire: never reused, only added to. */
const BRIEF = {
  "append-reply": 1,
  commit: 2,
  heartbeat: 3,
  "heartbeat-reply": 4,
  "read-index": 5,
  "read-index-reply": 6,
} as const satisfies Record<Brief["type"], number>;
/** Of an append-reply, a bit each: what is there. The last one is of a read-index-reply. */
const HAS_MATCH = 1;
const HAS_HINT = 2;
const IS_LOST = 4;
const HAS_INDEX = 1;

const ENTRY_KINDS = ["noop", "command", "config", "bootstrap"] as const;
/** Entries of one append; the core's own limit on bytes in flight keeps it far below. */
const ENTRIES_MAX = 100_000;
const ENTRY_HEADER_BYTES = 13;
const TWO_POW_32 = 2 ** 32;
/** Type, two ids of 32, and six numbers. */
const BRIEF_BYTES_MAX = 1 + 2 * 33 + 1 + 6 * 8;

export function isBrief(message: Message): message is Brief {
  return message.type in BRIEF;
}

/** @throws CodecError entries with a gap */
export function encodeAppend(message: Append): Uint8Array<ArrayBuffer> {
  const { from, to, term, prevIndex, prevTerm, commit, entries } = message;
  const size = 2 + from.length + to.length + 4 * 8 + 4 + entries.length * ENTRY_HEADER_BYTES;
  const out = new Writer(size);
  out.id(from);
  out.id(to);
  out.number(term);
  out.number(prevIndex);
  out.number(prevTerm);
  out.number(commit);
  out.u32(entries.length);
  let next = prevIndex + 1;
  for (const { index, term: entryTerm, kind, data } of entries) {
    if (index !== next)
      throw new CodecError(`entry ${index} of an append does not follow ${next - 1}`);
    next += 1;
    out.number(entryTerm);
    out.byte(ENTRY_KINDS.indexOf(kind));
    out.u32(data.length);
  }
  return out.taken();
}

/** `body`: the entries' data; copied, so that no entry holds a whole frame in memory. @throws CodecError */
export function decodeAppend(header: Uint8Array, body: Uint8Array): Append {
  const read = new Reader(header);
  const envelope = { from: read.id(), to: read.id(), term: read.term() };
  const prevIndex = read.index();
  const prevTerm = read.term();
  const commit = read.index();
  const count = read.u32();
  if (count > ENTRIES_MAX || prevIndex + count > Number.MAX_SAFE_INTEGER)
    throw new CodecError("an append with impossible entries");
  const entries: Entry[] = [];
  let lastTerm: number = prevTerm;
  let at = 0;
  for (let i = 1; i <= count; i++) {
    const term = read.term();
    const kind = ENTRY_KINDS[read.byte()];
    const end = at + read.u32();
    if (kind === undefined) throw new CodecError("entry has an unknown kind");
    // Terms of a log never fall, and none is newer than the leader that sends them (Raft 5.3).
    if (term < lastTerm || term > envelope.term)
      throw new CodecError("entry has an impossible term");
    lastTerm = term;
    if (end > body.length) throw new CodecError("the frame is cut: behind its header");
    entries.push({ term, index: asIndex(prevIndex + i), kind, data: body.slice(at, end) });
    at = end;
  }
  read.end();
  if (at !== body.length) throw new CodecError("there are bytes behind the frame");
  return { ...envelope, type: "append", prevIndex, prevTerm, entries, commit };
}

export function encodeBrief(message: Brief): Uint8Array<ArrayBuffer> {
  const out = new Writer(BRIEF_BYTES_MAX);
  out.byte(BRIEF[message.type]);
  out.id(message.from);
  out.id(message.to);
  out.number(message.term);
  switch (message.type) {
    case "append-reply": {
      const { match, hint, lost } = message;
      out.byte(
        (match === null ? 0 : HAS_MATCH) |
          (hint === null ? 0 : HAS_HINT) |
          (lost === true ? IS_LOST : 0),
      );
      out.number(message.prevIndex);
      if (match !== null) out.number(match);
      if (hint !== null) {
        out.number(hint.index);
        out.number(hint.term);
      }
      break;
    }
    case "commit":
      out.number(message.prevIndex);
      out.number(message.prevTerm);
      out.number(message.commit);
      break;
    case "heartbeat":
      out.number(message.commit);
      out.number(message.round);
      break;
    case "heartbeat-reply":
      out.number(message.round);
      break;
    case "read-index":
      out.number(message.id);
      break;
    case "read-index-reply":
      out.byte(message.index === null ? 0 : HAS_INDEX);
      out.number(message.id);
      if (message.index !== null) out.number(message.index);
  }
  return out.taken();
}

/** @throws CodecError */
export function decodeBrief(bytes: Uint8Array): Brief {
  const read = new Reader(bytes);
  const type = read.byte();
  const envelope = { from: read.id(), to: read.id(), term: read.term() };
  const message = fieldsOf(type, read, envelope);
  read.end();
  return message;
}

function fieldsOf(
  type: number,
  read: Reader,
  envelope: { readonly from: NodeId; readonly to: NodeId; readonly term: Term },
): Brief {
  switch (type) {
    case BRIEF["append-reply"]: {
      const flags = read.flags(HAS_MATCH | HAS_HINT | IS_LOST);
      const prevIndex = read.index();
      const match = (flags & HAS_MATCH) === 0 ? null : read.index();
      const hint = (flags & HAS_HINT) === 0 ? null : { index: read.index(), term: read.term() };
      const reply = { ...envelope, type: "append-reply", prevIndex, match, hint } as const;
      return (flags & IS_LOST) === 0 ? reply : { ...reply, lost: true };
    }
    case BRIEF.commit: {
      const prevIndex = read.index();
      return {
        ...envelope,
        type: "commit",
        prevIndex,
        prevTerm: read.term(),
        commit: read.index(),
      };
    }
    case BRIEF.heartbeat:
      return { ...envelope, type: "heartbeat", commit: read.index(), round: read.number() };
    case BRIEF["heartbeat-reply"]:
      return { ...envelope, type: "heartbeat-reply", round: read.number() };
    case BRIEF["read-index"]:
      return { ...envelope, type: "read-index", id: read.number() };
    case BRIEF["read-index-reply"]: {
      const flags = read.flags(HAS_INDEX);
      const id = read.number();
      return {
        ...envelope,
        type: "read-index-reply",
        id,
        index: flags === 0 ? null : read.index(),
      };
    }
    default:
      throw new CodecError(`the message has the unknown type ${type}`);
  }
}

class Writer {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  #at = 0;

  constructor(size: number) {
    this.#bytes = new Uint8Array(size);
  }

  byte(value: number): void {
    this.#bytes[this.#at++] = value;
  }

  u32(value: number): void {
    const bytes = this.#bytes;
    bytes[this.#at++] = value >>> 24;
    bytes[this.#at++] = value >>> 16;
    bytes[this.#at++] = value >>> 8;
    bytes[this.#at++] = value;
  }

  number(value: number): void {
    this.u32(Math.floor(value / TWO_POW_32));
    this.u32(value >>> 0);
  }

  id(id: string): void {
    this.#bytes[this.#at++] = id.length;
    for (let i = 0; i < id.length; i++) this.#bytes[this.#at++] = id.charCodeAt(i);
  }

  taken(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#at);
  }
}

/** From front to back. @throws CodecError where the bytes end too early, or hold what was never written */
class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  byte(): number {
    const value = this.#bytes[this.#at];
    if (value === undefined) throw new CodecError("the frame is cut: in its header");
    this.#at += 1;
    return value;
  }

  flags(known: number): number {
    const flags = this.byte();
    if ((flags & ~known) !== 0) throw new CodecError(`unknown flags ${flags}`);
    return flags;
  }

  u32(): number {
    const bytes = this.#bytes;
    const at = this.#at;
    if (at + 4 > bytes.length) throw new CodecError("the frame is cut: in its header");
    this.#at = at + 4;
    return (
      (bytes[at] ?? 0) * 2 ** 24 +
      (((bytes[at + 1] ?? 0) << 16) | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0))
    );
  }

  number(): number {
    const value = this.u32() * TWO_POW_32 + this.u32();
    if (value > Number.MAX_SAFE_INTEGER) throw new CodecError("a number that is too large");
    return value;
  }

  index(): LogIndex {
    return asIndex(this.number());
  }

  term(): Term {
    return asTerm(this.number());
  }

  id(): NodeId {
    const end = this.byte() + this.#at;
    let id = "";
    while (this.#at < end) id += String.fromCharCode(this.byte());
    if (!ID_PATTERN.test(id)) throw new CodecError("no member name");
    return asNodeId(id);
  }

  end(): void {
    if (this.#at !== this.#bytes.length) throw new CodecError("there are bytes behind the header");
  }
}
