/**
 * The shape of the frames by which a snapshot travels, checked when they come in: identities become names of
 * files, sizes become reads and writes.
 */
import { asIndex, asNodeId, asTerm } from "../raft/types.ts";
import type { BootstrapRecord, SnapshotFrame, SnapshotManifest } from "../replica/ports.ts";
import { readConfiguration } from "./message-shape.ts";
import {
  CodecError,
  type Fields,
  readArray,
  readCount,
  readRecord,
  readText,
  readTextOrNull,
} from "./shape.ts";

/** One chunk. Far above what is asked for, far below a frame. */
const MAX_CHUNK_BYTES = 1024 * 1024;
const MAX_MEMBERS = 256;
const ID = /^\d{1,16}-[0-9a-f]{8,32}$/;
const SHA_256 = /^[0-9a-f]{64}$/;

/** What stands in the header: the length instead of the bytes of a chunk. */
export function snapshotHeader(frame: SnapshotFrame): Fields {
  if (frame.type !== "chunk") return frame;
  const { type, id, offset, crc, data } = frame;
  return { type, id, offset, crc, bytes: data.length };
}

/** `data`: what stands behind the header. @throws CodecError */
export function readSnapshotFrame(fields: Fields, data: Uint8Array): SnapshotFrame {
  const type = readText(fields, "type");
  if (type === "chunk") {
    if (data.length > MAX_CHUNK_BYTES) throw new CodecError(`a chunk has ${data.length} bytes`);
    if (readCount(fields, "bytes") !== data.length) throw new CodecError("the chunk is cut");
    const offset = readCount(fields, "offset");
    return { type, id: readSnapshotId(fields), offset, crc: readCount(fields, "crc"), data };
  }
  if (data.length > 0) throw new CodecError("there are bytes behind the frame");
  switch (type) {
    case "open":
      return { type, held: fields["held"] === null ? null : readSnapshotId(fields, "held") };
    case "manifest":
      return { type, manifest: readManifest(readRecord(fields["manifest"], "manifest")) };
    case "read": {
      const bytes = readCount(fields, "bytes");
      if (bytes === 0 || bytes > MAX_CHUNK_BYTES)
        throw new CodecError(`${bytes} bytes are no chunk`);
      return { type, id: readSnapshotId(fields), offset: readCount(fields, "offset"), bytes };
    }
    case "gone":
      return {
        type,
        id: fields["id"] === null ? null : readSnapshotId(fields),
        detail: readText(fields, "detail"),
      };
    case "done":
      return { type, id: readSnapshotId(fields) };
    default:
      throw new CodecError(`the snapshot frame has the unknown type ${type.slice(0, 32)}`);
  }
}

function readSnapshotId(fields: Fields, name = "id"): string {
  const id = readText(fields, name);
  if (ID.test(id)) return id;
  throw new CodecError(`${name} names no snapshot`);
}

function readManifest(fields: Fields): SnapshotManifest {
  const checksum = readText(fields, "checksum");
  if (!SHA_256.test(checksum)) throw new CodecError("checksum is no SHA-256");
  return {
    id: readSnapshotId(fields),
    index: asIndex(readCount(fields, "index")),
    term: asTerm(readCount(fields, "term")),
    machineVersion: readCount(fields, "machineVersion"),
    bytes: readCount(fields, "bytes"),
    checksum,
    configuration: readConfiguration(fields["configuration"]),
    bootstrap: readBootstrap(readRecord(fields["bootstrap"], "bootstrap")),
  };
}

function readBootstrap(fields: Fields): BootstrapRecord {
  return {
    clusterId: readText(fields, "clusterId"),
    createdAt: readCount(fields, "createdAt"),
    members: readArray(fields, "members", MAX_MEMBERS).map((item) => {
      const member = readRecord(item, "member");
      return {
        id: asNodeId(readText(member, "id")),
        incarnation: readText(member, "incarnation"),
        url: readText(member, "url"),
      };
    }),
    settings: fields["settings"],
    machineVersion: readCount(fields, "machineVersion"),
    ...("origin" in fields ? { origin: readOrigin(readRecord(fields["origin"], "origin")) } : {}),
  };
}

function readOrigin(fields: Fields): NonNullable<BootstrapRecord["origin"]> {
  const kind = readText(fields, "kind");
  if (kind !== "rescue" && kind !== "restore") throw new CodecError("origin is of an unknown kind");
  return {
    kind,
    clusterId: readTextOrNull(fields, "clusterId"),
    index: asIndex(readCount(fields, "index")),
    term: asTerm(readCount(fields, "term")),
    note: readText(fields, "note"),
  };
}
