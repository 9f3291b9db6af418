/**
 * The tables of the state database. All of it is replicated state: nothing here may differ between
 * members at an equal applied index, except where rows lie on the pages.
 *
 * `tasks.retry` is NULL for the default policy: most tasks have it. `tasks` has no index for lists: blocks.ts
 * says where to look.
 *
 * `tasks.changed` counts commands, not entries: a clear and a submit of one entry share the log index
 * (`version`), and only `changed` tells which came first.
 */
import type { Database } from "bun:sqlite";
import { FatalError } from "../replica/ports.ts";
import type { MachineVersions } from "../replica/versions.ts";
import { CHAIN_START } from "./chain.ts";

/**
 * Grows with every change of the tables. Once a build is released that happens in the entry that raises the
 * machine version, so that at an equal applied index the tables of all members are alike, and snapshots fit.
 */
const SCHEMA_VERSION = 5;

/**
 * Payloads up to this many characters lie in the task's row; longer ones in a table of their own, because
 * every transition rewrites the row and a payload never changes.
 */
export const INLINE_PAYLOAD_MAX = 2_048;

/**
 * Parameters of hot queries. A bare `?` in a LIMIT, or beside a partial index, makes SQLite prepare the
 * statement anew at every binding, since its value might choose another plan: measured at 20–50 µs each.
 */
export const TEXT = "CAST(? AS TEXT)";
export const INTEGER = "CAST(? AS INTEGER)";

const TABLES = `
CREATE TABLE state (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  schema_version INTEGER NOT NULL,
  machine_version INTEGER NOT NULL,
  cluster_id TEXT,
  settings TEXT NOT NULL,
  applied_index INTEGER NOT NULL,
  applied_term INTEGER NOT NULL,
  log_time INTEGER NOT NULL,
  changed INTEGER NOT NULL,
  fence INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  ready_seq INTEGER NOT NULL,
  leadership INTEGER NOT NULL,
  takeovers TEXT NOT NULL,
  pending INTEGER NOT NULL,
  running INTEGER NOT NULL,
  completed INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  cancelled INTEGER NOT NULL,
  idempotency_keys INTEGER NOT NULL,
  idempotency_bytes INTEGER NOT NULL,
  chain TEXT NOT NULL
) STRICT;

CREATE TABLE tasks (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  queue TEXT NOT NULL,
  status INTEGER NOT NULL,
  detail INTEGER,
  priority INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  run_at INTEGER NOT NULL,
  due_at INTEGER,
  ready_seq INTEGER,
  started_at INTEGER,
  completed_at INTEGER,
  retries INTEGER NOT NULL,
  max_retries INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  crashes INTEGER NOT NULL,
  releases INTEGER NOT NULL,
  timeout_ms INTEGER,
  retry TEXT,
  body_hash TEXT,
  version INTEGER NOT NULL,
  changed INTEGER NOT NULL,
  fence INTEGER,
  worker TEXT,
  principal TEXT,
  member TEXT,
  boot INTEGER,
  confirmed INTEGER NOT NULL DEFAULT 0,
  seen INTEGER NOT NULL DEFAULT 0,
  log_rows INTEGER NOT NULL DEFAULT 0,
  log_bytes INTEGER NOT NULL DEFAULT 0,
  progress TEXT,
  last_error TEXT,
  large INTEGER NOT NULL,
  payload TEXT,
  result TEXT
) STRICT;
CREATE INDEX tasks_running ON tasks (seq) WHERE status = 1;
CREATE INDEX tasks_ready ON tasks (queue, name, priority DESC, ready_seq) WHERE ready_seq IS NOT NULL;
CREATE INDEX tasks_due ON tasks (due_at, seq) WHERE due_at IS NOT NULL;
CREATE INDEX tasks_final ON tasks (status, completed_at) WHERE completed_at IS NOT NULL;

CREATE TABLE blocks (
  block INTEGER PRIMARY KEY,
  pending INTEGER NOT NULL,
  running INTEGER NOT NULL,
  completed INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  cancelled INTEGER NOT NULL
) STRICT;
CREATE TABLE places (
  kind INTEGER NOT NULL,
  value TEXT NOT NULL,
  block INTEGER NOT NULL,
  PRIMARY KEY (kind, value, block)
) STRICT, WITHOUT ROWID;
CREATE INDEX places_block ON places (block);

CREATE TABLE payloads (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL) STRICT;

CREATE TABLE attempts (
  seq INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  fence INTEGER NOT NULL,
  worker TEXT NOT NULL,
  principal TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  by_worker INTEGER NOT NULL,
  error TEXT,
  PRIMARY KEY (seq, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE logs (
  seq INTEGER NOT NULL,
  n INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  at INTEGER NOT NULL,
  lines TEXT NOT NULL,
  PRIMARY KEY (seq, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE clears (
  status INTEGER PRIMARY KEY,
  watermark INTEGER NOT NULL,
  ready_watermark INTEGER NOT NULL,
  cursor INTEGER NOT NULL,
  until INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
  member TEXT PRIMARY KEY,
  boot INTEGER NOT NULL,
  below INTEGER NOT NULL,
  closed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE answers (
  member TEXT NOT NULL,
  entry INTEGER NOT NULL,
  last INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (member, entry)
) STRICT, WITHOUT ROWID;

CREATE TABLE claims (
  fence INTEGER PRIMARY KEY,
  worker TEXT NOT NULL,
  request TEXT NOT NULL,
  at INTEGER NOT NULL,
  seqs TEXT NOT NULL
) STRICT;

CREATE TABLE idempotency (
  principal TEXT NOT NULL,
  route TEXT NOT NULL,
  key TEXT NOT NULL,
  hash TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  size INTEGER NOT NULL,
  answer TEXT NOT NULL,
  PRIMARY KEY (principal, route, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

CREATE TABLE tombstones (id TEXT PRIMARY KEY, expires_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_expiry ON tombstones (expires_at);

CREATE TABLE named (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
`;

/** Where a state database stands in the log: what a copy of it says of itself. */
export const POSITION_QUERY =
  "SELECT applied_index AS 'index', applied_term AS term, machine_version AS machineVersion FROM state";

/**
 * Creates the tables in an empty database, or checks that they are this build's.
 * @throws FatalError when the database was written by another schema version
 */
export function openSchema(db: Database, settings: string, versions: MachineVersions): void {
  const exists = db
    .query<{ n: number }, []>("SELECT count(*) AS n FROM sqlite_schema WHERE name = 'state'")
    .get();
  if (exists === null || exists.n === 0) {
    db.transaction(() => {
      db.run(TABLES);
      db.run(
        `INSERT INTO state VALUES (1, ?, ?, NULL, ?, 0, 0, 0, 0, 0, 0, 0, 0, '[]', 0, 0, 0, 0, 0, 0, 0, ?)`,
        [SCHEMA_VERSION, versions.oldest, settings, CHAIN_START],
      );
    })();
    return;
  }
  const row = db
    .query<{ schema_version: number; machine_version: number }, []>(
      "SELECT schema_version, machine_version FROM state",
    )
    .get();
  if (row === null || row.schema_version !== SCHEMA_VERSION) {
    throw new FatalError(
      `the state database has schema version ${row?.schema_version ?? "none"}, this build reads ${SCHEMA_VERSION}: start the build that ran here before`,
    );
  }
  const { oldest, newest } = versions;
  if (row.machine_version > newest) {
    throw new FatalError(
      `this build is too old for this data folder: its cluster runs machine version ${row.machine_version}, this build applies ${newest} at most: start the build that ran here before, or a newer one`,
    );
  }
  if (row.machine_version < oldest) {
    throw new FatalError(
      `this build is too new for this data folder: its cluster runs machine version ${row.machine_version}, this build applies ${oldest} and later: start an older build first, one that applies both`,
    );
  }
}
