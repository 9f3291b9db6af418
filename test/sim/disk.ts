/**
 * A model of the log's disk: what outlives the process. What was acknowledged survives every death of the process and every loss of power; of
 * what was handed over and not acknowledged, a crash keeps a prefix of whole writes, drawn from the seed. Damage is an index
 * from which the log cannot be read any more (`damagedFrom`), or the loss of term and vote (`voteLost`).
 *
 * What it does not model: a write that is torn in its middle, and which bits flip (test/storage does that on real files).
 *
 * `entries` is the whole log ever written, also what was compacted or came by a snapshot, so that invariants
 * find any index; the member itself reads nothing at or below `compacted`.
 */
import type { Entry, HardState, LogIndex, NodeId, PersistOp, Term } from "../../src/raft/types.ts";
import { asIndex, asTerm } from "../../src/raft/types.ts";
import type { LogPosition } from "../../src/raft/term-runs.ts";
import type { LogInstall, LogPromise, RecoveredLog } from "../../src/replica/ports.ts";

/** What outlives the process. */
export class Disk {
  entries: Entry[] = [];
  hardState: HardState = { term: asTerm(0), vote: null };
  clusterId: string | null = null;
  boot = 0;
  compacted: RecoveredLog["compacted"] = { index: asIndex(0), term: asTerm(0) };
  foundations: readonly Entry[] = [];
  /** Name of the state that belongs to this log. */
  currentState: string | null = null;
  installing: LogInstall | null = null;
  /** The file `SEEN`: whom its member has seen. */
  seen: unknown = null;
  /** The file `REMOVED`. */
  removed: { readonly whose: string; readonly sentence: string } | null = null;
  /** The first entry that the next start finds damaged. */
  damagedFrom: LogIndex | null = null;
  promised: LogPromise | null = null;
  /** Neither copy of the term and the vote can be believed: nobody may start on this folder. */
  voteLost = false;
  /** The last entry that a repair, or the damage that it mends, took off this log: what was promised at most. */
  lostEnd: LogPosition | null = null;
  /** What others know to be the log up to an index that is committed: for what comes by a snapshot. */
  truth: (to: LogIndex, term: Term) => readonly Entry[] = () => {
    throw new Error("nobody knows what a snapshot stands for");
  };
  /** Told before each write. */
  onWrite: ((op: PersistOp) => void) | null = null;

  constructor(
    readonly id: NodeId,
    public incarnation: string,
  ) {}

  write(op: PersistOp): void {
    this.onWrite?.(op);
    if (op.hardState !== null) this.hardState = op.hardState;
    overwrite(this.entries, op.entries);
  }

  /** @throws Error beyond the end, or of another term */
  compact(index: LogIndex, term: Term): void {
    if (index <= this.compacted.index) return;
    if (this.termAt(index) !== term) {
      throw new Error(
        index > this.entries.length
          ? `cannot compact up to ${index}: the log ends at ${this.entries.length}`
          : `cannot compact up to ${index} of term ${term}: its term here is ${this.termAt(index)}`,
      );
    }
    const below = [...this.foundations, ...this.entries.slice(this.compacted.index, index)];
    this.foundations = below.filter(
      (entry) => isMembership(entry) && entry === below.findLast(({ kind }) => kind === entry.kind),
    );
    this.compacted = { index, term };
  }

  /** @throws Error the log holds that entry, or has forgotten it */
  markInstall(install: LogInstall): void {
    const { index, term, promised } = install;
    if (promised === undefined && (index <= this.compacted.index || this.termAt(index) === term)) {
      throw new Error(
        `a snapshot of index ${index} would put back a log that holds ${this.compacted.index + 1} to ${this.entries.length}`,
      );
    }
    this.installing = install;
  }

  /** @throws Error when nothing is marked */
  finishInstall(): void {
    if (this.installing === null) throw new Error("no install is marked");
    const { index, term, foundations, promised } = this.installing;
    // A snapshot of the others may end before what was promised.
    if (promised !== undefined) this.loses(promised);
    this.entries = index === 0 ? [] : [...this.truth(index, term)];
    this.foundations = foundations;
    this.compacted = { index, term };
    if (this.hardState.term < term) this.hardState = { term, vote: null };
    this.installing = null;
  }

  /** What is at the end of the log goes, all or a part; not that it was there. */
  loses(promised: LogPromise): void {
    if (this.lostEnd === null || isBehind(this.lostEnd, this.end)) this.lostEnd = this.end;
    this.promised = promised;
    this.damagedFrom = null;
  }

  get end(): LogPosition {
    const last = this.entries.at(-1);
    if (last !== undefined) return { index: last.index, term: last.term };
    return { index: asIndex(0), term: asTerm(0) };
  }

  /** What a start that finds damage may have acknowledged before. */
  get promises(): LogPromise {
    const { entries, hardState, promised } = this;
    const index = asIndex(Math.max(entries.length, promised?.index ?? 0));
    return { index, term: hardState.term };
  }

  /** At the next start: finished if the state that it names is current, else it never happened. */
  settleInstall(): void {
    if (this.installing !== null && this.installing.state === this.currentState)
      this.finishInstall();
    this.installing = null;
  }

  termAt(index: LogIndex): Term | null {
    if (index === 0) return asTerm(0);
    return this.entries[index - 1]?.term ?? null;
  }
}

/** By log matching, whoever holds that entry holds all before it. @throws Error nobody does */
export function logUpTo(to: LogIndex, term: Term, disks: readonly Disk[]): readonly Entry[] {
  const holder = disks.find((disk) => disk.termAt(to) === term);
  if (holder === undefined) throw new Error(`nobody holds entry ${to} of term ${term}`);
  return holder.entries.slice(0, to);
}

/** Whether a log that ends at `b` is more up to date than one that ends at `a`. */
export function isBehind(a: LogPosition, b: LogPosition): boolean {
  return a.term < b.term || (a.term === b.term && a.index < b.index);
}

export function isMembership({ kind }: Entry): boolean {
  return kind === "config" || kind === "bootstrap";
}

/** @throws Error a gap */
export function overwrite(log: Entry[], entries: readonly Entry[]): void {
  const first = entries[0];
  if (first === undefined) return;
  if (first.index > log.length + 1) throw new Error(`gap in the log at ${first.index}`);
  log.length = first.index - 1;
  for (const entry of entries) log.push(entry);
}
