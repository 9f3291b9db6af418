import { describe, expect, test } from "bun:test";
import { asIndex, asNodeId, asTerm, type Message } from "../../src/raft/types.ts";
import { CodecError, decodeFrame, encodeFrame } from "../../src/transport/codec.ts";

const TO_N2 = { from: asNodeId("n1"), to: asNodeId("n2"), term: asTerm(3) };
const DATA = new Uint8Array([0xde, 0xad]);

const APPEND: Message = {
  ...TO_N2,
  type: "append",
  prevIndex: asIndex(4),
  prevTerm: asTerm(2),
  commit: asIndex(2 ** 40),
  entries: [{ term: asTerm(3), index: asIndex(5), kind: "command", data: DATA }],
};

/** What other builds of this version read and write. Changed bytes are a new version of the protocol. */
const GOLDEN: readonly (readonly [string, Message, string])[] = [
  [
    "an append",
    APPEND,
    `02 01 00000037 026e31 026e32 0000000000000003 0000000000000004 0000000000000002 0000010000000000
     00000001 0000000000000003 01 00000002 dead`,
  ],
  [
    "an acknowledgement",
    {
      ...TO_N2,
      type: "append-reply",
      prevIndex: asIndex(4),
      match: asIndex(5),
      hint: null,
    },
    "02 09 00000020 01 026e31 026e32 0000000000000003 01 0000000000000004 0000000000000005",
  ],
  [
    "a refusal with a hint, of a log that lost its end",
    {
      ...TO_N2,
      type: "append-reply",
      prevIndex: asIndex(4),
      match: null,
      hint: { index: asIndex(1), term: asTerm(1) },
      lost: true,
    },
    `02 09 00000028 01 026e31 026e32 0000000000000003 06 0000000000000004
     0000000000000001 0000000000000001`,
  ],
  [
    "news of a commit",
    {
      ...TO_N2,
      type: "commit",
      prevIndex: asIndex(4),
      prevTerm: asTerm(2),
      commit: asIndex(4),
    },
    "02 09 00000027 02 026e31 026e32 0000000000000003 0000000000000004 0000000000000002 0000000000000004",
  ],
  [
    "a heartbeat",
    { ...TO_N2, type: "heartbeat", commit: asIndex(4), round: 7 },
    "02 09 0000001f 03 026e31 026e32 0000000000000003 0000000000000004 0000000000000007",
  ],
  [
    "its answer",
    { ...TO_N2, type: "heartbeat-reply", round: 7 },
    "02 09 00000017 04 026e31 026e32 0000000000000003 0000000000000007",
  ],
  [
    "a read",
    { ...TO_N2, type: "read-index", id: 9 },
    "02 09 00000017 05 026e31 026e32 0000000000000003 0000000000000009",
  ],
  [
    "its answer",
    { ...TO_N2, type: "read-index-reply", id: 9, index: asIndex(4) },
    "02 09 00000020 06 026e31 026e32 0000000000000003 01 0000000000000009 0000000000000004",
  ],
  [
    "its refusal",
    { ...TO_N2, type: "read-index-reply", id: 9, index: null },
    "02 09 00000018 06 026e31 026e32 0000000000000003 00 0000000000000009",
  ],
];

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.fromHex(hex.replace(/\s/g, ""));
}

function decoded(hex: string): unknown {
  return decodeFrame(bytesOf(hex));
}

describe("a message of every commit", () => {
  test.each(GOLDEN)("has the same bytes in every build: %s", (_name, message, hex) => {
    expect(encodeFrame({ kind: "raft", message }).toHex()).toBe(bytesOf(hex).toHex());
    expect(decoded(hex)).toEqual({ kind: "raft", message });
  });

  test("keeps the largest numbers exactly", () => {
    const most = Number.MAX_SAFE_INTEGER;
    const message: Message = {
      ...TO_N2,
      type: "heartbeat",
      commit: asIndex(most),
      round: most - 1,
    };
    expect(decodeFrame(encodeFrame({ kind: "raft", message }))).toEqual({ kind: "raft", message });
  });

  test("holds no frame in memory, and is the same from a view into a larger buffer", () => {
    const bytes = encodeFrame({ kind: "raft", message: APPEND });
    const larger = new Uint8Array(bytes.length + 20);
    larger.set(bytes, 11);
    const frame = decodeFrame(larger.subarray(11, 11 + bytes.length));
    larger.fill(0);
    expect(frame).toEqual({ kind: "raft", message: APPEND });
    if (frame.kind !== "raft" || frame.message.type !== "append") throw new Error("no append");
    expect(frame.message.entries[0]?.data.buffer.byteLength).toBe(DATA.length);
  });

  test("with a gap between its entries is not sent", () => {
    const entries = [{ term: asTerm(3), index: asIndex(6), kind: "noop" as const, data: DATA }];
    const message = { ...APPEND, entries };
    expect(() => encodeFrame({ kind: "raft", message })).toThrow("does not follow");
  });

  const HEAD = "026e31 026e32 0000000000000003";
  const POSITION = "0000000000000004 0000000000000002 0000000000000004";
  test.each([
    ["an entry older than the one before", `00000001 0000000000000001 01 00000002`],
    ["an entry newer than its leader", `00000001 0000000000000004 01 00000002`],
    ["an unknown kind of entry", `00000001 0000000000000003 04 00000002`],
    ["data beyond the frame", `00000001 0000000000000003 01 00000003`],
    ["data short of the frame", `00000001 0000000000000003 01 00000001`],
    ["fewer entries than it says", `00000002 0000000000000003 01 00000002`],
    ["more entries than it says", `00000000 0000000000000003 01 00000002`],
    ["entries without end", `ffffffff 0000000000000003 01 00000002`],
  ])("that is an append with %s is refused", (_name, entries) => {
    const header = bytesOf(`${HEAD} ${POSITION} ${entries}`);
    const prefix = `0201${header.length.toString(16).padStart(8, "0")}`;
    expect(() => decoded(`${prefix} ${header.toHex()} dead`)).toThrow(CodecError);
  });

  test.each([
    ["of an unknown type", `63 ${HEAD}`],
    ["whose sender is no member name", `04 024e31 026e32 0000000000000003 0000000000000007`],
    ["without a sender", `04 00 026e32 0000000000000003 0000000000000007`],
    ["with a number that is too large", `04 026e31 026e32 0020000000000000 0000000000000007`],
    ["with flags that mean nothing", `06 ${HEAD} 02 0000000000000009`],
    ["that is cut", `04 ${HEAD} 00000000000000`],
    ["that goes on", `04 ${HEAD} 0000000000000007 00`],
  ])("%s is refused", (_name, fields) => {
    const header = bytesOf(fields);
    const prefix = `0209${header.length.toString(16).padStart(8, "0")}`;
    expect(() => decoded(`${prefix} ${header.toHex()}`)).toThrow(CodecError);
  });
});
