/**
 * The handshake: four text messages, before any frame counts.
 *
 *     dialler → accepter  open       who I am, whom I dialled, the versions I speak, a nonce
 *     accepter → dialler  challenge  who I am, the version to speak from here on, a nonce
 *     dialler → accepter  proof      my hello, HMAC over it
 *     accepter → dialler  welcome    my hello, HMAC over both hellos
 *
 * The secret never travels. A proof covers direction, both ids, the prover's cluster id, both nonces and the
 * hellos as they were sent, so that it fits no other connection, no other direction and no altered hello.
 * The dialler proves first: whoever merely knocks gets neither a proof to guess the secret by, nor a hello.
 * Without a secret the proofs are empty, and both sides must be without. Pure: no sockets, no timers.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { PeerHello, Refusal, RefusalCode } from "../replica/ports.ts";
import { asIndex, asTerm, type NodeId } from "../raft/types.ts";
import type { ProtocolRange } from "./protocol-version.ts";
import {
  CodecError,
  type Fields,
  readCount,
  readId,
  readIds,
  readRecord,
  readText,
  readTextOrNull,
} from "./shape.ts";

/** A hello holds at most one record per member: 256 of them stay well below it. */
export const MAX_HANDSHAKE_CHARACTERS = 256 * 1024;
/** Bytes of a nonce: as many as the HMAC has. */
export const NONCE_BYTES = 32;

const NONCE_PATTERN = /^[0-9a-f]{64}$/;
const PROOF_PATTERN = /^([0-9a-f]{64})?$/;
const MAX_PEER_IDS = 256;
const REFUSAL_CODES: readonly RefusalCode[] = ["refused", "joining", "no-join", "removed"];

export type HandshakeMessage =
  | {
      readonly type: "open";
      readonly speaks: ProtocolRange;
      readonly from: NodeId;
      readonly to: NodeId;
      readonly nonce: string;
      /** The dialler has a secret. */
      readonly secret: boolean;
    }
  | {
      readonly type: "challenge";
      readonly version: number;
      readonly from: NodeId;
      readonly nonce: string;
      readonly secret: boolean;
    }
  /** `hello` is the text that the proof covers, byte for byte. */
  | { readonly type: "proof"; readonly hello: string; readonly proof: string }
  | { readonly type: "welcome"; readonly hello: string; readonly proof: string }
  /** Goes ahead of a close: a close reason has room for 123 bytes only. */
  | ({ readonly type: "reject" } & Refusal);

/** Both ends' part of one connection: what a proof is bound to. */
export interface Transcript {
  /** Of the protocol, as agreed. */
  readonly version: number;
  readonly dialler: NodeId;
  readonly accepter: NodeId;
  readonly diallerNonce: string;
  readonly accepterNonce: string;
  readonly diallerHello: string;
  /** Empty in the dialler's proof: the accepter's hello is not out yet. */
  readonly accepterHello: string;
}

/** 64 hex digits, or nothing without a secret. `clusterId` is the prover's. */
export function prove(
  secret: string | null,
  direction: "dialler" | "accepter",
  transcript: Transcript,
  clusterId: string | null,
): string {
  if (secret === null) return "";
  const hellos = createHash("sha256")
    .update(JSON.stringify([transcript.diallerHello, transcript.accepterHello]))
    .digest("hex");
  // A JSON array keeps the parts apart: no two different lists give the same text.
  const statement = JSON.stringify([
    "flotilla-peer",
    transcript.version,
    direction,
    transcript.dialler,
    transcript.accepter,
    clusterId ?? "",
    transcript.diallerNonce,
    transcript.accepterNonce,
    hellos,
  ]);
  return createHmac("sha256", secret).update(statement).digest("hex");
}

/** Compares in constant time. */
export function proves(given: string, expected: string): boolean {
  const givenBytes = Buffer.from(given, "utf8");
  const expectedBytes = Buffer.from(expected, "utf8");
  return givenBytes.length === expectedBytes.length && timingSafeEqual(givenBytes, expectedBytes);
}

/** @throws CodecError for anything but a well-formed message of the handshake */
export function parseHandshake(text: string): HandshakeMessage {
  if (text.length > MAX_HANDSHAKE_CHARACTERS) throw new CodecError("the handshake is too long");
  const fields = parseObject(text);
  const type = readText(fields, "type");
  switch (type) {
    case "open":
      return {
        type,
        speaks: readRange(fields),
        from: readId(fields, "from"),
        to: readId(fields, "to"),
        nonce: readMatching(fields, "nonce", NONCE_PATTERN),
        secret: fields["secret"] === true,
      };
    case "challenge":
      return {
        type,
        version: readCount(fields, "version"),
        from: readId(fields, "from"),
        nonce: readMatching(fields, "nonce", NONCE_PATTERN),
        secret: fields["secret"] === true,
      };
    case "proof":
    case "welcome":
      return {
        type,
        hello: readText(fields, "hello"),
        proof: readMatching(fields, "proof", PROOF_PATTERN),
      };
    case "reject":
      return {
        type,
        sentence: printable(readText(fields, "sentence")),
        code: REFUSAL_CODES.find((code) => code === fields["code"]) ?? "refused",
      };
    default:
      throw new CodecError("the handshake has an unknown message");
  }
}

/** @throws CodecError for anything but the JSON of a hello */
export function parseHello(text: string): PeerHello {
  const fields = parseObject(text);
  return {
    id: readId(fields, "id"),
    incarnation: readText(fields, "incarnation"),
    boot: readCount(fields, "boot"),
    clusterId: readTextOrNull(fields, "clusterId"),
    lastIndex: asIndex(readCount(fields, "lastIndex")),
    lastTerm: asTerm(readCount(fields, "lastTerm")),
    peerIds: readIds(fields, "peerIds", MAX_PEER_IDS),
    advertise: readText(fields, "advertise"),
    machineVersion: readCount(fields, "machineVersion"),
    machineVersionOldest: readCount(fields, "machineVersionOldest"),
    bootstrap: readTextOrNull(fields, "bootstrap"),
    // Members of older builds do not say these.
    ...("term" in fields ? { term: asTerm(readCount(fields, "term")) } : {}),
    ...("configIndex" in fields ? { configIndex: asIndex(readCount(fields, "configIndex")) } : {}),
    ...(fields["join"] === true ? { join: true } : {}),
    ...("startedAt" in fields ? { startedAt: readCount(fields, "startedAt") } : {}),
  };
}

/** A sentence for both logs when only one side has a secret, or null. */
export function secretMismatch(
  self: NodeId,
  selfHas: boolean,
  peer: NodeId,
  peerHas: boolean,
): string | null {
  if (selfHas === peerHas) return null;
  const [has, lacks] = selfHas ? [self, peer] : [peer, self];
  return `${has} has a secret and ${lacks} has none: start every member with the same --secret`;
}

/** For both logs when a proof does not fit. */
export function wrongSecret(prover: NodeId, verifier: NodeId): string {
  return `${prover} did not prove the secret of ${verifier}: start every member with the same --secret`;
}

function parseObject(text: string): Fields {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new CodecError("the handshake is not JSON");
  }
  return readRecord(value, "handshake");
}

function readRange(fields: Fields): ProtocolRange {
  const range = readRecord(fields["speaks"], "speaks");
  const oldest = readCount(range, "oldest");
  const newest = readCount(range, "newest");
  if (oldest > newest) throw new CodecError("speaks is no range");
  return { oldest, newest };
}

function readMatching(fields: Fields, name: string, pattern: RegExp): string {
  const value = readText(fields, name);
  if (pattern.test(value)) return value;
  throw new CodecError(`${name} is malformed`);
}

/** What a stranger sends goes into the log: one line, no control characters, not endless. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, "?").slice(0, 300);
}
