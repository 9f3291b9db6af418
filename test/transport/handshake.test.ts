import { PROTOCOL } from "../../src/transport/protocol-version.ts";
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { asNodeId } from "../../src/raft/types.ts";
import {
  MAX_HANDSHAKE_CHARACTERS,
  parseHandshake,
  parseHello,
  prove,
  proves,
  secretMismatch,
  type Transcript,
} from "../../src/transport/handshake.ts";
import { CodecError } from "../../src/transport/shape.ts";

const SECRET = "correct horse battery staple";
const transcript: Transcript = {
  version: PROTOCOL.newest,
  dialler: asNodeId("n1"),
  accepter: asNodeId("n2"),
  diallerNonce: "1".repeat(64),
  accepterNonce: "2".repeat(64),
  diallerHello: '{"id":"n1"}',
  accepterHello: '{"id":"n2"}',
};

describe("a proof", () => {
  const proof = prove(SECRET, "dialler", transcript, "cluster");

  test("fits the connection that it was made for", () => {
    expect(proof).toMatch(/^[0-9a-f]{64}$/);
    expect(proves(proof, prove(SECRET, "dialler", { ...transcript }, "cluster"))).toBe(true);
  });

  test.each<[string, () => string]>([
    ["another secret", () => prove(`${SECRET}!`, "dialler", transcript, "cluster")],
    ["the other direction", () => prove(SECRET, "accepter", transcript, "cluster")],
    ["another cluster", () => prove(SECRET, "dialler", transcript, "other")],
    ["no cluster", () => prove(SECRET, "dialler", transcript, null)],
    [
      "another dialler",
      () => prove(SECRET, "dialler", { ...transcript, dialler: asNodeId("n3") }, "cluster"),
    ],
    [
      "another accepter",
      () => prove(SECRET, "dialler", { ...transcript, accepter: asNodeId("n3") }, "cluster"),
    ],
    [
      "the nonces exchanged",
      () =>
        prove(
          SECRET,
          "dialler",
          {
            ...transcript,
            diallerNonce: transcript.accepterNonce,
            accepterNonce: transcript.diallerNonce,
          },
          "cluster",
        ),
    ],
    [
      "an altered hello",
      () => prove(SECRET, "dialler", { ...transcript, diallerHello: '{"id":"n1" }' }, "cluster"),
    ],
    [
      "a piece moved from one hello to the other",
      () =>
        prove(
          SECRET,
          "dialler",
          { ...transcript, diallerHello: '{"id":"n1"}{', accepterHello: '"id":"n2"}' },
          "cluster",
        ),
    ],
    ["nothing", () => ""],
  ])("does not fit %s", (_name, other) => {
    expect(proves(other(), proof)).toBe(false);
    expect(proves(proof, other())).toBe(false);
  });

  test("is empty without a secret, and then fits only an empty one", () => {
    expect(prove(null, "dialler", transcript, null)).toBe("");
    expect(proves("", "")).toBe(true);
    expect(proves("", proof)).toBe(false);
  });

  test("of other characters with the same length is compared without an exception", () => {
    expect(proves("é".repeat(64), proof)).toBe(false);
  });
});

describe("a handshake message", () => {
  test("of any text is read or refused, never anything else", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        for (const parse of [parseHandshake, parseHello]) {
          try {
            parse(text);
          } catch (error) {
            expect(error).toBeInstanceOf(CodecError);
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  test("that is too long is refused before it is parsed", () => {
    const long = `{"type":"reject","sentence":"${"x".repeat(MAX_HANDSHAKE_CHARACTERS)}"}`;
    expect(() => parseHandshake(long)).toThrow("too long");
  });

  test.each([
    ["a nonce that is too short", { type: "challenge", from: "n1", nonce: "ab", secret: true }],
    ["a name that is none", { type: "challenge", from: "../n1", nonce: "1".repeat(64) }],
    ["a proof that is no HMAC", { type: "proof", hello: "{}", proof: "yes" }],
    ["an unknown type", { type: "constructor" }],
    ["no type", {}],
  ])("with %s is refused", (_name, message) => {
    expect(() => parseHandshake(JSON.stringify(message))).toThrow(CodecError);
  });

  test("of a refusal cannot forge lines of the log", () => {
    const parsed = parseHandshake(
      JSON.stringify({ type: "reject", sentence: `no\n2026 ERROR \u001b[31m${"x".repeat(1_000)}` }),
    );
    if (parsed.type !== "reject") throw new Error("no reject");
    expect(parsed.sentence).toStartWith("no?2026 ERROR ?[31mx");
    expect(parsed.sentence.length).toBe(300);
  });
});

test("only one side with a secret is told to both in the same words", () => {
  const [a, b] = [asNodeId("a"), asNodeId("b")];
  expect(secretMismatch(a, true, b, false)).toBe(secretMismatch(b, false, a, true));
  expect(secretMismatch(a, true, b, true)).toBeNull();
  expect(secretMismatch(a, false, b, false)).toBeNull();
});
