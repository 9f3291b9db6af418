/** Short ways to write entries and to wait, for the tests of the log stores. */
import {
  asIndex,
  asNodeId,
  asTerm,
  type Entry,
  type EntryKind,
  type HardState,
  type PersistAck,
  type PersistOp,
} from "../../src/raft/types.ts";
import type { LogStore } from "../../src/replica/ports.ts";

export const MEMBER = asNodeId("n1");

export function entry(
  index: number,
  term: number,
  data: string | Uint8Array = `entry ${index} of term ${term}`,
  kind: EntryKind = "command",
): Entry {
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  return { index: asIndex(index), term: asTerm(term), kind, data: bytes };
}

/** Entries `from` to `to`, all of one term. */
export function run(from: number, to: number, term: number): Entry[] {
  return Array.from({ length: to - from + 1 }, (_, i) => entry(from + i, term));
}

export function hard(term: number, vote: string | null = null): HardState {
  return { term: asTerm(term), vote: vote === null ? null : asNodeId(vote) };
}

/** Writes and waits until it is durable. */
export function write(log: LogStore, op: Partial<PersistOp>): Promise<PersistAck> {
  return new Promise((resolve) => {
    log.append({ hardState: op.hardState ?? null, entries: op.entries ?? [] }, resolve);
  });
}

/** Compared as plain text, whatever buffer the bytes lie in. */
export function plain(entries: readonly Entry[]): string[] {
  return entries.map(
    ({ index, term, kind, data }) =>
      `${index}/${term} ${kind} ${Buffer.from(data).toString("hex")}`,
  );
}
