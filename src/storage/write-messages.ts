/**
 * Writes on their way to the log's thread, as one buffer that is transferred: a structured clone of the same in
 * objects costs both threads more than the rest of the trip.
 *
 *     u32 writes, for each:
 *       u8 1: a hard state follows: f64 term, u8 vote bytes | 255: none, vote
 *       u32 entries, for each: f64 term, f64 index, u8 kind, u32 bytes of data
 *     the data of all entries, one behind the other
 *
 * Both ends are this build: the layout is nobody else's business.
 */
import { asIndex, asNodeId, asTerm, type Entry, type PersistOp } from "../raft/types.ts";

const KINDS = ["noop", "command", "config", "bootstrap"] as const;
const ENTRY_BYTES = 8 + 8 + 1 + 4;
const NO_VOTE = 255;

export function packWrites(writes: readonly PersistOp[]): ArrayBuffer {
  const buffer = new ArrayBuffer(sizeOf(writes));
  const view = new DataView(buffer);
  const bytes = new Uint8Array(buffer);
  let at = 4;
  view.setUint32(0, writes.length);
  for (const { hardState, entries } of writes) {
    bytes[at++] = hardState === null ? 0 : 1;
    if (hardState !== null) {
      const vote = hardState.vote ?? "";
      view.setFloat64(at, hardState.term);
      bytes[at + 8] = hardState.vote === null ? NO_VOTE : vote.length;
      at += 9;
      for (let i = 0; i < vote.length; i++) bytes[at++] = vote.charCodeAt(i);
    }
    view.setUint32(at, entries.length);
    at += 4;
    for (const { term, index, kind, data } of entries) {
      view.setFloat64(at, term);
      view.setFloat64(at + 8, index);
      bytes[at + 16] = KINDS.indexOf(kind);
      view.setUint32(at + 17, data.length);
      at += ENTRY_BYTES;
    }
  }
  for (const { entries } of writes) {
    for (const { data } of entries) {
      bytes.set(data, at);
      at += data.length;
    }
  }
  return buffer;
}

function sizeOf(writes: readonly PersistOp[]): number {
  let size = 4;
  for (const { hardState, entries } of writes) {
    size += 5 + entries.length * ENTRY_BYTES;
    if (hardState !== null) size += 9 + (hardState.vote?.length ?? 0);
    for (const { data } of entries) size += data.length;
  }
  return size;
}

/** The entries' data are views of the buffer. */
export function unpackWrites(buffer: ArrayBuffer): PersistOp[] {
  const view = new DataView(buffer);
  const bytes = new Uint8Array(buffer);
  const sizes: number[] = [];
  const heads: { readonly hardState: PersistOp["hardState"]; readonly entries: Head[] }[] = [];
  let at = 4;
  for (let left = view.getUint32(0); left > 0; left--) {
    let hardState: PersistOp["hardState"] = null;
    if (bytes[at++] === 1) {
      const term = asTerm(view.getFloat64(at));
      const length = view.getUint8(at + 8);
      at += 9;
      const end = length === NO_VOTE ? at : at + length;
      const vote = String.fromCharCode(...bytes.subarray(at, end));
      hardState = { term, vote: length === NO_VOTE ? null : asNodeId(vote) };
      at = end;
    }
    const entries: Head[] = [];
    const count = view.getUint32(at);
    at += 4;
    for (let i = 0; i < count; i++, at += ENTRY_BYTES) {
      const kind = KINDS[view.getUint8(at + 16)];
      if (kind === undefined) throw new Error("a write with an unknown kind of entry");
      const term = asTerm(view.getFloat64(at));
      entries.push({ term, index: asIndex(view.getFloat64(at + 8)), kind });
      sizes.push(view.getUint32(at + 17));
    }
    heads.push({ hardState, entries });
  }
  let next = 0;
  return heads.map(({ hardState, entries }) => ({
    hardState,
    entries: entries.map((head) => {
      const size = sizes[next++] ?? 0;
      const data = bytes.subarray(at, at + size);
      at += size;
      return { ...head, data };
    }),
  }));
}

type Head = Omit<Entry, "data">;
