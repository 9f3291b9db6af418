/**
 * The beginning of a new cluster out of the state of an old one: what a rescue makes of a survivor's folder,
 * and a restore of a backup (docs/lost-quorum.md, docs/backup.md). What is new in it is rescue/new-beginning.ts; here
 * are the files.
 *
 * It is put in place like a snapshot (S5): a changed copy of the state, then a mark in the log, then CURRENT.
 * After a crash at any point the folder is as it was, or it is the new cluster.
 */
import { Database } from "bun:sqlite";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { TaskMachine } from "./queue/machine.ts";
import type { Entry, LogIndex, NodeId } from "./raft/types.ts";
import { FatalError } from "./replica/ports.ts";
import { type NewBeginning, newBeginning, type NewCluster } from "./rescue/new-beginning.ts";
import { freshStateName, readCurrent, switchCurrent } from "./storage/current-file.ts";
import { syncPath } from "./storage/durable-files.ts";
import { LogFile } from "./storage/log-file.ts";
import { connectState } from "./storage/state-database.ts";

const APPLY_BYTES = 4 * 1024 * 1024;

export interface RebirthOptions extends NewCluster {
  /** The data folder, locked by the caller. Its log is empty, or the state's own. */
  readonly folder: string;
  readonly id: NodeId;
  /** Path of the state database to go on from; it is copied. */
  readonly source: string;
  /** Told before each step of putting it in place: tests end there. */
  readonly onStep?: (step: "mark" | "switch" | "finish") => void;
}

export interface Rebirth extends Omit<NewBeginning, "foundations"> {
  readonly clusterId: string;
}

/** @throws FatalError the folder, its log or the state cannot be used; nothing has changed then */
export function rebirth(options: RebirthOptions): Rebirth {
  const { folder, id } = options;
  const { file, recovered } = LogFile.open(folder, id, 0);
  try {
    const name = freshStateName(0);
    const path = join(folder, name);
    try {
      copyState(options.source, path);
      return beginAnew(options, file, recovered, name);
    } catch (error) {
      if (readCurrent(folder) !== name) removeState(folder, name);
      throw error;
    }
  } finally {
    file.close();
  }
}

function beginAnew(
  options: RebirthOptions,
  file: LogFile,
  { identity, hardState, lastIndex }: ReturnType<typeof LogFile.open>["recovered"],
  name: string,
): Rebirth {
  const { folder, clusterId, onStep } = options;
  const state = connectState(folder, name);
  let born: NewBeginning;
  try {
    const read = (from: LogIndex): readonly Entry[] => file.read(from, lastIndex, APPLY_BYTES);
    const log = { identity, term: hardState.term, lastIndex, read };
    born = newBeginning(TaskMachine.open(state.db), log, options);
    settle(state.db);
  } finally {
    state.db.close(true);
  }
  syncPath(state.path);
  const { from, index, term, foundations } = born;
  const before = readCurrent(folder);
  onStep?.("mark");
  file.markInstall({ index, term, foundations, state: name, clusterId });
  onStep?.("switch");
  switchCurrent(folder, name);
  onStep?.("finish");
  file.finishInstall();
  if (before !== null) removeState(folder, before);
  return { clusterId, from, index, term };
}

function copyState(source: string, target: string): void {
  if (!existsSync(source)) throw new FatalError(`there is no state database at ${source}`);
  let db: Database | null = null;
  try {
    db = new Database(source, { readonly: true, strict: true });
    db.prepare<unknown, [string]>("VACUUM INTO ?").run(target);
  } catch (error) {
    throw new FatalError(
      `cannot copy ${source} to ${target} (${error instanceof Error ? error.message : String(error)}): it needs as much room again`,
    );
  } finally {
    db?.close(true);
  }
}

/** Everything in the file itself, so that it is whole without its WAL. */
function settle(db: Database): void {
  const row = db.prepare<{ busy: number }, []>("PRAGMA wal_checkpoint(TRUNCATE)").get();
  if (row?.busy !== 0)
    throw new FatalError("the new state cannot be written out: something reads it");
}

function removeState(folder: string, name: string): void {
  for (const suffix of ["", "-wal", "-shm", "-journal"])
    rmSync(join(folder, `${name}${suffix}`), { force: true });
}
