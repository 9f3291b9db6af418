/**
 * The log of a member that follows: what it does with a leader's appends and offers of snapshots.
 *
 * Whoever calls has judged the message's term already: it is this member's own, and its sender leads in it.
 */
import { entryBytes } from "./entry-cache.ts";
import { invariant, must } from "./invariant.ts";
import type { RaftLog } from "./log.ts";
import type { Outbox } from "./outbox.ts";
import type { RaftOptions } from "./options.ts";
import { asIndex, type Entry, INDEX_0, type LogIndex, type Message, type Term } from "./types.ts";

type MessageOf<T extends Message["type"]> = Extract<Message, { type: T }>;

type FollowingOptions = Pick<RaftOptions, "maxUncommittedBytes" | "maxWritesUnderWay">;

export class Following {
  readonly #log: RaftLog;
  readonly #out: Outbox;
  readonly #o: FollowingOptions;
  readonly #isInRepair: () => boolean;

  /** `maxUncommittedBytes`: of entries that may wait for this disk; a larger single one is taken when none waits. */
  constructor(log: RaftLog, out: Outbox, options: FollowingOptions, isInRepair: () => boolean) {
    this.#log = log;
    this.#out = out;
    this.#o = options;
    this.#isInRepair = isInRepair;
  }

  append(message: MessageOf<"append">): void {
    if (!followOn(message.prevIndex, message.entries)) return; // no correct leader sends that
    if (!this.#hasRoomFor(message.entries)) return; // sent again by and by
    const { prevIndex } = message;
    const skipped = this.#log.commit - prevIndex;
    if (skipped <= 0) {
      this.#takeEntries(message);
      return;
    }
    // Late, or a first probe. What is committed equals the log of every leader to come; it may be compacted
    // here, so only what is behind it is looked at.
    for (const { index, term } of message.entries.slice(0, skipped)) {
      const own = this.#log.termAt(index);
      invariant(
        own === null || own === term,
        `the leader ${message.from} holds another entry at the committed index ${index}`,
      );
    }
    const entries = message.entries.slice(skipped);
    if (entries.length === 0) {
      this.#accept(message, prevIndex, this.#log.commit);
      return;
    }
    const { term: prevTerm } = must(message.entries[skipped - 1], "an entry was skipped");
    this.#takeEntries({ ...message, prevIndex: this.#log.commit, prevTerm, entries });
  }

  #takeEntries(message: MessageOf<"append">): void {
    const { from, term, prevIndex, prevTerm, entries, commit } = message;
    if (this.#log.termAt(prevIndex) !== prevTerm) {
      const hint = this.#hint(prevIndex, prevTerm);
      const lost = this.#isInRepair() ? { lost: true as const } : {};
      this.#out.send(from, term, { type: "append-reply", prevIndex, match: null, hint, ...lost });
      return;
    }
    const truncated = this.#log.merge(entries);
    if (truncated !== null) this.#out.truncated(truncated);
    // Entries behind the last one of this append were not checked against this leader: they may be
    // of a deposed one, so they are neither committed nor acknowledged by it.
    const checked = asIndex(prevIndex + entries.length);
    this.#log.commitTo(asIndex(Math.min(commit, checked)));
    this.#accept(message, prevIndex, checked);
  }

  /** Where this log is another one, an append or a heartbeat finds out. */
  commit({ prevIndex, prevTerm, commit }: MessageOf<"commit">): void {
    if (this.#log.termAt(prevIndex) !== prevTerm) return;
    this.#log.commitTo(asIndex(Math.min(commit, prevIndex)));
  }

  /**
   * A heartbeat bears a commit index that this member acknowledged: never beyond its log, unless that is being
   * repaired. Then the leader is told, since it sends nothing of itself to who has it all.
   */
  heartbeat({ from, term, commit, round }: MessageOf<"heartbeat">): void {
    if (this.#isInRepair()) {
      this.#log.commitTo(asIndex(Math.min(commit, this.#log.last)));
      const hint = { index: this.#log.last, term: this.#log.lastTerm };
      this.#out.send(from, term, {
        type: "append-reply",
        prevIndex: INDEX_0,
        match: null,
        hint,
        lost: true,
      });
    } else this.#log.commitTo(commit);
    this.#out.send(from, term, { type: "heartbeat-reply", round });
  }

  /** A disk that hangs must not fill the memory: what would wait for it beyond a limit is not taken. */
  #hasRoomFor(entries: readonly Entry[]): boolean {
    if (entries.length === 0) return true;
    if (this.#log.writesUnderWay >= this.#o.maxWritesUnderWay) return false;
    const waiting = this.#log.undurableBytes;
    return waiting === 0 || waiting + bytesOf(entries) <= this.#o.maxUncommittedBytes;
  }

  /** The promise that all up to `match` is on this disk; so it waits for what is still being written. */
  #accept({ from, term }: Message, prevIndex: LogIndex, match: LogIndex): void {
    this.#out.sendAfterPersist(from, term, { type: "append-reply", prevIndex, match, hint: null });
  }

  /** Where this log could agree with a leader that has `prevTerm` at `prevIndex`; at the commit index it does. */
  #hint(prevIndex: LogIndex, prevTerm: Term): { index: LogIndex; term: Term } {
    const { index, term } = this.#log.lastAtMost(prevIndex, prevTerm);
    if (index > this.#log.commit) return { index, term };
    const committed = this.#log.termAt(this.#log.commit);
    return { index: this.#log.commit, term: must(committed, "what is committed is in the log") };
  }

  /** The leader's log no longer reaches back to where this one ends. */
  snapshot(message: MessageOf<"snapshot">): void {
    const { from, snapshot } = message;
    if (snapshot.index > this.#log.commit) {
      if (this.#log.termAt(snapshot.index) !== snapshot.term) {
        this.#out.install({ from, snapshot });
        return;
      }
      this.#log.commitTo(snapshot.index); // the log has it all: equal up to there
    }
    this.#accept(message, snapshot.index, this.#log.commit);
  }
}

function bytesOf(entries: readonly Entry[]): number {
  return entries.reduce((sum, entry) => sum + entryBytes(entry), 0);
}

/** Entries continue prevIndex without a gap, and terms do not fall. */
function followOn(prevIndex: LogIndex, entries: readonly Entry[]): boolean {
  let term = 0;
  return entries.every((entry, i) => {
    const right = entry.index === prevIndex + 1 + i && entry.term >= term;
    term = entry.term;
    return right;
  });
}
