/**
 * The bytes of a `command` entry and of entry 1. A command is serialised once, by who submits it; sealing puts
 * those bytes behind each other, so neither forwarding nor replication touches them again, and what they say is
 * the state machine's business. Values as in bytes.ts; version 1:
 *
 *     byte    version
 *     number  log time, epoch ms
 *     count   seed, 32 bits
 *     count   sources, each: text member, count boot
 *     count   acknowledgements, each: count source, count below
 *     count   requests, each: count source, count sequence, count bytes of its command
 *     options (none yet)
 *     the commands, back to back
 *
 * A source is one boot of one member. Whatever builds write this for ever must read it: golden bytes are in
 * test/replica/envelope.test.ts.
 */
import { allMembers, decodeConfigurationEntry } from "../raft/configuration.ts";
import type { Configuration, Entry, NodeId } from "../raft/types.ts";
import { asNodeId } from "../raft/types.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";
import {
  type BootstrapRecord,
  type CommittedEntry,
  FatalError,
  type LoggedRequest,
} from "./ports.ts";

const ENVELOPE_VERSION = 1;
/** What the envelope itself may take for each request, and for everything else: for who fills entries. */
export const ENVELOPE_BYTES_PER_REQUEST = 24;

export interface SealableRequest {
  readonly member: NodeId;
  readonly boot: number;
  readonly seq: number;
  /** As the state machine's codec wrote it. */
  readonly command: Uint8Array;
}

export interface Ack {
  readonly member: NodeId;
  readonly boot: number;
  /** Every answer below this sequence has reached the member. */
  readonly below: number;
}

interface Source {
  readonly member: NodeId;
  readonly boot: number;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });
const writer = new ByteWriter();

/** Encodes one entry's data. `now`: log time in epoch ms; `seed`: 32 bits. */
export function encodeEnvelope(
  now: number,
  seed: number,
  acks: readonly Ack[],
  requests: readonly SealableRequest[],
): Uint8Array {
  const sources: Source[] = [];
  const sourceOf = ({ member, boot }: Source): number => {
    const known = sources.findIndex((one) => one.member === member && one.boot === boot);
    return known >= 0 ? known : sources.push({ member, boot }) - 1;
  };
  const ackSources = acks.map(sourceOf);
  const requestSources = requests.map(sourceOf);
  writer.begin();
  writer.byte(ENVELOPE_VERSION);
  writer.number(now);
  writer.count(seed);
  writer.count(sources.length);
  for (const { member, boot } of sources) {
    writer.text(member);
    writer.count(boot);
  }
  writer.count(acks.length);
  for (const [i, { below }] of acks.entries()) {
    writer.count(ackSources[i] ?? 0);
    writer.count(below);
  }
  writer.count(requests.length);
  for (const [i, { seq, command }] of requests.entries()) {
    writer.count(requestSources[i] ?? 0);
    writer.count(seq);
    writer.count(command.length);
  }
  writer.endOptions();
  for (const { command } of requests) writer.bytes(command);
  return writer.take();
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
  const reader = new ByteReader(entry.data);
  const version = reader.byte();
  if (version !== ENVELOPE_VERSION) {
    throw new FatalError(
      `log entry ${entry.index} has version ${version}, this build reads ${ENVELOPE_VERSION}: start a build that knows it`,
    );
  }
  const now = reader.number();
  const seed = reader.count();
  const sources: Source[] = [];
  for (let left = reader.count(); left > 0; left--) {
    sources.push({ member: asNodeId(reader.text()), boot: reader.count() });
  }
  const source = (): Source => {
    const found = sources[reader.count()];
    if (found === undefined) throw new FatalError(`log entry ${entry.index} names no such source`);
    return found;
  };
  const acks: { member: NodeId; boot: number; below: number }[] = [];
  for (let left = reader.count(); left > 0; left--) {
    const { member, boot } = source();
    acks.push({ member, boot, below: reader.count() });
  }
  const heads: (Source & { readonly seq: number; readonly bytes: number })[] = [];
  for (let left = reader.count(); left > 0; left--) {
    const { member, boot } = source();
    heads.push({ member, boot, seq: reader.count(), bytes: reader.count() });
  }
  reader.options(() => false);
  const requests = heads.map(({ member, boot, seq, bytes }): LoggedRequest => ({
    member,
    boot,
    seq,
    command: reader.view(bytes),
  }));
  return { index: entry.index, term: entry.term, now, seed, requests, acks, bootstrap: null };
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
