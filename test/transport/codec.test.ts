import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { PeerFrame, SnapshotFrame } from "../../src/replica/ports.ts";
import {
  asIndex,
  asNodeId,
  asTerm,
  type Entry,
  type EntryKind,
  type Message,
} from "../../src/raft/types.ts";
import {
  CodecError,
  decodeFrame,
  encodeFrame,
  joinFrames,
  MAX_FRAME_BYTES,
  splitFrames,
} from "../../src/transport/codec.ts";
import { PROTOCOL } from "../../src/transport/protocol-version.ts";

const count = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER - 1_000_000 });
const term = count.map(asTerm);
const index = count.map(asIndex);
const id = fc.stringMatching(/^[a-z0-9-]{1,32}$/).map(asNodeId);
const envelope = { from: id, to: id, term };
const text = fc.string({ unit: "binary", maxLength: 40 });
const json = fc.jsonValue({ maxDepth: 3 });

const entries = (prevIndex: number, terms: readonly number[]): fc.Arbitrary<Entry[]> =>
  fc.tuple(
    ...[...terms]
      .sort((a, b) => a - b)
      .map((entryTerm, at) =>
        fc.record({
          term: fc.constant(asTerm(entryTerm)),
          index: fc.constant(asIndex(prevIndex + 1 + at)),
          kind: fc.constantFrom<EntryKind>("noop", "command", "config", "bootstrap"),
          data: fc.uint8Array({ maxLength: 60 }),
        }),
      ),
  );

const append: fc.Arbitrary<Message> = fc
  .record({
    prevTerm: fc.integer({ min: 0, max: 50 }),
    prevIndex: fc.integer({ min: 0, max: 1_000 }),
    steps: fc.array(fc.integer({ min: 50, max: 90 }), { maxLength: 6 }),
  })
  .chain(({ prevTerm, prevIndex, steps }) =>
    fc.record({
      ...envelope,
      term: fc.integer({ min: 90, max: 1_000 }).map(asTerm),
      type: fc.constant("append" as const),
      prevIndex: fc.constant(asIndex(prevIndex)),
      prevTerm: fc.constant(asTerm(prevTerm)),
      entries: entries(prevIndex, steps),
      commit: index,
    }),
  );

const ids = fc.uniqueArray(id, { maxLength: 4 });
const configuration = fc.record({
  voters: ids,
  outgoing: ids,
  learners: ids,
  learnersNext: ids,
  members: fc.dictionary(
    fc.stringMatching(/^[a-z0-9-]{1,32}$/),
    fc.record({ url: text, incarnation: text }, { noNullPrototype: true }),
    { maxKeys: 4, noNullPrototype: true },
  ),
});

const message: fc.Arbitrary<Message> = fc.oneof(
  fc.record({
    ...envelope,
    type: fc.constant("vote" as const),
    pre: fc.boolean(),
    lastIndex: index,
    lastTerm: term,
    transfer: fc.boolean(),
    leaderLost: fc.boolean(),
  }),
  fc.record({
    ...envelope,
    type: fc.constant("vote-reply" as const),
    pre: fc.boolean(),
    granted: fc.boolean(),
  }),
  append,
  fc.record(
    {
      ...envelope,
      type: fc.constant("append-reply" as const),
      prevIndex: index,
      match: fc.option(index),
      hint: fc.option(fc.record({ index, term })),
      lost: fc.constant(true as const),
    },
    { requiredKeys: ["from", "to", "term", "type", "prevIndex", "match", "hint"] },
  ),
  fc.record({
    ...envelope,
    type: fc.constant("commit" as const),
    prevIndex: index,
    prevTerm: term,
    commit: index,
  }),
  fc.record({
    ...envelope,
    type: fc.constant("heartbeat" as const),
    commit: index,
    round: count,
  }),
  fc.record({ ...envelope, type: fc.constant("heartbeat-reply" as const), round: count }),
  fc.record({ ...envelope, type: fc.constant("read-index" as const), id: count }),
  fc.record({
    ...envelope,
    type: fc.constant("read-index-reply" as const),
    id: count,
    index: fc.option(index),
  }),
  fc.record({ ...envelope, type: fc.constant("timeout-now" as const) }),
  fc.record({
    ...envelope,
    type: fc.constant("snapshot" as const),
    snapshot: fc.record({ index, term, configuration }),
  }),
  fc.record({
    ...envelope,
    type: fc.constant("snapshot-reply" as const),
    index,
    ok: fc.boolean(),
  }),
);

const snapshotId = fc.stringMatching(/^[0-9]{1,16}-[0-9a-f]{8,32}$/);
const snapshotFrame: fc.Arbitrary<SnapshotFrame> = fc.oneof(
  fc.record({ type: fc.constant("open" as const), held: fc.option(snapshotId) }),
  fc.record({
    type: fc.constant("manifest" as const),
    manifest: fc.record({
      id: snapshotId,
      index,
      term,
      machineVersion: count,
      bytes: count,
      checksum: fc.stringMatching(/^[0-9a-f]{64}$/),
      configuration,
      bootstrap: fc.record({
        clusterId: text,
        createdAt: count,
        members: fc.array(fc.record({ id, incarnation: text, url: text }), { maxLength: 3 }),
        settings: json,
        machineVersion: count,
      }),
    }),
  }),
  fc.record({
    type: fc.constant("read" as const),
    id: snapshotId,
    offset: count,
    bytes: fc.integer({ min: 1, max: 1024 * 1024 }),
  }),
  fc.record({
    type: fc.constant("chunk" as const),
    id: snapshotId,
    offset: count,
    crc: count,
    data: fc.uint8Array({ maxLength: 60 }),
  }),
  fc.record({ type: fc.constant("gone" as const), id: fc.option(snapshotId), detail: text }),
  fc.record({ type: fc.constant("done" as const), id: snapshotId }),
);

const frame: fc.Arbitrary<PeerFrame> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("raft" as const), message }) },
  fc.record({
    kind: fc.constant("propose" as const),
    proposal: fc.record({
      boot: count,
      acked: count,
      requests: fc.array(
        fc.record({ seq: count, command: fc.uint8Array({ maxLength: 60 }), hint: json }),
        { maxLength: 4 },
      ),
    }),
  }),
  fc.record({
    kind: fc.constant("refuse" as const),
    refusal: fc.record({
      boot: count,
      seqs: fc.array(count, { maxLength: 4 }),
      code: fc.constantFrom("not-leader" as const, "overloaded" as const, "low-disk" as const),
      leader: fc.option(id),
    }),
  }),
  fc.record({ kind: fc.constant("call" as const), id: count, method: text, body: json }),
  fc.record({ kind: fc.constant("reply" as const), id: count, body: json }),
  fc.record({ kind: fc.constant("error" as const), id: count, code: text, detail: text }),
  fc.record({ kind: fc.constant("snapshot" as const), frame: snapshotFrame }),
);

/** What JSON itself makes of a frame (it has no -0), entry data aside. */
function plain(value: PeerFrame): unknown {
  if (value.kind === "raft" && value.message.type === "append") return value;
  if (value.kind === "snapshot" && value.frame.type === "chunk") return value;
  if (value.kind === "propose") {
    const { requests, ...rest } = value.proposal;
    const kept = requests.map(({ hint, ...request }) => ({ ...request, hint: plainJson(hint) }));
    return { ...value, proposal: { ...rest, requests: kept } };
  }
  return plainJson(value);
}

function plainJson(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}

/** A frame with a header of one's own, as an ill-meaning peer could make it. */
function forge(kind: number, header: unknown, body: Uint8Array = new Uint8Array()): Uint8Array {
  const head = new TextEncoder().encode(
    typeof header === "string" ? header : JSON.stringify(header),
  );
  const bytes = new Uint8Array(6 + head.length + body.length);
  bytes[0] = PROTOCOL.newest;
  bytes[1] = kind;
  new DataView(bytes.buffer).setUint32(2, head.length);
  bytes.set(head, 6);
  bytes.set(body, 6 + head.length);
  return bytes;
}

describe("a frame", () => {
  test("comes out as it went in, whatever its kind", () => {
    fc.assert(
      fc.property(frame, (sent) => {
        expect(plain(decodeFrame(encodeFrame(sent)))).toEqual(plain(sent));
      }),
      { numRuns: 200 },
    );
  });

  test("of random bytes is an error of the codec and nothing else", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
        expect(() => decodeFrame(bytes)).toThrow(CodecError);
      }),
      { numRuns: 500 },
    );
  });

  test("with any JSON as its header is read or refused, never anything else", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 9 }), fc.jsonValue(), (kind, header) => {
        try {
          decodeFrame(forge(kind, header));
        } catch (error) {
          expect(error).toBeInstanceOf(CodecError);
        }
      }),
      { numRuns: 500 },
    );
  });

  test("with one field of a true message replaced by anything is read or refused", () => {
    fc.assert(
      fc.property(frame, fc.nat(), fc.jsonValue(), (sent, which, value) => {
        const bytes = encodeFrame(sent);
        const length = new DataView(bytes.buffer).getUint32(2);
        if (bytes[6] !== 0x7b) return;
        const header = JSON.parse(
          new TextDecoder().decode(bytes.subarray(6, 6 + length)),
        ) as Record<string, unknown>;
        const keys = Object.keys(header);
        header[keys[which % keys.length] ?? ""] = value;
        try {
          decodeFrame(forge(bytes[1] ?? 0, header, bytes.subarray(6 + length)));
        } catch (error) {
          expect(error).toBeInstanceOf(CodecError);
        }
      }),
      { numRuns: 500 },
    );
  });

  test("that is cut anywhere, or goes on behind its end, is refused", () => {
    fc.assert(
      fc.property(frame, fc.double({ min: 0, max: 1, noNaN: true }), (sent, part) => {
        const bytes = encodeFrame(sent);
        const cut = bytes.subarray(0, Math.min(bytes.length - 1, Math.floor(bytes.length * part)));
        expect(() => decodeFrame(cut)).toThrow(CodecError);
        const longer = new Uint8Array(bytes.length + 1);
        longer.set(bytes);
        expect(() => decodeFrame(longer)).toThrow(CodecError);
      }),
      { numRuns: 200 },
    );
  });

  test("of another version or an unknown kind is refused", () => {
    const bytes = encodeFrame({ kind: "reply", id: 1, body: null });
    bytes[0] = PROTOCOL.newest + 1;
    expect(() => decodeFrame(bytes)).toThrow(`version ${PROTOCOL.newest + 1}`);
    expect(() => decodeFrame(forge(99, {}))).toThrow("kind 99");
  });

  test("keeps a body that is not there", () => {
    const sent: PeerFrame = { kind: "reply", id: 1, body: undefined };
    expect(decodeFrame(encodeFrame(sent))).toEqual(sent);
  });

  test("that no JSON can hold is an error of the codec", () => {
    const loop: Record<string, unknown> = {};
    loop["self"] = loop;
    expect(() => encodeFrame({ kind: "reply", id: 1, body: loop })).toThrow(CodecError);
    expect(() => encodeFrame({ kind: "reply", id: 1, body: 1n })).toThrow(CodecError);
  });

  test("of JSON nested without end is refused", () => {
    const deep = `{"id":1,"body":${"[".repeat(200_000)}`;
    expect(() => decodeFrame(forge(6, deep))).toThrow(CodecError);
  });

  test("with a header that is not UTF-8 is refused", () => {
    const bytes = forge(6, `{"id":1,"body":"xx"}`);
    bytes[bytes.length - 3] = 0xff;
    expect(() => decodeFrame(bytes)).toThrow("not JSON");
  });

  test("may fill the limit to the last byte and not go beyond", () => {
    const make = (size: number): PeerFrame => ({
      kind: "raft",
      message: {
        from: asNodeId("n1"),
        to: asNodeId("n2"),
        term: asTerm(1),
        type: "append",
        prevIndex: asIndex(0),
        prevTerm: asTerm(0),
        commit: asIndex(0),
        entries: [
          { term: asTerm(1), index: asIndex(1), kind: "command", data: new Uint8Array(size) },
        ],
      },
    });
    const overhead = encodeFrame(make(10_000_000)).length - 10_000_000;
    expect(encodeFrame(make(MAX_FRAME_BYTES - overhead)).length).toBe(MAX_FRAME_BYTES);
    expect(() => encodeFrame(make(MAX_FRAME_BYTES - overhead + 1))).toThrow(CodecError);
    expect(() => decodeFrame(new Uint8Array(MAX_FRAME_BYTES + 1))).toThrow(CodecError);
  });
});

describe("a forwarded proposal", () => {
  const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
  const propose = (...texts: readonly string[]): PeerFrame => ({
    kind: "propose",
    proposal: {
      boot: 1,
      acked: 2,
      requests: texts.map((text, at) => ({ seq: at, command: bytesOf(text), hint: { at } })),
    },
  });

  test("does not grow, however much of it JSON would escape", () => {
    const command = '"\\'.repeat(1_000_000);
    const bytes = encodeFrame(propose(command));
    expect(bytes.length).toBeLessThan(command.length + 200);
    expect(decodeFrame(bytes)).toEqual(propose(command));
  });

  test("keeps commands apart, empty ones too, and holds no frame", () => {
    const sent = propose("", "é😀", "", "\uFEFFx");
    const frame = encodeFrame(sent);
    const decoded = decodeFrame(frame);
    expect(decoded).toEqual(sent);
    frame.fill(0);
    expect(decoded).toEqual(sent);
  });

  test("with too short or too long a body is refused", () => {
    const header = { boot: 1, acked: 0, requests: [{ seq: 1, bytes: 2, hint: null }] };
    expect(decodeFrame(forge(3, header, bytesOf("{}")))).toMatchObject({
      proposal: { requests: [{ command: bytesOf("{}") }] },
    });
    for (const body of ["{", "{}}"]) {
      expect(() => decodeFrame(forge(3, header, bytesOf(body)))).toThrow(CodecError);
    }
  });
});

describe("frames that are sent together", () => {
  test("come out one by one, in their order", () => {
    fc.assert(
      fc.property(fc.array(frame, { minLength: 1, maxLength: 5 }), (sent) => {
        const frames = splitFrames(joinFrames(sent.map((each) => encodeFrame(each))));
        expect(frames.map((bytes) => plain(decodeFrame(bytes)))).toEqual(sent.map(plain));
      }),
      { numRuns: 100 },
    );
  });

  test("are the frame itself when there is one, and are never nested", () => {
    const one = encodeFrame({ kind: "reply", id: 1, body: null });
    expect(joinFrames([one])).toBe(one);
    const nested = joinFrames([joinFrames([one, one]), one]);
    expect(() => splitFrames(nested).map((bytes) => decodeFrame(bytes))).toThrow(CodecError);
  });

  test("that are cut anywhere are refused", () => {
    const one = encodeFrame({ kind: "reply", id: 1, body: "é" });
    const all = joinFrames([one, one, one]);
    for (let length = 2; length < all.length; length++) {
      const whole = (length - 2) % (one.length + 4) === 0;
      const read = (): unknown =>
        splitFrames(all.subarray(0, length)).map((bytes) => decodeFrame(bytes));
      if (whole) expect(read()).toHaveLength((length - 2) / (one.length + 4));
      else expect(read).toThrow(CodecError);
    }
  });
});
