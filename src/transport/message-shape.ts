/**
 * The shape of the Raft messages that are JSON, checked when they come in: the core may then rely on its types. (Those
 * of every commit are bytes: message-codec.ts.) What a message means, and whether it fits the term, is the core's to
 * judge.
 */
import {
  asIndex,
  asTerm,
  type Configuration,
  type LogIndex,
  type MemberRecord,
  type Message,
  type SnapshotMeta,
  type Term,
} from "../raft/types.ts";
import type { Append, Brief } from "./message-codec.ts";
import {
  CodecError,
  type Fields,
  readCount,
  readFlag,
  readId,
  readIds,
  readRecord,
  readText,
} from "./shape.ts";

/** A message that does not travel with every commit. */
export type RareMessage = Exclude<Message, Append | Brief>;

/** Members of one configuration, all lists together are of the same members. */
const MAX_MEMBERS = 256;

/** @throws CodecError */
export function readMessage(fields: Fields): RareMessage {
  const envelope = {
    from: readId(fields, "from"),
    to: readId(fields, "to"),
    term: readTerm(fields, "term"),
  };
  const type = readText(fields, "type");
  switch (type) {
    case "vote":
      return {
        ...envelope,
        type,
        pre: readFlag(fields, "pre"),
        lastIndex: readIndex(fields, "lastIndex"),
        lastTerm: readTerm(fields, "lastTerm"),
        transfer: readFlag(fields, "transfer"),
        leaderLost: readFlag(fields, "leaderLost"),
      };
    case "vote-reply":
      return {
        ...envelope,
        type,
        pre: readFlag(fields, "pre"),
        granted: readFlag(fields, "granted"),
      };
    case "timeout-now":
      return { ...envelope, type };
    case "snapshot":
      return { ...envelope, type, snapshot: readSnapshot(fields["snapshot"]) };
    case "snapshot-reply":
      return {
        ...envelope,
        type,
        index: readIndex(fields, "index"),
        ok: readFlag(fields, "ok"),
      };
    default:
      throw new CodecError(`the message has the unknown type ${JSON.stringify(type.slice(0, 32))}`);
  }
}

function readTerm(fields: Fields, name: string): Term {
  return asTerm(readCount(fields, name));
}

function readIndex(fields: Fields, name: string): LogIndex {
  return asIndex(readCount(fields, name));
}

function readSnapshot(value: unknown): SnapshotMeta {
  const snapshot = readRecord(value, "snapshot");
  return {
    index: readIndex(snapshot, "index"),
    term: readTerm(snapshot, "term"),
    configuration: readConfiguration(snapshot["configuration"]),
  };
}

/** @throws CodecError */
export function readConfiguration(value: unknown): Configuration {
  const configuration = readRecord(value, "configuration");
  const records = Object.entries(readRecord(configuration["members"], "members"));
  if (records.length > MAX_MEMBERS) throw new CodecError(`members holds more than ${MAX_MEMBERS}`);
  const members: Record<string, MemberRecord> = {};
  for (const [id, item] of records) {
    const record = readRecord(item, "member");
    members[readId({ id }, "id")] = {
      url: readText(record, "url"),
      incarnation: readText(record, "incarnation"),
      ...(record["voter"] === true ? { voter: true } : {}),
      ...("replaces" in record ? { replaces: readId(record, "replaces") } : {}),
    };
  }
  return {
    voters: readIds(configuration, "voters", MAX_MEMBERS),
    outgoing: readIds(configuration, "outgoing", MAX_MEMBERS),
    learners: readIds(configuration, "learners", MAX_MEMBERS),
    learnersNext: readIds(configuration, "learnersNext", MAX_MEMBERS),
    members,
  };
}
