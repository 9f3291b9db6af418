/**
 * The beginning of a new cluster out of the state of an old one: what a rescue makes of a survivor's folder,
 * and a restore of a backup (DESIGN 6). The new cluster has an id of its own, so that no member of the old one
 * is ever let in, and goes on far beyond whatever the old one may have acknowledged elsewhere: no index, fence
 * or version is used twice. Sessions of the old members end.
 *
 * It is put in place like a snapshot (S5): a changed copy of the state, then a mark in the log, then CURRENT.
 * After a crash at any point the folder is as it was, or it is the new cluster.
 */
import { Database } from "bun:sqlite";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { TaskMachine } from "./queue/machine.ts";
import { encodeConfiguration } from "./raft/configuration.ts";
import { asIndex, asTerm, type LogIndex, type NodeId, type Term } from "./raft/types.ts";
import { decodeEntry, encodeBootstrap } from "./replica/envelope.ts";
import { firstConfiguration } from "./replica/founding.ts";
import { type BootstrapRecord, FatalError, type Millis } from "./replica/ports.ts";
import { freshStateName, readCurrent, switchCurrent } from "./storage/current-file.ts";
import { syncPath } from "./storage/durable-files.ts";
import { LogFile } from "./storage/log-file.ts";
import { connectState } from "./storage/state-database.ts";

/** Added to the last index and to the fence: more than any cluster writes between two of its backups. */
const JUMP = 1_000_000_000;
const APPLY_BYTES = 4 * 1024 * 1024;

export interface RebirthOptions {
  /** The data folder, locked by the caller. Its log is empty, or the state's own. */
  readonly folder: string;
  readonly id: NodeId;
  /** Address of the only member. */
  readonly advertise: string;
  /** Path of the state database to go on from; it is copied. */
  readonly source: string;
  readonly clusterId: string;
  readonly now: Millis;
  /** Told before each step of putting it in place: tests end there. */
  readonly onStep?: (step: "mark" | "switch" | "finish") => void;
  /** Why, and out of what: kept in entry 1 of the new log for ever. */
  readonly origin: Omit<NonNullable<BootstrapRecord["origin"]>, "index" | "term">;
}

export interface Rebirth {
  readonly clusterId: string;
  /** Where the old log ended: everything up to here is in the state. */
  readonly from: { readonly index: LogIndex; readonly term: Term };
  /** Where the new one begins. */
  readonly index: LogIndex;
  readonly term: Term;
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
  { folder, id, advertise, clusterId, now, origin, onStep }: RebirthOptions,
  file: LogFile,
  { identity, hardState, lastIndex }: ReturnType<typeof LogFile.open>["recovered"],
  name: string,
): Rebirth {
  const state = connectState(folder, name);
  let born: Rebirth & { readonly record: BootstrapRecord };
  try {
    const machine = TaskMachine.open(state.db);
    replay(machine, file, lastIndex);
    const from = machine.applied();
    const index = asIndex(from.index + JUMP);
    const term = asTerm(Math.max(hardState.term, from.term) + 1);
    const members = [{ id, incarnation: identity.incarnation, url: advertise }];
    const settings = machine.settings();
    const record: BootstrapRecord = {
      clusterId,
      createdAt: Math.max(now, machine.logTime()),
      members,
      settings,
      machineVersion: machine.machineVersion(),
      origin: { ...origin, ...from },
    };
    machine.beginAnew(clusterId, { index, term }, JUMP);
    born = { clusterId, from, index, term, record };
    settle(state.db);
  } finally {
    state.db.close(true);
  }
  syncPath(state.path);
  const { index, term, record } = born;
  const configuration = firstConfiguration(record);
  const foundations = [
    {
      kind: "bootstrap",
      index: asIndex(1),
      term: asTerm(1),
      data: encodeBootstrap(configuration, record),
    },
    { kind: "config", index, term, data: encodeConfiguration(configuration) },
  ] as const;
  const before = readCurrent(folder);
  onStep?.("mark");
  file.markInstall({ index, term, foundations, state: name, clusterId });
  onStep?.("switch");
  switchCurrent(folder, name);
  onStep?.("finish");
  file.finishInstall();
  if (before !== null) removeState(folder, before);
  return { clusterId, from: born.from, index, term };
}

/** Entries of the folder's own log behind the state: what the survivor wrote may be acknowledged. */
function replay(machine: TaskMachine, file: LogFile, last: LogIndex): void {
  if (last > 0 && machine.applied().index > last)
    throw new FatalError(
      `the state is at index ${machine.applied().index}, its log ends at ${last}: they do not belong together`,
    );
  while (machine.applied().index < last) {
    const from = asIndex(machine.applied().index + 1);
    const entries = file.read(from, last, APPLY_BYTES);
    if (entries.length === 0)
      throw new FatalError(`the log does not hold entry ${from}, which the state needs next`);
    machine.apply(entries.map(decodeEntry));
  }
  machine.flush();
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
