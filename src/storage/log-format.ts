/**
 * The format of `log.db`: tables, the numbers of the entry kinds, checksums. Nothing here opens a file.
 *
 * Every row carries a CRC32 over all that it says, its own index included: a bit that flips on the disk, or
 * a row that lands under another key, is found when the log is opened and whenever it is read.
 */
import {
  asIndex,
  asTerm,
  type EntryKind,
  type HardState,
  type LogIndex,
  type Term,
} from "../raft/types.ts";
import { FatalError, type LogInstall } from "../replica/ports.ts";

export const LOG_FILE = "log.db";
/** Raised when a build can no longer read what an older one wrote, or the other way round. */
export const LOG_FORMAT = "1";

export const LOG_TABLES = [
  `CREATE TABLE entries (
     idx INTEGER PRIMARY KEY, term INTEGER NOT NULL, kind INTEGER NOT NULL,
     crc INTEGER NOT NULL, data BLOB NOT NULL) STRICT`,
  // What compaction must not forget: entry 1 and the newest membership below the first row of `entries`.
  `CREATE TABLE foundations (
     kind INTEGER PRIMARY KEY, idx INTEGER NOT NULL, term INTEGER NOT NULL,
     crc INTEGER NOT NULL, data BLOB NOT NULL) STRICT`,
  // Term and vote in one row: in two, a crash could leave a new term with an old vote, and a second vote.
  `CREATE TABLE hard_state (
     one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL, vote TEXT,
     crc INTEGER NOT NULL) STRICT`,
  // The same again on another page, so that a bit that flips does not cost the member its vote. `boot`: of the
  // process that wrote it; one that a build without this table left behind is not believed.
  `CREATE TABLE hard_state_copy (
     one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL, vote TEXT,
     boot INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT`,
  `CREATE TABLE meta (
     key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL) STRICT, WITHOUT ROWID`,
] as const;

/**
 * What `meta` holds. `compacted` is `index:term`; `cluster_id` is missing until it is known; `installing` is an
 * encoded {@link LogInstall} while a snapshot is being put in place; `promised` is `index:term` after a repair began.
 */
export type MetaKey =
  "format" | "id" | "incarnation" | "cluster_id" | "boot" | "compacted" | "installing" | "promised";

const KINDS: readonly EntryKind[] = ["noop", "command", "config", "bootstrap"];

/** As lists in SQL: the kinds that say who the members are. */
export const MEMBERSHIP_KINDS = "2, 3";

export function kindNumber(kind: EntryKind): number {
  return KINDS.indexOf(kind);
}

/** Null: a number that this build does not know. */
export function kindOf(number: number): EntryKind | null {
  return KINDS[number] ?? null;
}

const header = new DataView(new ArrayBuffer(17));
const headerBytes = new Uint8Array(header.buffer);

/** CRC32 over (term, index, kind, data). */
export function entryCrc(term: Term, index: LogIndex, kind: number, bytes: Uint8Array): number {
  header.setFloat64(0, term);
  header.setFloat64(8, index);
  header.setUint8(16, kind);
  return Bun.hash.crc32(bytes, Bun.hash.crc32(headerBytes));
}

export function hardStateCrc({ term, vote }: HardState): number {
  return Bun.hash.crc32(JSON.stringify([term, vote]));
}

/** Of the copy: the boot that wrote it counts too. */
export function hardStateCopyCrc({ term, vote }: HardState, boot: number): number {
  return Bun.hash.crc32(JSON.stringify([term, vote, boot]));
}

export function metaCrc(key: MetaKey, value: string): number {
  return Bun.hash.crc32(JSON.stringify([key, value]));
}

/** As text, for `meta`: a few entries of some kilobytes. */
export function encodeInstall(install: LogInstall): string {
  const { index, term, foundations, state, promised, clusterId } = install;
  return JSON.stringify({
    index,
    term,
    state,
    promised,
    clusterId,
    foundations: foundations.map(({ data, ...rest }) => ({ ...rest, data: data.toBase64() })),
  });
}

/** `text` has passed its checksum: it is what `encodeInstall` wrote. */
export function decodeInstall(text: string): LogInstall {
  const { index, term, state, promised, foundations, clusterId } = JSON.parse(text) as {
    index: number;
    term: number;
    state: string;
    promised?: { index: number; term: number };
    clusterId?: string;
    foundations: readonly { index: number; term: number; kind: EntryKind; data: string }[];
  };
  return {
    index: asIndex(index),
    term: asTerm(term),
    state,
    ...(promised === undefined
      ? {}
      : { promised: { index: asIndex(promised.index), term: asTerm(promised.term) } }),
    ...(clusterId === undefined ? {} : { clusterId }),
    foundations: foundations.map((entry) => ({
      index: asIndex(entry.index),
      term: asTerm(entry.term),
      kind: entry.kind,
      data: Uint8Array.fromBase64(entry.data),
    })),
  };
}

/**
 * The refusal of a log that is damaged. It is never read as "the log ends here": what is damaged may have
 * been acknowledged, and a member that forgets it can lose it for the whole cluster (S6).
 */
export function damaged(path: string, what: string): FatalError {
  return new FatalError(
    `${path} is damaged: ${what}. This member must not vote or acknowledge with it. Keep a copy of its data ` +
      "folder, remove the member from the cluster, and add it again with an empty folder; " +
      "a cluster of one has to go back to a backup",
  );
}
