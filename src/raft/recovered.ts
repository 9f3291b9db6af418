/**
 * The state that a core starts with, made by hand: for tests, and for whoever plays cores without a store. A
 * member of a cluster gets its own from storage.
 */
import { encodeConfiguration } from "./configuration.ts";
import type { RecoveredState } from "./log.ts";
import {
  asIndex,
  asTerm,
  type Configuration,
  type Entry,
  type HardState,
  INDEX_0,
  type LogIndex,
  type NodeId,
  TERM_0,
} from "./types.ts";

/** A plain configuration of these members; their addresses are made up. */
export function plainConfiguration(
  voters: readonly NodeId[],
  learners: readonly NodeId[] = [],
): Configuration {
  const members = Object.fromEntries(
    [...voters, ...learners].map((id) => [id, { url: `http://${id}`, incarnation: id }]),
  );
  return { voters, outgoing: [], learners, learnersNext: [], members };
}

/** Entry 1 of a cluster that begins with these members, in term 1. */
export function foundingEntry(voters: readonly NodeId[], learners: readonly NodeId[] = []): Entry {
  const text = new TextDecoder().decode(encodeConfiguration(plainConfiguration(voters, learners)));
  const data = new TextEncoder().encode(`{"configuration":${text}}`);
  return { term: asTerm(1), index: asIndex(1), kind: "bootstrap", data };
}

/** A log that holds `entries` behind `compacted`, all of it durable. */
export interface GivenLog {
  /** At least of the term of the last entry, with which it begins unless it is given. */
  readonly hardState?: HardState;
  /** Contiguous from compacted.index + 1 on; the first one of all is a {@link foundingEntry}. */
  readonly entries: readonly Entry[];
  readonly compacted?: RecoveredState["compacted"];
  /** As of compacted.index: needed when anything is compacted. */
  readonly configuration?: Configuration;
  /** Applied already; at least compacted.index, and at least the first entry otherwise. */
  readonly applied?: LogIndex;
  /** While the log is being repaired; see {@link RecoveredState.promised}. */
  readonly promised?: RecoveredState["promised"];
  /** How many of the newest entries are in the cache; all, unless it is given. */
  readonly cached?: number;
}

export function recoveredState(given: GivenLog): RecoveredState {
  const { entries, compacted = { index: INDEX_0, term: TERM_0 }, configuration = null } = given;
  const terms: { index: LogIndex; term: Entry["term"] }[] = [];
  for (const { index, term } of entries) {
    if (terms.at(-1)?.term !== term) terms.push({ index, term });
  }
  const cached = Math.min(given.cached ?? entries.length, entries.length);
  return {
    hardState: given.hardState ?? { term: terms.at(-1)?.term ?? compacted.term, vote: null },
    compacted,
    terms,
    lastIndex: asIndex(compacted.index + entries.length),
    tail: entries.slice(entries.length - cached),
    configurations: entries.filter(({ kind }) => kind === "config" || kind === "bootstrap"),
    snapshotConfiguration: configuration,
    promised: given.promised ?? null,
    applied: given.applied ?? asIndex(Math.max(compacted.index, Math.min(1, entries.length))),
  };
}
