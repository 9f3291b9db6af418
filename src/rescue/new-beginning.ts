/**
 * What a new cluster begins with: the state of an old one, brought to the end of the log that belongs to it, and the two
 * entries that a log keeps for ever. It touches no file: `rebirth.ts` puts what it makes in place.
 *
 * The new cluster has an id of its own, so that no member of the old one is ever let in, and goes on far beyond
 * whatever the old one may have acknowledged elsewhere: no index, fence or version is used twice. Sessions of the
 * old members end.
 */
import type { TaskMachine } from "../queue/machine.ts";
import { encodeConfiguration } from "../raft/configuration.ts";
import { asIndex, asTerm, type Entry, type LogIndex, type Term } from "../raft/types.ts";
import { decodeEntry, encodeBootstrap } from "../replica/envelope.ts";
import { firstConfiguration } from "../replica/founding.ts";
import { type BootstrapRecord, FatalError, type Identity, type Millis } from "../replica/ports.ts";

/** Added to the last index and to the fence: more than any cluster writes between two of its backups. */
const JUMP = 1_000_000_000;

/** The log of the folder that goes on; empty, or the state's own. */
export interface OldLog {
  readonly identity: Pick<Identity, "id" | "incarnation">;
  /** Of the newest term that the folder knows. */
  readonly term: Term;
  readonly lastIndex: LogIndex;
  /** Entries from `from` up to `lastIndex`, as many as fit; none: it does not hold `from`. */
  readonly read: (from: LogIndex) => readonly Entry[];
}

export interface NewCluster {
  readonly clusterId: string;
  /** Address of the only member. */
  readonly advertise: string;
  readonly now: Millis;
  /** Why, and out of what: kept in entry 1 of the new log for ever. */
  readonly origin: Omit<NonNullable<BootstrapRecord["origin"]>, "index" | "term">;
  /** How far it goes on; models of a disk that hold every index take less. */
  readonly jump?: number;
}

export interface NewBeginning {
  /** Where the old log ended: everything up to here is in the state. */
  readonly from: { readonly index: LogIndex; readonly term: Term };
  /** Where the new one begins. */
  readonly index: LogIndex;
  readonly term: Term;
  /** Entry 1, and the membership as of `index`. */
  readonly foundations: readonly [Entry, Entry];
}

/**
 * Changes the state that `machine` stands on, which is a copy.
 * @throws FatalError state and log do not belong together, or an entry is missing
 */
export function newBeginning(
  machine: TaskMachine,
  log: OldLog,
  { clusterId, advertise, now, origin, jump = JUMP }: NewCluster,
): NewBeginning {
  replay(machine, log);
  const from = machine.applied();
  const index = asIndex(from.index + jump);
  const term = asTerm(Math.max(log.term, from.term) + 1);
  const { id, incarnation } = log.identity;
  const record: BootstrapRecord = {
    clusterId,
    createdAt: Math.max(now, machine.logTime()),
    members: [{ id, incarnation, url: advertise }],
    settings: machine.settings(),
    machineVersion: machine.machineVersion(),
    // In the order in which a member that hears of it writes it again: entry 1 is the same to the byte everywhere.
    origin: { kind: origin.kind, clusterId: origin.clusterId, ...from, note: origin.note },
  };
  machine.beginAnew(clusterId, { index, term }, jump);
  const configuration = firstConfiguration(record);
  return {
    from,
    index,
    term,
    foundations: [
      {
        kind: "bootstrap",
        index: asIndex(1),
        term: asTerm(1),
        data: encodeBootstrap(configuration, record),
      },
      { kind: "config", index, term, data: encodeConfiguration(configuration) },
    ],
  };
}

/** Entries of the folder's own log behind the state: what the survivor wrote may be acknowledged. */
function replay(machine: TaskMachine, { lastIndex: last, read }: OldLog): void {
  if (last > 0 && machine.applied().index > last)
    throw new FatalError(
      `the state is at index ${machine.applied().index}, its log ends at ${last}: they do not belong together`,
    );
  while (machine.applied().index < last) {
    const from = asIndex(machine.applied().index + 1);
    const entries = read(from);
    if (entries.length === 0)
      throw new FatalError(`the log does not hold entry ${from}, which the state needs next`);
    machine.apply(entries.map(decodeEntry));
  }
  machine.flush();
}
