/**
 * `log.db`, synchronously: open and verify, commit, read, compact. Runs on the log thread; knows nothing of
 * messages or of who waits.
 *
 * The connection holds the file exclusively. Its WAL is checkpointed here, in steps, and never by SQLite
 * inside a commit, where it would stretch the acknowledgement of whoever happened to write the 1,000th page.
 */
import { Database, type Statement } from "bun:sqlite";
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import {
  asIndex,
  asNodeId,
  asTerm,
  type Entry,
  type HardState,
  INDEX_0,
  type LogIndex,
  type NodeId,
  type PersistOp,
  type Term,
  TERM_0,
} from "../raft/types.ts";
import {
  FatalError,
  type Identity,
  type LogDamage,
  type LogInstall,
  type LogPromise,
  type RecoveredLog,
} from "../replica/ports.ts";
import { readCurrent } from "./current-file.ts";
import { growFile, syncPath } from "./durable-files.ts";
import { noRoomAtStart } from "./no-room.ts";
import {
  damaged,
  decodeInstall,
  encodeInstall,
  entryCrc,
  hardStateCopyCrc,
  hardStateCrc,
  kindNumber,
  kindOf,
  LOG_FILE,
  LOG_FORMAT,
  LOG_TABLES,
  MEMBERSHIP_KINDS,
  metaCrc,
  type MetaKey,
} from "./log-format.ts";

/** The WAL is folded back when about this much was written: some milliseconds of copying and one sync. */
const WAL_BYTES = 4 * 1024 * 1024;
/** The last transaction before a checkpoint, and frame headers: what a WAL holds beyond `WAL_BYTES`. */
const WAL_SLACK_BYTES = 2 * 1024 * 1024;
/** What a transaction writes beside its entries' own bytes: a few pages of 4 KiB, for the estimate above. */
const TRANSACTION_OVERHEAD_BYTES = 12 * 1024;
/** One step of compaction forgets at most this many rows, and about this many bytes. */
const COMPACT_STEP_ROWS = 5_000;
const COMPACT_STEP_BYTES = 8 * 1024 * 1024;
/** One step of giving pages back to the file system. */
const VACUUM_STEP_PAGES = 1_000;
/** A step that took longer is followed by smaller ones: an acknowledgement may wait for all of it. */
const STEP_MS = 25;
const STEP_SHARE_MIN = 1 / 64;
/** Free pages that stay in the file (1 MiB), so that a log in balance does not shrink and grow all the time. */
const FREE_PAGES_KEPT = 256;
/** A read answers at most so many entries, however small they are. */
const READ_ENTRIES_MAX = 10_000;
/** A killed predecessor's locks may need a moment to go. */
const BUSY_TIMEOUT_MS = 2_000;

interface EntryRow {
  readonly idx: number;
  readonly term: number;
  readonly kind: number;
  readonly crc: number;
  readonly data: Uint8Array;
}

type Position = RecoveredLog["compacted"];

export class LogFile {
  readonly path: string;
  readonly #db: Database;
  readonly #insert: Statement<unknown, [number, number, number, number, Uint8Array]>;
  readonly #truncate: Statement<unknown, [number]>;
  readonly #insertHardState: Statement<unknown, [number, string | null, number]>;
  readonly #insertHardStateCopy: Statement<unknown, [number, string | null, number, number]>;
  readonly #writeMeta: Statement<unknown, [string, string, number]>;
  readonly #range: Statement<EntryRow, [number, number]>;
  readonly #sizes: Statement<{ idx: number; term: number; size: number }, [number, number]>;
  #compacted: Position = { index: INDEX_0, term: TERM_0 };
  #last: LogIndex = INDEX_0;
  #walBytes = 0;
  /** Of the greatest step, by what the newest ones took on this disk. */
  #stepShare = 1;
  #boot = 0;
  /** Found when it was opened, and not cut yet. */
  #damage: LogDamage | null = null;

  private constructor(path: string, db: Database) {
    this.path = path;
    this.#db = db;
    this.#insert = db.prepare(
      "INSERT INTO entries (idx, term, kind, crc, data) VALUES (?, ?, ?, ?, ?)",
    );
    this.#truncate = db.prepare("DELETE FROM entries WHERE idx >= ?");
    this.#insertHardState = db.prepare(
      "INSERT OR REPLACE INTO hard_state (one, term, vote, crc) VALUES (1, ?, ?, ?)",
    );
    this.#insertHardStateCopy = db.prepare(
      "INSERT OR REPLACE INTO hard_state_copy (one, term, vote, boot, crc) VALUES (1, ?, ?, ?, ?)",
    );
    this.#writeMeta = db.prepare("INSERT OR REPLACE INTO meta (key, value, crc) VALUES (?, ?, ?)");
    this.#range = db.prepare(
      "SELECT idx, term, kind, crc, data FROM entries WHERE idx BETWEEN ? AND ? ORDER BY idx",
    );
    this.#sizes = db.prepare(
      "SELECT idx, term, length(data) AS size FROM entries WHERE idx BETWEEN ? AND ? ORDER BY idx",
    );
  }

  /**
   * Opens the log of member `id` in `folder`, creating it when there is none; syncs what a killed process
   * left in the page cache (S1), verifies all of it, and counts one more boot. An entry that is damaged is told in
   * what was recovered; the log takes no write until it was cut there or replaced.
   * @throws FatalError in use, another member's, another format, damaged otherwise, unwritable
   */
  static open(
    folder: string,
    id: NodeId,
    tailBytes: number,
  ): { readonly file: LogFile; readonly recovered: RecoveredLog } {
    const path = join(folder, LOG_FILE);
    let db: Database | null = null;
    try {
      settle(path, id);
      // Synced while no connection is open: closing any descriptor of a file drops the process's POSIX locks on it.
      syncPath(path);
      syncPath(folder);
      db = connect(path);
      const file = new LogFile(path, db);
      file.#boot = Number(file.#meta("boot"));
      file.#settleInstall(readCurrent(folder));
      const recovered = file.#recover(id, tailBytes);
      growWal(path);
      return { file, recovered };
    } catch (error) {
      db?.close(true);
      throw openFailure(path, error);
    }
  }

  get lastIndex(): LogIndex {
    return this.#last;
  }

  get entryCount(): number {
    return this.#last - this.#compacted.index;
  }

  /** Of the database and its WAL together. */
  bytes(): number {
    const wal = `${this.path}-wal`;
    return statSync(this.path).size + (existsSync(wal) ? statSync(wal).size : 0);
  }

  /**
   * Writes all of `ops`, in order, in one transaction; durable when it returns.
   * @throws when SQLite or the disk refuses, or an op would leave a gap or reach below the compaction; the
   * caller must stop: a sync that failed once is not to be trusted the second time
   */
  commit(ops: readonly PersistOp[]): void {
    this.#refuseDamaged();
    let bytes = TRANSACTION_OVERHEAD_BYTES;
    let last = this.#last;
    const write = (): void => {
      for (const { hardState, entries } of ops) {
        const first = entries[0];
        if (first !== undefined) {
          if (first.index <= this.#compacted.index || first.index > last + 1) {
            throw new Error(
              `entry ${first.index} does not fit a log that holds ${this.#compacted.index + 1} to ${last}`,
            );
          }
          if (first.index <= last) this.#truncate.run(first.index);
          last = asIndex(first.index - 1);
        }
        for (const entry of entries) {
          if (entry.index !== last + 1) {
            throw new Error(`entry ${entry.index} follows entry ${last} in one write`);
          }
          const kind = kindNumber(entry.kind);
          const crc = entryCrc(entry.term, entry.index, kind, entry.data);
          this.#insert.run(entry.index, entry.term, kind, crc, entry.data);
          bytes += entry.data.length;
          last = entry.index;
        }
        if (hardState !== null) {
          this.#writeHardState(hardState);
        }
      }
    };
    if (isOneEntry(ops, last)) write();
    else this.#transact(write);
    this.#last = last;
    this.#walBytes += bytes;
  }

  /** Folds the WAL back when it has grown enough; else does nothing. Call it after acknowledging. */
  checkpointIfDue(): boolean {
    return this.#walBytes >= WAL_BYTES && this.checkpoint();
  }

  /** Folds the WAL back: what a vacuum freed leaves the file by this. */
  checkpoint(): true {
    checkpoint(this.#db, "PASSIVE");
    this.#walBytes = 0;
    return true;
  }

  /**
   * Entries [from, to] as far as they are held, cut before `maxBytes` of data but at least one; none when
   * `from` itself is compacted or beyond the end. @throws FatalError when one of them is damaged
   */
  read(from: LogIndex, to: LogIndex, maxBytes: number): readonly Entry[] {
    if (from <= this.#compacted.index) return [];
    const taken: Entry[] = [];
    let bytes = 0;
    const until = Math.min(to, from + READ_ENTRIES_MAX - 1);
    for (const row of this.#range.iterate(from, until)) {
      bytes += row.data.length;
      if (taken.length > 0 && bytes > maxBytes) break;
      taken.push(this.#verified(row, asIndex(from + taken.length)));
    }
    return taken;
  }

  /**
   * One step towards forgetting everything up to `index`. Rows and the recorded `compacted` change in one
   * transaction, so a crash between two steps leaves a shorter log and no gap. True: call again.
   * @throws when `index` is beyond the log, or its entry is of another term
   */
  compactStep(index: LogIndex, term: Term): boolean {
    const startedAt = performance.now();
    const more = this.#compactStep(index, term);
    const ms = performance.now() - startedAt;
    if (ms > STEP_MS) this.#stepShare = Math.max(STEP_SHARE_MIN, this.#stepShare / 2);
    else if (ms < STEP_MS / 4) this.#stepShare = Math.min(1, this.#stepShare * 2);
    return more;
  }

  #compactStep(index: LogIndex, term: Term): boolean {
    if (index <= this.#compacted.index) return this.#vacuumStep();
    if (index > this.#last) {
      throw new Error(`cannot compact up to ${index}: the log ends at ${this.#last}`);
    }
    const held = this.#sizes.get(index, index)?.term;
    if (held !== term) {
      throw new Error(`cannot compact up to ${index} of term ${term}: its term here is ${held}`);
    }
    const from = this.#compacted.index + 1;
    const until = Math.min(index, from + Math.ceil(COMPACT_STEP_ROWS * this.#stepShare) - 1);
    let reached: Position = this.#compacted;
    let bytes = 0;
    for (const row of this.#sizes.iterate(from, until)) {
      bytes += row.size;
      if (reached.index >= from && bytes > COMPACT_STEP_BYTES * this.#stepShare) break;
      reached = { index: asIndex(row.idx), term: asTerm(row.term) };
    }
    this.#transact(() => {
      this.#db.run(
        `INSERT OR REPLACE INTO foundations (kind, idx, term, crc, data)
         SELECT kind, idx, term, crc, data FROM entries
         WHERE idx <= ? AND kind IN (${MEMBERSHIP_KINDS}) ORDER BY idx`,
        [reached.index],
      );
      this.#db.run("DELETE FROM entries WHERE idx <= ?", [reached.index]);
      this.#setMeta("compacted", `${reached.index}:${reached.term}`);
    });
    this.#compacted = reached;
    this.#walBytes += bytes / 4 + TRANSACTION_OVERHEAD_BYTES;
    return true;
  }

  /**
   * Notes durably what shall take the place of this log; see {@link LogStore.markInstall}.
   * @throws Error when the log holds the entry (index, term), or has forgotten it already
   */
  markInstall(install: LogInstall): void {
    const { index, term } = install;
    if (install.promised !== undefined) {
      this.#transact(() => this.#setMeta("installing", encodeInstall(install)));
      return;
    }
    this.#refuseDamaged();
    const held =
      index <= this.#compacted.index ? null : (this.#sizes.get(index, index)?.term ?? undefined);
    if (held === null || held === term) {
      throw new Error(
        `a snapshot of index ${index} would put back a log that holds ${this.#compacted.index + 1} to ${this.#last}`,
      );
    }
    this.#transact(() => this.#setMeta("installing", encodeInstall(install)));
  }

  /**
   * Puts the marked foundations in place of everything held; see {@link LogStore.finishInstall}.
   * @throws Error when nothing is marked
   */
  finishInstall(): void {
    const text = this.#meta("installing");
    if (text === null) throw new Error("no install is marked");
    const { index, term, foundations, promised, clusterId } = decodeInstall(text);
    const { term: known } = this.#recoverHardState();
    this.#transact(() => {
      // No WHERE: SQLite gives whole pages back without looking at the rows.
      this.#db.run("DELETE FROM entries");
      this.#db.run("DELETE FROM foundations");
      for (const entry of foundations) {
        const kind = kindNumber(entry.kind);
        const crc = entryCrc(entry.term, entry.index, kind, entry.data);
        this.#db.run(
          "INSERT INTO foundations (kind, idx, term, crc, data) VALUES (?, ?, ?, ?, ?)",
          [kind, entry.index, entry.term, crc, entry.data],
        );
      }
      this.#setMeta("compacted", `${index}:${term}`);
      if (clusterId !== undefined) this.#setMeta("cluster_id", clusterId);
      // The log is never of a later term than the member; the vote of an earlier term binds nobody.
      if (known < term) this.#writeHardState({ term, vote: null });
      if (promised !== undefined) this.#setMeta("promised", `${promised.index}:${promised.term}`);
      this.#db.run("DELETE FROM meta WHERE key = 'installing'");
    });
    this.#compacted = { index, term };
    this.#last = index;
    this.#damage = null;
    this.#walBytes += TRANSACTION_OVERHEAD_BYTES;
  }

  /** Forgets what is damaged and all behind it, but not that it was promised. @throws Error when nothing is damaged */
  cut(): void {
    const damage = this.#damage;
    if (damage === null) throw new Error("nothing of the log is damaged");
    const { index, term } = damage.promised;
    this.#transact(() => {
      this.#truncate.run(damage.index);
      this.#setMeta("promised", `${index}:${term}`);
    });
    this.#damage = null;
  }

  #refuseDamaged(): void {
    if (this.#damage !== null) throw damaged(this.path, this.#damage.what);
  }

  #writeHardState(hardState: HardState): void {
    const { term, vote } = hardState;
    this.#insertHardState.run(term, vote, hardStateCrc(hardState));
    const crc = hardStateCopyCrc(hardState, this.#boot);
    this.#insertHardStateCopy.run(term, vote, this.#boot, crc);
  }

  /** The state that is current decides which half of a crash this is: before the switch, or after it (S2). */
  #settleInstall(current: string | null): void {
    const text = this.#meta("installing");
    if (text === null) return;
    if (decodeInstall(text).state === current) this.finishInstall();
    else this.#transact(() => this.#db.run("DELETE FROM meta WHERE key = 'installing'"));
  }

  /** @throws Error when the folder belongs to another cluster */
  bindCluster(clusterId: string): void {
    const bound = this.#meta("cluster_id");
    if (bound === clusterId) return;
    if (bound !== null) {
      throw new FatalError(
        `${this.path} belongs to cluster ${bound}, not to ${clusterId}: give this member an empty --data, or the peers of its own cluster`,
      );
    }
    this.#transact(() => this.#setMeta("cluster_id", clusterId));
  }

  close(): void {
    this.#db.close(true);
  }

  /** Gives free pages back to the file system, some at a time. True: there are more. */
  #vacuumStep(): boolean {
    const free = pragma(this.#db, "freelist_count");
    if (free <= FREE_PAGES_KEPT) return false;
    const pages = Math.min(Math.ceil(VACUUM_STEP_PAGES * this.#stepShare), free - FREE_PAGES_KEPT);
    this.#db.run(`PRAGMA incremental_vacuum(${pages})`);
    this.#walBytes += pages * 4_096 + TRANSACTION_OVERHEAD_BYTES;
    // Did it move at all? A vacuum that frees nothing must not be asked for ever.
    return pragma(this.#db, "freelist_count") < free;
  }

  #recover(id: NodeId, tailBytes: number): RecoveredLog {
    const identity = this.#recoverIdentity(id);
    this.#boot = identity.boot;
    const hardState = this.#recoverHardState();
    this.#compacted = this.#recoverCompacted();
    let what: string | null = null;
    const terms: { index: LogIndex; term: Term }[] = [];
    const configurations: Entry[] = [];
    let tail: Entry[] = [];
    let tailSize = 0;
    let kept = 0;
    let expected = asIndex(this.#compacted.index + 1);
    let newest = this.#compacted.term;
    const all = this.#db.prepare<EntryRow, []>(
      "SELECT idx, term, kind, crc, data FROM entries ORDER BY idx",
    );
    try {
      for (const row of all.iterate()) {
        what = this.#whatIsWrong(row, expected);
        if (what === null && row.term < newest)
          what = `entry ${expected} has a lower term than the one before it`;
        if (what !== null) break;
        const entry = this.#verified(row, expected);
        if (terms.at(-1)?.term !== entry.term) {
          terms.push({ index: entry.index, term: entry.term });
        }
        if (entry.kind === "config" || entry.kind === "bootstrap") configurations.push(entry);
        tail.push(entry);
        tailSize += entry.data.length;
        while (tailSize > tailBytes && kept < tail.length) {
          tailSize -= tail[kept]?.data.length ?? 0;
          kept += 1;
        }
        // Dropped in bulk: shifting one by one would move the whole array every time.
        if (kept > 1_024) {
          tail = tail.slice(kept);
          kept = 0;
        }
        newest = entry.term;
        expected = asIndex(expected + 1);
      }
    } catch (error) {
      what = `entry ${expected} cannot be read (${reasonOf(error)})`;
    }
    this.#last = asIndex(expected - 1);
    if (what !== null) this.#damage = this.#damageAt(expected, what, hardState.term);
    if (hardState.term < newest) {
      throw damaged(this.path, `entry ${this.#last} has term ${newest}, above the member's own`);
    }
    const boot = identity.boot + 1;
    this.#boot = boot;
    this.#transact(() => {
      this.#setMeta("boot", String(boot));
      this.#writeHardState(hardState);
    });
    return {
      identity: { ...identity, boot },
      hardState,
      compacted: this.#compacted,
      foundations: this.#recoverFoundations(),
      lastIndex: this.#last,
      terms,
      configurations,
      tail: tail.slice(kept),
      damage: this.#damage,
      promised: this.#recoverPromised(),
    };
  }

  /** @throws FatalError when not even the end of the log can be told: what was promised is not known then */
  #damageAt(index: LogIndex, what: string, term: Term): LogDamage {
    try {
      const last = this.#db
        .prepare<{ last: number | null }, []>("SELECT max(idx) AS last FROM entries")
        .get()?.last;
      const earlier = this.#recoverPromised();
      const promised = Math.max(last ?? 0, index, earlier?.index ?? 0);
      return { index, what: `${this.path}: ${what}`, promised: { index: asIndex(promised), term } };
    } catch (error) {
      throw damaged(this.path, `${what}, and nothing behind it (${reasonOf(error)})`);
    }
  }

  /** Null once the log reaches as far again. */
  #recoverPromised(): LogPromise | null {
    const [index, term] = (this.#meta("promised") ?? "0:0").split(":").map(Number);
    if (index === undefined || term === undefined || index <= this.#last) return null;
    return { index: asIndex(index), term: asTerm(term) };
  }

  #recoverFoundations(): readonly Entry[] {
    return this.#db
      .prepare<EntryRow, []>("SELECT idx, term, kind, crc, data FROM foundations ORDER BY idx")
      .all()
      .map((row) => this.#verified(row, asIndex(row.idx)));
  }

  #recoverIdentity(id: NodeId): Identity {
    const owner = this.#meta("id");
    const incarnation = this.#meta("incarnation");
    const boot = Number(this.#meta("boot"));
    if (owner === null || incarnation === null || !Number.isSafeInteger(boot)) {
      throw damaged(this.path, "it does not say whose it is");
    }
    if (owner !== id) {
      throw new FatalError(
        `${this.path} belongs to member ${owner}, not to ${id}: start it with --id ${owner}, or give ${id} a --data of its own`,
      );
    }
    return { id: asNodeId(owner), incarnation, clusterId: this.#meta("cluster_id"), boot };
  }

  /** The row or, where that is damaged, its copy, if the last process that opened this log wrote both. */
  #recoverHardState(): HardState {
    const row = this.#hardStateRow("SELECT term, vote, 0 AS boot, crc FROM hard_state");
    if (row !== null && hardStateCrc(row.hardState) === row.crc) return row.hardState;
    const copy = this.#hardStateRow("SELECT term, vote, boot, crc FROM hard_state_copy");
    if (
      copy !== null &&
      copy.boot === this.#boot &&
      hardStateCopyCrc(copy.hardState, copy.boot) === copy.crc
    )
      return copy.hardState;
    const what = row === null ? "are missing" : "have a wrong checksum";
    throw damaged(this.path, `the member's term and vote ${what}, and so does their copy`);
  }

  #hardStateRow(query: string): { hardState: HardState; boot: number; crc: number } | null {
    try {
      const row = this.#db
        .prepare<{ term: number; vote: string | null; boot: number; crc: number }, []>(query)
        .get();
      if (row === null) return null;
      const vote = row.vote === null ? null : asNodeId(row.vote);
      return { hardState: { term: asTerm(row.term), vote }, boot: row.boot, crc: row.crc };
    } catch {
      return null; // its page cannot be read: as good as missing
    }
  }

  #recoverCompacted(): Position {
    const [index, term] = (this.#meta("compacted") ?? "").split(":").map(Number);
    if (index === undefined || term === undefined || !Number.isSafeInteger(index + term)) {
      throw damaged(this.path, "it does not say where it begins");
    }
    return { index: asIndex(index), term: asTerm(term) };
  }

  /** @throws FatalError naming `expected` when the row is another one, or its checksum is wrong */
  #verified(row: EntryRow, expected: LogIndex): Entry {
    const what = this.#whatIsWrong(row, expected);
    const kind = kindOf(row.kind);
    if (what !== null || kind === null) throw damaged(this.path, what ?? "");
    return { term: asTerm(row.term), index: expected, kind, data: row.data };
  }

  #whatIsWrong({ idx, term, kind, crc, data }: EntryRow, expected: LogIndex): string | null {
    if (idx !== expected) return `entry ${expected} is missing, the next one is ${idx}`;
    const right = kindOf(kind) !== null && entryCrc(asTerm(term), expected, kind, data) === crc;
    return right ? null : `entry ${expected} has a wrong checksum`;
  }

  #meta(key: MetaKey): string | null {
    return readMeta(this.path, this.#db, key);
  }

  #setMeta(key: MetaKey, value: string): void {
    this.#writeMeta.run(key, value, metaCrc(key, value));
  }

  #transact(write: () => void): void {
    this.#db.transaction(write).immediate();
  }
}

/** One statement, which is a transaction by itself: most commits are such while there is little to do. */
function isOneEntry(ops: readonly PersistOp[], last: LogIndex): boolean {
  const [op] = ops;
  if (op === undefined || ops.length > 1 || op.hardState !== null) return false;
  return op.entries.length === 1 && op.entries[0]?.index === last + 1;
}

/** Opens, checks the settings by reading them back, and checkpoints. @throws Error with the reason */
function connect(path: string): Database {
  const db = new Database(path, { create: true, strict: true });
  try {
    db.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
    db.run("PRAGMA locking_mode = EXCLUSIVE");
    db.run("PRAGMA auto_vacuum = INCREMENTAL");
    db.run("PRAGMA journal_mode = WAL");
    db.run("PRAGMA synchronous = FULL");
    // macOS only: there a plain fsync stops at the drive's cache.
    db.run("PRAGMA fullfsync = ON");
    db.run("PRAGMA wal_autocheckpoint = 0");
    requirePragma(db, "journal_mode", "wal");
    requirePragma(db, "synchronous", 2);
    requirePragma(db, "wal_autocheckpoint", 0);
    checkpoint(db, "TRUNCATE");
    return db;
  } catch (error) {
    db.close(true);
    throw error;
  }
}

/**
 * Gives the WAL its working size at once. SQLite reads it up to the first frame that is none, so zeros behind
 * the last one mean nothing to it. It is for speed alone: a disk without room for it may still take the log.
 */
function growWal(path: string): void {
  try {
    growFile(`${path}-wal`, WAL_BYTES + WAL_SLACK_BYTES);
  } catch {
    // What is too full for this says so when it is written to.
  }
}

/** Creates the log where there is none, and moves what a killed process left in the WAL into the file. */
function settle(path: string, id: NodeId): void {
  const db = connect(path);
  try {
    const tables = db
      .prepare<{ n: number }, []>("SELECT count(*) AS n FROM sqlite_schema WHERE type = 'table'")
      .get();
    if (tables?.n === 0) create(db, id);
    // Before anything else is believed: another format may mean something else by all the rest.
    const format = readMeta(path, db, "format");
    if (format !== LOG_FORMAT) {
      throw new FatalError(
        `${path} has format ${format}, this build reads ${LOG_FORMAT}: start it with the build that wrote it`,
      );
    }
    requirePragma(db, "auto_vacuum", 2);
    addCopy(db);
    checkpoint(db, "TRUNCATE");
  } finally {
    db.close(true);
  }
}

/** All in one transaction: after a crash the log is complete or was never there. */
function create(db: Database, id: NodeId): void {
  const hardState: HardState = { term: TERM_0, vote: null };
  const meta: readonly (readonly [MetaKey, string])[] = [
    ["format", LOG_FORMAT],
    ["id", id],
    ["incarnation", crypto.getRandomValues(new Uint8Array(12)).toHex()],
    ["boot", "0"],
    ["compacted", "0:0"],
  ];
  db.transaction(() => {
    for (const table of LOG_TABLES) db.run(table);
    db.run("INSERT INTO hard_state (one, term, vote, crc) VALUES (1, ?, NULL, ?)", [
      hardState.term,
      hardStateCrc(hardState),
    ]);
    for (const [key, value] of meta) {
      db.run("INSERT INTO meta (key, value, crc) VALUES (?, ?, ?)", [
        key,
        value,
        metaCrc(key, value),
      ]);
    }
  }).immediate();
}

/** A log of an older build has no copy of the vote yet; whoever opens it writes one. */
function addCopy(db: Database): void {
  const table = LOG_TABLES.find((sql) => sql.includes("hard_state_copy"));
  if (table !== undefined) db.run(table.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"));
}

function readMeta(path: string, db: Database, key: MetaKey): string | null {
  const row = db
    .prepare<{ value: string; crc: number }, [string]>("SELECT value, crc FROM meta WHERE key = ?")
    .get(key);
  if (row === null) return null;
  if (metaCrc(key, row.value) !== row.crc) {
    throw damaged(path, `what it says of its ${key} has a wrong checksum`);
  }
  return row.value;
}

/** @throws when somebody else holds the file: then the WAL was not synced into it (S1) */
function checkpoint(db: Database, mode: "PASSIVE" | "TRUNCATE"): void {
  const row = db.prepare<{ busy: number }, []>(`PRAGMA wal_checkpoint(${mode})`).get();
  if (row?.busy !== 0) throw new Error("its WAL cannot be checkpointed: something else reads it");
}

function pragma(db: Database, name: string): number {
  const row = db.prepare<Record<string, unknown>, []>(`PRAGMA ${name}`).get();
  return Number(Object.values(row ?? {})[0]);
}

function requirePragma(db: Database, name: string, wanted: string | number): void {
  const row = db.prepare<Record<string, unknown>, []>(`PRAGMA ${name}`).get();
  const held = Object.values(row ?? {})[0];
  if (held !== wanted) throw new Error(`${name} stays ${String(held)}, and must be ${wanted}`);
}

function openFailure(path: string, error: unknown): FatalError {
  if (error instanceof FatalError) return error;
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (code.startsWith("SQLITE_BUSY")) {
    return new FatalError(
      `${path} is in use by another process: end that one, or give this member a --data of its own`,
    );
  }
  if (code.startsWith("SQLITE_CORRUPT") || code.startsWith("SQLITE_NOTADB")) {
    return damaged(path, reasonOf(error));
  }
  return noRoomAtStart(path, error) ?? new FatalError(`cannot open ${path}: ${reasonOf(error)}`);
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
