import { describe, expect, test } from "bun:test";
import { asIndex, asNodeId, asTerm, type Entry } from "../../src/raft/types.ts";
import { decodeEntry, encodeEnvelope } from "../../src/replica/envelope.ts";
import { FatalError } from "../../src/replica/ports.ts";

const n1 = asNodeId("n1");
const n2 = asNodeId("n2");
const entry = (data: Uint8Array): Entry => ({
  index: asIndex(7),
  term: asTerm(3),
  kind: "command",
  data,
});
const acks = [{ member: n2, boot: 1, below: 300 }];
const requests = [
  { member: n1, boot: 2, seq: 5, command: new Uint8Array([1, 2, 3]) },
  { member: n2, boot: 1, seq: 20_000, command: new Uint8Array() },
  { member: n1, boot: 2, seq: 6, command: new Uint8Array([255]) },
];
const now = 1_700_000_000_000.5;

/** Builds must read it for ever. */
const GOLDEN =
  "0100088056febc7842ffffffff0f02056e3201056e31020100ac020301050300a09c010001060100010203ff";

describe("an entry of commands", () => {
  test("has the bytes of the first build, and is read as what was written", () => {
    expect(encodeEnvelope(now, 0xffff_ffff, acks, requests).toHex()).toBe(GOLDEN);
    expect(decodeEntry(entry(Uint8Array.fromHex(GOLDEN)))).toEqual({
      index: asIndex(7),
      term: asTerm(3),
      now,
      seed: 0xffff_ffff,
      acks,
      requests,
      bootstrap: null,
    });
  });

  test("may be empty", () => {
    const { acks: none, requests: nothing } = decodeEntry(entry(encodeEnvelope(1, 0, [], [])));
    expect([none, nothing]).toEqual([[], []]);
  });

  test("of another version, or cut anywhere, stops the member in words", () => {
    const whole = Uint8Array.fromHex(GOLDEN);
    expect(() => decodeEntry(entry(whole.with(0, 2)))).toThrow("has version 2");
    for (let length = 0; length < whole.length; length++)
      expect(() => decodeEntry(entry(whole.slice(0, length)))).toThrow(FatalError);
  });

  test("with an option of a later build is passed over when that is even, and stops the member when it is odd", () => {
    const whole = encodeEnvelope(1, 0, [], []);
    const withOption = (tag: number): Uint8Array =>
      new Uint8Array([...whole.subarray(0, whole.length - 1), tag, 2, 9, 9, 0]);
    expect(decodeEntry(entry(withOption(2))).requests).toEqual([]);
    expect(() => decodeEntry(entry(withOption(3)))).toThrow("option 3");
  });
});
