/**
 * The bytes of a `command` entry and of entry 1. A command is serialised once, by who submits it; sealing
 * concatenates those texts, so neither forwarding nor replication encodes it again.
 *
 * Layout (version 1): {"v":1,"now":ms,"seed":u32,"acks":[[member,boot,below]…],"requests":[[member,boot,seq,command]…]}
 */
import { allMembers, decodeConfigurationEntry } from "../raft/configuration.ts";
import type { Configuration, Entry, NodeId } from "../raft/types.ts";
import {
  type BootstrapRecord,
  type CommittedEntry,
  FatalError,
  type LoggedRequest,
} from "./ports.ts";

const ENVELOPE_VERSION = 1;

export interface SealableRequest {
  readonly member: NodeId;
  readonly boot: number;
  readonly seq: number;
  /** The command's JSON text. */
  readonly text: string;
}

export interface Ack {
  readonly member: NodeId;
  readonly boot: number;
  /** Every answer below this sequence has reached the member. */
  readonly below: number;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** Encodes one entry's data. `now`: log time in epoch ms; `seed`: 32 bits. */
export function encodeEnvelope(
  now: number,
  seed: number,
  acks: readonly Ack[],
  requests: readonly SealableRequest[],
): Uint8Array {
  let text = `{"v":${ENVELOPE_VERSION},"now":${now},"seed":${seed},"acks":${JSON.stringify(
    acks.map((ack) => [ack.member, ack.boot, ack.below]),
  )},"requests":[`;
  let separator = "";
  for (const request of requests) {
    text += `${separator}["${request.member}",${request.boot},${request.seq},${request.text}]`;
    separator = ",";
  }
  return encoder.encode(`${text}]}`);
}

interface EnvelopeText {
  v: number;
  now: number;
  seed: number;
  acks: [NodeId, number, number][];
  requests: [NodeId, number, number, unknown][];
}

/** @throws FatalError when the entry has a version that this build does not know: it must not be skipped. */
export function decodeEntry(entry: Entry): CommittedEntry {
  switch (entry.kind) {
    case "noop":
      return empty(entry, null);
    case "config":
      return { ...empty(entry, null), members: allMembers(decodeConfigurationEntry(entry)) };
    case "bootstrap":
      return empty(entry, decodeBootstrap(entry).record);
    case "command":
      return decodeCommands(entry);
  }
}

function empty(entry: Entry, bootstrap: BootstrapRecord | null): CommittedEntry {
  const now = bootstrap === null ? 0 : bootstrap.createdAt;
  return { index: entry.index, term: entry.term, now, seed: 0, requests: [], acks: [], bootstrap };
}

function decodeCommands(entry: Entry): CommittedEntry {
  const body = JSON.parse(decoder.decode(entry.data)) as EnvelopeText;
  if (body.v !== ENVELOPE_VERSION) {
    throw new FatalError(
      `log entry ${entry.index} has version ${body.v}, this build reads ${ENVELOPE_VERSION}: start a build that knows it`,
    );
  }
  const requests: LoggedRequest[] = body.requests.map(([member, boot, seq, command]) => ({
    member,
    boot,
    seq,
    command,
  }));
  return {
    index: entry.index,
    term: entry.term,
    now: body.now,
    seed: body.seed,
    requests,
    acks: body.acks.map(([member, boot, below]) => ({ member, boot, below })),
    bootstrap: null,
  };
}

/** Entry 1: the first configuration under the key that the core reads, and the cluster's record. */
export function encodeBootstrap(configuration: Configuration, record: BootstrapRecord): Uint8Array {
  return encoder.encode(JSON.stringify({ configuration, record }));
}

export function decodeBootstrap(entry: Entry): {
  configuration: Configuration;
  record: BootstrapRecord;
} {
  const body = JSON.parse(decoder.decode(entry.data)) as { record: BootstrapRecord };
  return { configuration: decodeConfigurationEntry(entry), record: body.record };
}
