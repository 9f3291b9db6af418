/**
 * What a member does at its start when its log or its state was found damaged (S6, docs/storage.md).
 *
 * A wrong checksum is never the end of the log: the entry may have been acknowledged, and a leader may have
 * committed it by counting this member. So what is damaged is forgotten, but not that it was promised; until the log holds
 * again all that it promised, the core does not campaign and votes only for who holds it, and the leader sends what is
 * missing.
 * With nobody to send it, this member stops and says which entry is damaged.
 */
import { decodeConfigurationEntry } from "../raft/configuration.ts";
import { asIndex, type Entry, INDEX_0, type LogIndex, type NodeId, TERM_0 } from "../raft/types.ts";
import {
  FatalError,
  type Log,
  type LogPromise,
  type LogStore,
  type RecoveredLog,
  type SeenStore,
  type SnapshotStore,
} from "./ports.ts";
import { Sightings } from "./sightings.ts";

export interface RepairPort {
  readonly store: Pick<LogStore, "cut">;
  readonly snapshots: Pick<SnapshotStore, "reset">;
  readonly log: Log;
  /** `--peers`, own id included. */
  readonly peers: ReadonlyMap<NodeId, string>;
  /** `--join`: the address of another member. */
  readonly join?: string | null;
  /** Where it is kept which members were seen. */
  readonly seen?: SeenStore;
  readonly applied: () => LogIndex;
  /** A sentence when the state cannot be believed: the machine stands on nothing. */
  readonly stateDamage: string | null;
}

/** The log to go on with. @throws FatalError when nobody else could repair it */
export async function repaired(port: RepairPort, recovered: RecoveredLog): Promise<RecoveredLog> {
  const { store, snapshots, log, stateDamage } = port;
  const damage = recovered.damage ?? null;
  if (damage === null && stateDamage === null) return recovered;
  if (damage === null && recovered.compacted.index === INDEX_0) {
    log.warn(`${stateDamage}: the state is built anew from the log`);
    await snapshots.reset(null);
    return recovered;
  }
  const what = damage?.what ?? stateDamage ?? "";
  if (!hasOthers(port, recovered)) {
    throw new FatalError(
      `${what}. This cluster has one member, so nobody can send what is lost: go back to a backup. The data folder is left as it is`,
    );
  }
  if (damage !== null && stateDamage === null && port.applied() < damage.index) {
    log.warn(`${what}: the log is repaired from the other members, from this entry on`);
    await store.cut();
    return { ...recovered, damage: null, promised: damage.promised };
  }
  // The state holds what the log would have to show for it: both begin anew.
  const promised = damage?.promised ?? wholeOf(recovered);
  log.warn(`${what}: log and state are taken anew from the other members`);
  const foundations = membershipOf(recovered);
  await snapshots.reset({ promised, foundations });
  return {
    ...recovered,
    compacted: { index: INDEX_0, term: TERM_0 },
    foundations,
    lastIndex: INDEX_0,
    terms: [],
    configurations: [],
    tail: [],
    damage: null,
    promised,
  };
}

/** All that a log holds, or has promised and is still being sent: a repair of the state must not forget an earlier one. */
function wholeOf({ promised = null, lastIndex, hardState }: RecoveredLog): LogPromise {
  const index = asIndex(Math.max(lastIndex, promised?.index ?? INDEX_0));
  return { index, term: hardState.term };
}

/** Of what can still be read, what compaction would keep: entry 1 and the newest membership. */
function membershipOf({ foundations = [], configurations }: RecoveredLog): readonly Entry[] {
  const all = [...foundations, ...configurations];
  return all.filter((entry) => entry === all.findLast(({ kind }) => kind === entry.kind));
}

/**
 * By the newest membership that can be read. Where none can, it is whom this member was told of, at this start or earlier:
 * they dial it at its address. Where that one knows nobody else, an entry that is damaged, or one behind it, may have let
 * others in: it is whom this member saw since then and has not heard to be removed.
 */
function hasOthers({ peers, join = null, seen }: RepairPort, recovered: RecoveredLog): boolean {
  const newest = [...(recovered.foundations ?? []), ...recovered.configurations].at(-1);
  const { id } = recovered.identity;
  const isOther = (member: string): boolean => member !== id;
  const sightings = new Sightings(seen);
  if (newest === undefined)
    return join !== null || [...peers.keys(), ...sightings.ids()].some(isOther);
  if (Object.keys(decodeConfigurationEntry(newest).members).some(isOther)) return true;
  return (recovered.damage ?? null) !== null && sightings.idsSince(newest.index).some(isOther);
}
