/**
 * The shape of Raft messages, checked when they come in: the core may then rely on its types.
 *
 * Cheap on purpose (append and heartbeat are the hot path): types, signs and known names. What a message
 * means, and whether it fits the term, is the core's to judge.
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

/** Members of one configuration, all lists together are of the same members. */
const MAX_MEMBERS = 256;

/**
 * Reads any message but the entries of an append, which the codec adds.
 * @throws CodecError
 */
export function readMessage(fields: Fields): Message {
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
    case "append":
      return {
        ...envelope,
        type,
        prevIndex: readIndex(fields, "prevIndex"),
        prevTerm: readTerm(fields, "prevTerm"),
        entries: [],
        commit: readIndex(fields, "commit"),
      };
    case "append-reply":
      return {
        ...envelope,
        type,
        prevIndex: readIndex(fields, "prevIndex"),
        match: readIndexOrNull(fields, "match"),
        hint: readHint(fields["hint"]),
        ...(fields["lost"] === true ? { lost: true as const } : {}),
      };
    case "heartbeat":
      return {
        ...envelope,
        type,
        commit: readIndex(fields, "commit"),
        round: readCount(fields, "round"),
      };
    case "heartbeat-reply":
      return { ...envelope, type, round: readCount(fields, "round") };
    case "read-index":
      return { ...envelope, type, id: readCount(fields, "id") };
    case "read-index-reply":
      return {
        ...envelope,
        type,
        id: readCount(fields, "id"),
        index: readIndexOrNull(fields, "index"),
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

function readIndexOrNull(fields: Fields, name: string): LogIndex | null {
  return fields[name] === null ? null : readIndex(fields, name);
}

function readHint(value: unknown): { readonly index: LogIndex; readonly term: Term } | null {
  if (value === null) return null;
  const hint = readRecord(value, "hint");
  return { index: readIndex(hint, "index"), term: readTerm(hint, "term") };
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
