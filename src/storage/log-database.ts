/**
 * log.db: entries, hard state and identity, each with a checksum. Synchronous; the log thread owns it.
 *
 * WAL with `synchronous=FULL`: a commit that returned is on disk. At open the WAL is checkpointed and
 * everything is verified (rule S1): what a killed process wrote but never synced is in the page cache, looks
 * durable, and is not, until then. A wrong checksum is never "the end of the log": the row may have been
 * acknowledged.
 */
import { Database, type Statement } from "bun:sqlite";
import { dirname } from "node:path";
import {
  asIndex,
  asTerm,
  type Entry,
  type EntryKind,
  type HardState,
  type LogIndex,
  type NodeId,
  type PersistOp,
  type Term,
} from "../raft/types.ts";
import { FatalError, type Identity, type RecoveredLog } from "../replica/ports.ts";
import { syncFile, syncFolder } from "./data-folder.ts";

export const LOG_FORMAT = 1;
/** Rows deleted in one transaction by a compaction: some milliseconds. */
export const COMPACT_ROWS = 5_000;
/** WAL bytes after which it is checkpointed into the database file. */
const CHECKPOINT_BYTES = 8 * 1024 * 1024;

const SCHEMA = `
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hard_state (one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL, vote TEXT, crc INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS entries (idx INTEGER PRIMARY KEY, term INTEGER NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL, crc INTEGER NOT NULL) STRICT;
`;

interface EntryRow {
  readonly idx: number;
  readonly term: number;
  readonly kind: string;
  readonly data: Uint8Array;
  readonly crc: number;
}

export class LogDatabase {
  readonly #db: Database;
  readonly #path: string;
  readonly #insert: Statement;
  readonly #truncate: Statement;
  readonly #putHardState: Statement;
  readonly #range: Statement<EntryRow, [number, number]>;
  #last = 0;
  #walBytes = 0;

  /** @throws FatalError when the file cannot be what it must be */
  constructor(path: string) {
    this.#path = path;
    this.#db = new Database(path, { create: true, strict: true });
    this.#db.run("PRAGMA busy_timeout=5000");
    this.#db.run("PRAGMA auto_vacuum=INCREMENTAL");
    this.#pragma("journal_mode", "wal");
    this.#db.run("PRAGMA synchronous=FULL");
    if (this.#read("synchronous") !== 2)
      throw new FatalError(`${path}: SQLite does not take synchronous=FULL`);
    this.#db.run("PRAGMA wal_autocheckpoint=0");
    this.#db.run(SCHEMA);
    this.#insert = this.#db.prepare(
      "INSERT INTO entries (idx, term, kind, data, crc) VALUES (?, ?, ?, ?, ?)",
    );
    this.#truncate = this.#db.prepare("DELETE FROM entries WHERE idx >= ?");
    this.#putHardState = this.#db.prepare(
      "INSERT INTO hard_state (one, term, vote, crc) VALUES (1, ?1, ?2, ?3) ON CONFLICT (one) DO UPDATE SET term = ?1, vote = ?2, crc = ?3",
    );
    this.#range = this.#db.prepare(
      "SELECT idx, term, kind, data, crc FROM entries WHERE idx BETWEEN ? AND ? ORDER BY idx",
    );
  }

  /**
   * Makes durable what is there, verifies all of it, and starts a new boot. `tailBytes`: how much of the
   * newest entries to hand over. @throws FatalError with what to do
   */
  open(id: NodeId, incarnation: string, tailBytes: number): RecoveredLog {
    this.#sync();
    const identity = this.#identity(id, incarnation);
    const hardState = this.#hardState();
    const compacted = this.#compacted();
    const recovered = { identity, hardState, compacted, ...this.#verify(compacted, tailBytes) };
    this.#last = recovered.lastIndex;
    return recovered;
  }

  /** One transaction, durable when it returns. */
  write(ops: readonly PersistOp[]): void {
    this.#db.transaction(() => {
      for (const { hardState, entries } of ops) {
        if (hardState !== null) {
          this.#putHardState.run(hardState.term, hardState.vote, hardStateCrc(hardState));
        }
        const [first] = entries;
        if (first === undefined) continue;
        if (first.index > this.#last + 1)
          throw new FatalError(`a write at ${first.index} would leave a gap after ${this.#last}`);
        if (first.index <= this.#last) this.#truncate.run(first.index);
        for (const { index, term, kind, data } of entries) {
          this.#insert.run(index, term, kind, data, entryCrc(index, term, kind, data));
          this.#walBytes += data.length + 64;
        }
        this.#last = first.index + entries.length - 1;
      }
    })();
    this.#walBytes += 4_096;
  }

  /** Folds a grown WAL into the file; after the acknowledgements have left. */
  checkpointIfGrown(): void {
    if (this.#walBytes < CHECKPOINT_BYTES) return;
    this.#db.run("PRAGMA wal_checkpoint(PASSIVE)");
    this.#walBytes = 0;
  }

  /** Entries [from, to], their data together at most `maxBytes`, but at least one. @throws FatalError on a wrong checksum */
  read(from: LogIndex, to: LogIndex, maxBytes: number): Entry[] {
    const entries: Entry[] = [];
    let bytes = 0;
    for (const row of this.#range.iterate(from, to)) {
      bytes += row.data.length;
      if (entries.length > 0 && bytes > maxBytes) break;
      entries.push(this.#checked(row));
    }
    return entries;
  }

  bindCluster(clusterId: string): void {
    const bound = this.#meta("cluster_id");
    if (bound === clusterId) return;
    if (bound !== null) {
      throw new FatalError(
        `${dirname(this.#path)} belongs to cluster ${bound}, not to ${clusterId}: give --data the right folder.`,
      );
    }
    this.#setMeta("cluster_id", clusterId);
  }

  /** Notes the new start of the log, then deletes one step of rows below it. True: more are left. */
  compactStep(index: LogIndex, term: Term): boolean {
    return this.#db.transaction(() => {
      if (this.#compacted().index < index) this.#setMeta("compacted", `${index}/${term}`);
      const { changes } = this.#db
        .query(
          "DELETE FROM entries WHERE idx IN (SELECT idx FROM entries WHERE idx <= ? ORDER BY idx LIMIT ?)",
        )
        .run(index, COMPACT_ROWS);
      return changes === COMPACT_ROWS;
    })();
  }

  /** Gives free pages back to the file system, in a step of some milliseconds. */
  vacuumStep(): void {
    this.#db.run("PRAGMA incremental_vacuum(1000)");
  }

  close(): void {
    this.#db.close(true);
  }

  // ------------------------------------------------------------------ opening

  /** Rule S1. */
  #sync(): void {
    const result = this.#db.query("PRAGMA wal_checkpoint(TRUNCATE)").get() as {
      busy: number;
    } | null;
    if (result?.busy !== 0)
      throw new FatalError(`${this.#path} cannot be checkpointed: another process reads it.`);
    syncFile(this.#path);
    syncFolder(dirname(this.#path));
  }

  #identity(id: NodeId, incarnation: string): Identity {
    const folder = dirname(this.#path);
    const format = this.#meta("format");
    if (format === null) {
      this.#db.transaction(() => {
        this.#setMeta("format", String(LOG_FORMAT));
        this.#setMeta("id", id);
        this.#setMeta("incarnation", incarnation);
      })();
    } else if (format !== String(LOG_FORMAT)) {
      throw new FatalError(
        `${folder} has log format ${format}, this build reads ${LOG_FORMAT}: start the build that wrote it.`,
      );
    }
    const owner = this.#meta("id");
    if (owner !== id) {
      throw new FatalError(
        `the data folder ${folder} belongs to ${owner}, not to ${id}: give --id ${owner}, or --data another folder.`,
      );
    }
    const boot = Number(this.#meta("boot") ?? "0") + 1;
    this.#setMeta("boot", String(boot));
    return {
      id,
      incarnation: this.#meta("incarnation") ?? incarnation,
      clusterId: this.#meta("cluster_id"),
      boot,
    };
  }

  #hardState(): HardState {
    const row = this.#db.query("SELECT term, vote, crc FROM hard_state").get() as {
      term: number;
      vote: string | null;
      crc: number;
    } | null;
    if (row === null) {
      const { n } = this.#db.query("SELECT count(*) AS n FROM entries").get() as { n: number };
      if (n > 0 || this.#meta("compacted") !== null)
        throw this.#corrupt("the term and vote are missing");
      return { term: asTerm(0), vote: null };
    }
    const hardState = { term: asTerm(row.term), vote: row.vote as NodeId | null };
    if (hardStateCrc(hardState) !== row.crc)
      throw this.#corrupt("the term and vote have a wrong checksum");
    return hardState;
  }

  #compacted(): { index: LogIndex; term: Term } {
    const [index, term] = (this.#meta("compacted") ?? "0/0").split("/").map(Number);
    return { index: asIndex(index ?? 0), term: asTerm(term ?? 0) };
  }

  /** Every row: checksum, no gap, no term that goes back. */
  #verify(
    compacted: { index: LogIndex; term: Term },
    tailBytes: number,
  ): Pick<RecoveredLog, "lastIndex" | "terms" | "configurations" | "tail"> {
    const terms: { index: LogIndex; term: Term }[] = [];
    const configurations: Entry[] = [];
    let tail: Entry[] = [];
    let bytes = 0;
    let last: number = compacted.index;
    let term: number = compacted.term;
    for (const row of this.#range.iterate(compacted.index + 1, Number.MAX_SAFE_INTEGER)) {
      const entry = this.#checked(row);
      if (entry.index !== last + 1) throw this.#corrupt(`entry ${last + 1} is missing`);
      if (entry.term < term)
        throw this.#corrupt(
          `entry ${entry.index} has term ${entry.term}, the one before it ${term}`,
        );
      if (entry.term !== term || terms.length === 0)
        terms.push({ index: entry.index, term: entry.term });
      if (entry.kind === "config" || entry.kind === "bootstrap") configurations.push(entry);
      tail.push(entry);
      bytes += entry.data.length;
      // Trimmed by halves: memory stays within twice the budget, and no entry is copied often.
      if (bytes > 2 * tailBytes) {
        tail = newest(tail, tailBytes);
        bytes = tail.reduce((sum, { data }) => sum + data.length, 0);
      }
      last = entry.index;
      term = entry.term;
    }
    return { lastIndex: asIndex(last), terms, configurations, tail: newest(tail, tailBytes) };
  }

  #checked({ idx, term, kind, data, crc }: EntryRow): Entry {
    if (entryCrc(idx, term, kind, data) !== crc)
      throw this.#corrupt(`entry ${idx} has a wrong checksum`);
    return { index: asIndex(idx), term: asTerm(term), kind: kind as EntryKind, data };
  }

  #corrupt(what: string): FatalError {
    return new FatalError(
      `${this.#path} is damaged: ${what}. It may have been acknowledged, so this member must not go on with it: remove the member from its cluster and add it again with an empty folder (a cluster of one: restore a backup).`,
    );
  }

  #meta(key: string): string | null {
    const row = this.#db.query("SELECT value FROM meta WHERE key = ?").get(key) as {
      value: string;
    } | null;
    return row?.value ?? null;
  }

  #setMeta(key: string, value: string): void {
    this.#db
      .query(
        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
      )
      .run(key, value);
  }

  #pragma(name: string, value: string): void {
    this.#db.run(`PRAGMA ${name}=${value}`);
    if (String(this.#read(name)) !== value)
      throw new FatalError(`${this.#path}: SQLite does not take ${name}=${value}`);
  }

  #read(name: string): unknown {
    return Object.values(this.#db.query(`PRAGMA ${name}`).get() ?? {})[0];
  }
}

/** The newest entries whose data fit into `maxBytes`; at least one, where there is one. */
function newest(entries: readonly Entry[], maxBytes: number): Entry[] {
  let bytes = 0;
  const at = entries.findLastIndex((entry, i) => {
    bytes += entry.data.length;
    return bytes > maxBytes && i < entries.length - 1;
  });
  return entries.slice(at + 1);
}

function entryCrc(index: number, term: number, kind: string, data: Uint8Array): number {
  return Bun.hash.crc32(data, Bun.hash.crc32(`${index}/${term}/${kind}`));
}

function hardStateCrc({ term, vote }: HardState): number {
  return Bun.hash.crc32(`${term}/${vote === null ? "" : `=${vote}`}`);
}
