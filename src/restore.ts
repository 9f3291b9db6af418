/**
 * `--restore FILE`: makes the files of the first member of a new cluster out of a backup, before anything else
 * opens the folder. What is new in the new cluster is rebirth.ts.
 *
 * It happens as a whole or not at all: a marker says that it is under way, and what a crash left of it is swept
 * away by the next try.
 */
import { Database } from "bun:sqlite";
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { forgetBoots } from "./queue/restored-state.ts";
import type { NodeId } from "./raft/types.ts";
import { rebirth } from "./rebirth.ts";
import { FatalError, type Log } from "./replica/ports.ts";
import { type BackupManifest, extractBackup, readManifest } from "./storage/backup-file.ts";
import { replaceFile, syncPath } from "./storage/durable-files.ts";

/** There while a restore is under way. */
const UNDER_WAY = "RESTORING";
/** What was restored: a member may be started again with the same flags. */
const DONE = "RESTORED";
/** Everything that a member has in its folder, but for the lock. */
const MEMBERS_FILES = /^(?:CURRENT|log\.db|state-|snapshot-|incoming-|vote)/;
const COPY_FIRST = "restored.part";
/** What an empty folder may hold: the lock of a start that came to nothing, and what a file system puts at its top. */
const TOLERATED = /^(?:lock\.db(?:-journal)?|lost\+found)$/;

export interface RestoreOptions {
  /** Locked by this process. */
  readonly folder: string;
  /** As it was given, for what is said about it. */
  readonly data: string;
  readonly file: string;
  readonly member: NodeId;
  readonly advertise: string;
  readonly clusterId: string;
  /** Epoch milliseconds. */
  readonly now: number;
  readonly log: Log;
}

/**
 * Before anything is made in `folder`, the lock too: a first restore needs an empty one. @throws FatalError
 */
export function refuseForeignFiles(folder: string, data: string): void {
  if (!existsSync(folder) || !statSync(folder).isDirectory()) return;
  const names = readdirSync(folder);
  // One that was restored before, or half so, is judged by what it holds.
  if (names.some((name) => isMembers(name) || name === UNDER_WAY || name === DONE)) return;
  const foreign = names.find((name) => !TOLERATED.test(name));
  if (foreign === undefined) return;
  throw new FatalError(
    `--restore needs an empty data folder, and ${data} holds ${foreign}: give --data an empty folder`,
  );
}

/**
 * Does nothing on a folder that was restored from this backup before.
 * @throws FatalError a sentence; an empty folder is empty then, but for the lock
 */
export async function restore(options: RestoreOptions): Promise<void> {
  const { folder, file, data } = options;
  if (!existsSync(join(folder, UNDER_WAY)) && readdirSync(folder).some(isMembers)) {
    const done = join(folder, DONE);
    const before = existsSync(done) ? readFileSync(done, "utf8").trim() : null;
    if (before !== null && (!existsSync(file) || (await readManifest(file)).sha256 === before)) {
      options.log.info("this folder was restored before: --restore changes nothing");
      return;
    }
    throw new FatalError(
      `--restore needs an empty data folder, and ${data} holds a member's files: give --data an empty folder, or leave --restore out`,
    );
  }
  replaceFile(join(folder, UNDER_WAY), `${file}\n`);
  sweep(folder);
  let manifest: BackupManifest;
  try {
    manifest = await extractBackup(file, join(folder, COPY_FIRST));
    build(options, manifest);
  } catch (error) {
    sweep(folder);
    rmSync(join(folder, UNDER_WAY));
    throw error;
  }
  replaceFile(join(folder, DONE), `${manifest.sha256}\n`);
  rmSync(join(folder, UNDER_WAY));
  syncPath(folder);
  options.log.info("restored a backup into a new cluster", {
    cluster: options.clusterId,
    of: manifest.cluster_id,
    made: manifest.created_at,
    index: manifest.index,
  });
}

/** Without `--restore`: a folder in which one was begun is none to start on. @throws FatalError */
export function refuseHalfRestored(folder: string, data: string): void {
  if (!existsSync(join(folder, UNDER_WAY))) return;
  throw new FatalError(
    `a restore into ${data} did not come to its end: start with --restore again, or empty the folder`,
  );
}

function build(options: RestoreOptions, manifest: BackupManifest): void {
  const { folder, member, advertise, clusterId, now, file } = options;
  const source = join(folder, COPY_FIRST);
  prepare(source, file);
  const note = `restored from a backup that ${manifest.node_id} made at ${manifest.created_at}`;
  const origin = { kind: "restore", clusterId: manifest.cluster_id, note } as const;
  rebirth({ folder, id: member, advertise, source, clusterId, now, origin });
  rmSync(source);
}

/** @throws FatalError the state was damaged before it was backed up, or is of another version */
function prepare(path: string, file: string): void {
  const db = new Database(path, { readwrite: true, create: false, strict: true });
  try {
    const row = db.query<Record<string, unknown>, []>("PRAGMA quick_check(1)").get();
    const [found] = Object.values(row ?? {});
    if (found !== "ok")
      throw new FatalError(`--restore ${file} holds a damaged state (${String(found)})`);
    forgetBoots(db);
  } finally {
    db.close(true);
  }
}

function isMembers(name: string): boolean {
  return MEMBERS_FILES.test(name);
}

function sweep(folder: string): void {
  for (const name of readdirSync(folder)) {
    if (isMembers(name) || name.startsWith(COPY_FIRST)) rmSync(join(folder, name));
  }
}
