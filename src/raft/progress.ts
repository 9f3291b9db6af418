/**
 * What the leader knows of one other member's log, and how it sends to it.
 *
 * - `probe`: where the logs agree is not known. One append at a time, then silence until an answer or the
 *   answer to a heartbeat.
 * - `replicate`: they agree up to `match`. Appends are pipelined within the window, `next` runs ahead.
 * - `snapshot`: the log here no longer reaches back far enough. No appends until a snapshot is installed.
 */
import { Inflights } from "./inflights.ts";
import { invariant } from "./invariant.ts";
import { asIndex, INDEX_0, type LogIndex } from "./types.ts";

export type ProgressState = "probe" | "replicate" | "snapshot";

export class Progress {
  #state: ProgressState = "probe";
  /**
   * Durable there and equal to the leader's log; rises only by success replies of this term, falls only
   * when the member says that it lost its log. 0 ≤ match < next.
   */
  #match: LogIndex = INDEX_0;
  /** First entry to send next. */
  #next: LogIndex;
  readonly inflights: Inflights;
  /** Heard of since the last check of the quorum. */
  recentActive = true;
  /** Probe: an append is out, no second one. */
  probeSent = false;
  /** Replicate: an empty append is due, to find out whether something was lost. */
  poke = false;
  /** Highest commit index that was told and that the receiver can have believed. */
  sentCommit: LogIndex = INDEX_0;
  /** Somebody there waits until this index is known to be committed: news of it leave at once. */
  awaitedCommit: LogIndex = INDEX_0;
  /** Last round of heartbeats that was answered. */
  round = 0;
  /** First index that was asked of storage for this peer, or null. One request at a time. */
  fetching: LogIndex | null = null;
  /** Snapshot: index that was offered, and ticks since. */
  snapshotIndex: LogIndex = INDEX_0;
  snapshotTicks = 0;

  constructor(next: LogIndex, maxInflightMessages: number, maxInflightBytes: number) {
    this.#next = next;
    this.inflights = new Inflights(maxInflightMessages, maxInflightBytes);
  }

  get state(): ProgressState {
    return this.#state;
  }

  get match(): LogIndex {
    return this.#match;
  }

  get next(): LogIndex {
    return this.#next;
  }

  /** A success reply of this term: the only thing that moves `match`, and only up. */
  matched(index: LogIndex): void {
    if (index > this.#match) this.#match = index;
    if (this.#next <= this.#match) this.#next = asIndex(this.#match + 1);
    this.inflights.freeTo(index);
  }

  /** The member says so itself: what it acknowledged is not there any more. */
  lost(next: LogIndex): void {
    this.#match = INDEX_0;
    this.becomeProbe(next);
  }

  /** Pipelined: entries up to `last` are on their way. */
  sentTo(last: LogIndex, bytes: number): void {
    invariant(this.#state === "replicate" && last >= this.#next, "only pipelining runs ahead");
    this.inflights.add(last, bytes);
    this.#next = asIndex(last + 1);
  }

  becomeProbe(next: LogIndex = asIndex(this.#match + 1)): void {
    this.#enter("probe");
    this.#next = asIndex(Math.max(next, this.#match + 1));
    this.sentCommit = INDEX_0;
  }

  becomeReplicate(): void {
    this.#enter("replicate");
    this.#next = asIndex(this.#match + 1);
  }

  becomeSnapshot(index: LogIndex): void {
    this.#enter("snapshot");
    this.snapshotIndex = index;
    this.snapshotTicks = 0;
  }

  #enter(state: ProgressState): void {
    this.#state = state;
    this.inflights.reset();
    this.probeSent = false;
    this.poke = false;
  }
}
