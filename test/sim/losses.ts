/**
 * What a member's folder has lost, by damage or since an old copy of it was put back, and may have promised before: what the
 * rules excuse, and what may be lost beside it (`mayLose`), goes by this.
 */
import type { Database } from "bun:sqlite";
import { asIndex, type LogIndex, type Message, type Term } from "../../src/raft/types.ts";
import type { LogPosition } from "../../src/raft/term-runs.ts";
import { type Disk, isBehind } from "./disk.ts";
import type { SimNode } from "./node.ts";

interface Copy {
  readonly disk: Disk;
  readonly state: Uint8Array;
}

export class Losses {
  readonly #node: SimNode;
  /** Where the log of its folder ended at its furthest when an old copy of it was put back. */
  #lost: LogPosition | null = null;
  /** How often its process had been started when an old copy was put back. */
  #lostStarts = 0;
  /** Leaders that it told of its newest loss, each with the term in which. */
  readonly #told = new Map<SimNode, Term>();
  /** A copy of the folder that may be put back. */
  copy: Copy | null = null;

  constructor(node: SimNode) {
    this.#node = node;
  }

  /** The folder is empty from now on: that of somebody else. */
  wiped(): void {
    this.copy = null;
    this.#told.clear();
    this.#lost = null;
    this.#lostStarts = 0;
  }

  /** The next start finds the log damaged from this entry on. */
  damaged(from: LogIndex): void {
    this.#node.disk.damagedFrom = from;
    this.#told.clear();
  }

  /** `leader` hears from this member that what it acknowledged is lost. */
  tells(
    leader: SimNode,
    { hint, term }: Extract<Message, { readonly type: "append-reply" }>,
  ): void {
    // A late copy of what it told of an earlier loss comes before the next start, or names more than is left.
    const { damagedFrom, entries } = this.#node.disk;
    if (damagedFrom === null && (hint?.index ?? 0) <= entries.length) this.#told.set(leader, term);
  }

  /** Since it lost the end of its log it has told that to whoever leads now: nothing of it is counted any more. */
  hasTold(leader: SimNode): boolean {
    return this.#told.get(leader) === leader.leadership?.term;
  }

  /**
   * What it may have acknowledged and lacks, until the others have sent it; null: it lacks nothing. In the meantime it
   * does not campaign, and votes only for who holds that much.
   */
  get owes(): LogPosition | null {
    const { disk } = this.#node;
    const { damagedFrom, promised, promises, entries } = disk;
    if (damagedFrom !== null) return promises;
    if (promised === null || promised.index <= entries.length) return null;
    // What a leader of a later term has committed here ends the repair, too.
    const commit = Math.max(this.#node.applied, this.#node.replica?.status().commit ?? 0);
    const known = disk.termAt(asIndex(Math.min(commit, entries.length))) ?? 0;
    return known > promised.term ? null : promised;
  }

  /** Copies the folder onto this empty disk, with that state. */
  keeps(disk: Disk, db: Database): void {
    const { entries, hardState, clusterId, boot, compacted } = this.#node.disk;
    Object.assign(disk, { entries: [...entries], hardState, clusterId, boot, compacted });
    const { foundations, currentState, incarnation, promised, lostEnd, seen } = this.#node.disk;
    Object.assign(disk, { foundations, currentState, incarnation, promised, lostEnd, seen });
    disk.removed = this.#node.disk.removed;
    this.copy = { disk, state: db.serialize() };
  }

  /** No vote was given since the copy was made. */
  get copyMayReturn(): boolean {
    const { hardState } = this.#node.disk;
    const copy = this.copy?.disk.hardState;
    return copy?.term === hardState.term && copy.vote === hardState.vote;
  }

  /** The copy takes the folder's place; the process is dead. */
  goesBack(): void {
    const { end, lostEnd, boot } = this.#node.disk;
    this.#lostStarts = Math.max(this.#lostStarts, boot);
    const ends = [
      end,
      // The folder before may have been an old copy itself, or one that still owed something.
      ...(this.rolledBack && this.#lost !== null ? [this.#lost] : []),
      ...(this.owes !== null && lostEnd !== null ? [lostEnd] : []),
    ];
    this.#lost = ends.reduce((furthest, each) => (isBehind(furthest, each) ? each : furthest));
    this.#told.clear();
    this.copy = null;
  }

  /**
   * An old copy of its folder was put back: it may stop, and must not take part until it holds again what it lost. That
   * may be so: a learner that nobody has counted yet is let in. What the copy itself owes is no loss.
   */
  get rolledBack(): boolean {
    const lost = this.#lost;
    if (lost === null || (this.#node.disk.termAt(lost.index) ?? -1) >= lost.term) return false;
    if (this.owes === null) return true;
    // Not by what it may have promised: that is of the newest term, as if every entry were.
    const { end, lostEnd } = this.#node.disk;
    return isBehind(lostEnd === null || isBehind(lostEnd, end) ? end : lostEnd, lost);
  }

  /**
   * An old copy of its folder was put back that knows nothing of its newest starts: whoever saw one of them refuses it,
   * until it has been started more often than the folder before.
   */
  get hasForgottenStarts(): boolean {
    return this.#node.disk.boot <= this.#lostStarts;
  }
}
