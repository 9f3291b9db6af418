/**
 * What the log's owner and its thread say to each other. Entries that are read travel as columns and one buffer:
 * cloning many small objects is slow, and a view that is cloned takes the whole buffer under it along.
 */
import { asIndex, asTerm, type Entry, type EntryKind } from "../raft/types.ts";
import type { LogInstall, RecoveredLog } from "../replica/ports.ts";

export interface PackedEntries {
  readonly terms: readonly number[];
  readonly indexes: readonly number[];
  readonly kinds: readonly EntryKind[];
  readonly sizes: readonly number[];
  /** The entries' bytes, one after the other; transferred. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** A buffer holds writes (write-messages.ts). Requests with an `id` are answered by one `done` or `refused` of that id. */
export type LogRequest =
  | ArrayBuffer
  | {
      readonly kind: "open";
      readonly id: number;
      readonly folder: string;
      readonly member: string;
      readonly tailBytes: number;
    }
  | {
      readonly kind: "read";
      readonly id: number;
      readonly from: number;
      readonly to: number;
      readonly maxBytes: number;
    }
  | { readonly kind: "compact"; readonly id: number; readonly index: number; readonly term: number }
  | { readonly kind: "bind"; readonly id: number; readonly clusterId: string }
  | { readonly kind: "mark-install"; readonly id: number; readonly install: LogInstall }
  | { readonly kind: "finish-install"; readonly id: number }
  | { readonly kind: "cut"; readonly id: number }
  | { readonly kind: "close" };

export interface LogSizes {
  readonly entries: number;
  readonly bytes: number;
}

export type LogReply =
  /**
   * So many more writes, the oldest ones, are durable. `ms`: the transaction, its sync included. Flat, as LogSizes are
   * not: what holds no object is cloned in a fraction of the time.
   */
  | {
      readonly kind: "durable";
      readonly writes: number;
      readonly ms: number;
      readonly entries: number;
      readonly bytes: number;
    }
  | {
      readonly kind: "opened";
      readonly id: number;
      readonly recovered: RecoveredLog;
      readonly sizes: LogSizes;
    }
  | { readonly kind: "entries"; readonly id: number; readonly packed: PackedEntries }
  | { readonly kind: "done"; readonly id: number; readonly sizes: LogSizes }
  /** The request cannot be met; the log is as it was. `fatal`: and the member must not go on. */
  | {
      readonly kind: "refused";
      readonly id: number;
      readonly message: string;
      readonly fatal: boolean;
    }
  /** A write waits for room on a full disk, and is tried again; the next `durable` says that it is over. */
  | { readonly kind: "no-room" }
  /** The thread has stopped writing for good. */
  | { readonly kind: "failed"; readonly message: string };

export function packEntries(entries: readonly Entry[]): PackedEntries {
  let size = 0;
  for (const { data } of entries) size += data.length;
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const { data } of entries) {
    bytes.set(data, at);
    at += data.length;
  }
  return {
    terms: entries.map(({ term }) => term),
    indexes: entries.map(({ index }) => index),
    kinds: entries.map(({ kind }) => kind),
    sizes: entries.map(({ data }) => data.length),
    bytes,
  };
}

export function unpackEntries({ terms, indexes, kinds, sizes, bytes }: PackedEntries): Entry[] {
  let at = 0;
  return indexes.map((index, i) => {
    const term = terms[i];
    const kind = kinds[i];
    const size = sizes[i];
    if (term === undefined || kind === undefined || size === undefined) {
      throw new Error(`entry ${index} came without its term, kind or size`);
    }
    const data = bytes.subarray(at, at + size);
    at += size;
    return { term: asTerm(term), index: asIndex(index), kind, data };
  });
}
