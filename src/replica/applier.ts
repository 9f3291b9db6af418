/**
 * Applies what is committed and durable here (S2), a bounded piece at a time, and commits the state to its file on
 * the driver's clock.
 */
import type { Raft } from "../raft/raft.ts";
import { asIndex, type Entry, type LogIndex } from "../raft/types.ts";
import type { ApplyWaiters } from "./apply-waiters.ts";
import type { Consistency } from "./consistency.ts";
import type { Core } from "./core.ts";
import type { DiskRoom } from "./disk-room.ts";
import { decodeEntry } from "./envelope.ts";
import { asError } from "./errors.ts";
import {
  type Clock,
  isNoRoom,
  type Log,
  type LogStore,
  type Millis,
  type RequestAnswer,
  type StateMachine,
  type Timer,
} from "./ports.ts";
import type { Staleness } from "./staleness.ts";

/**
 * Entries decoded and applied at once. In between ticks come: all members apply the same at the same time, and eight thousand
 * small commands (4 MiB) took most of an election timeout on a busy machine.
 */
const APPLY_ENTRIES_MAX = 64;
const APPLY_BYTES_MAX = 512 * 1024;
/**
 * What was applied is committed to the state's file after this long: rows that change several times meanwhile
 * are written once. A crash loses nothing by it, the log is applied again.
 */
const FLUSH_MS: Millis = 400;

/** What it needs of the replica around it. */
export interface ApplierPort {
  readonly core: Core;
  readonly clock: Clock;
  readonly log: Log;
  readonly store: LogStore;
  readonly machine: StateMachine;
  readonly room: DiskRoom;
  readonly staleness: Staleness;
  readonly waiters: ApplyWaiters;
  readonly consistency: Consistency;
  /** The index up to which this folder's id was another's (Admission.memberSince); null: it never was. */
  memberSince(): LogIndex | null;
  /** `foreign`: so many of them, the first ones, answer nobody in this process. */
  answered(answers: readonly RequestAnswer[], foreign: number): void;
  /** Something was applied, and who waited for it was answered. */
  applied(): void;
}

export class Applier {
  readonly #port: ApplierPort;
  readonly counters = { entriesApplied: 0, commandsApplied: 0, applySeconds: 0 };
  /** Who holds applies: a checkpoint, the consistency check. */
  #holds = 0;
  #flushTimer: Timer | null = null;
  #readingLog = false;
  /** A state that is known to be wrong could not even apply an entry: it stays as it is until it is replaced. */
  #stuck = false;
  /** Since the start. What was read from the log before one of them must not be applied after it. */
  #installs = 0;

  constructor(port: ApplierPort) {
    this.#port = port;
  }

  /** Last index that the state holds. */
  get index(): LogIndex {
    return this.#port.machine.applied().index;
  }

  /** Snapshots that took the place of the state, since the start. */
  get installs(): number {
    return this.#installs;
  }

  /** Applies wait, for the last step of a checkpoint say (S3), until what is returned is called. */
  hold(): () => void {
    this.flush();
    this.#holds += 1;
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#holds -= 1;
      this.#port.core.schedulePump();
    };
  }

  /** A snapshot has replaced the state. */
  installed(): void {
    this.#installs += 1;
    this.#stuck = false;
  }

  // ------------------------------------------------------------------ apply

  apply(raft: Raft): void {
    if (this.#holds > 0 || this.#readingLog || this.#stuck || !this.#port.room.mayApply) return;
    const from = asIndex(this.index + 1);
    const to = asIndex(Math.min(raft.applicable, from + APPLY_ENTRIES_MAX - 1));
    if (to < from) return;
    const cached = raft.entriesFromCache(from, to);
    if (cached === null) this.#applyFromLog(raft, from, to);
    else this.#applyEntries(raft, cached);
  }

  #applyFromLog(raft: Raft, from: LogIndex, to: LogIndex): void {
    const { core, store } = this.#port;
    this.#readingLog = true;
    const installs = this.#installs;
    store.read(from, to, APPLY_BYTES_MAX).then(
      (entries) => {
        this.#readingLog = false;
        core.guard(() => {
          const held = this.#holds > 0 || core.isHalted || installs !== this.#installs;
          if (!held && !core.isStopped) this.#applyEntries(raft, entries);
        });
        core.schedulePump();
      },
      (error: unknown) => core.fatal(asError(error)),
    );
  }

  #applyEntries(raft: Raft, entries: readonly Entry[]): void {
    const { clock, machine, room, staleness, waiters, consistency, core } = this.#port;
    let bytes = 0;
    const piece: Entry[] = [];
    const stopAt = consistency.stopAt;
    for (const entry of entries) {
      bytes += entry.data.length;
      if (piece.length > 0 && bytes > APPLY_BYTES_MAX) break;
      piece.push(entry);
      if (entry.index === stopAt) break;
    }
    const startedAt = clock.monotonic();
    const decoded = piece.map(decodeEntry);
    let answers: readonly RequestAnswer[];
    try {
      answers = machine.apply(decoded);
    } catch (error) {
      if (consistency.condemned !== null && !isNoRoom(error)) this.#stopApplying(error);
      else room.failed(error);
      return;
    }
    room.applied();
    this.counters.applySeconds += (clock.monotonic() - startedAt) / 1_000;
    this.counters.entriesApplied += piece.length;
    this.counters.commandsApplied += answers.length;
    const applied = this.index;
    // A full disk has put the state back: what comes again was applied once.
    if (applied > raft.appliedIndex) raft.applied(applied);
    staleness.applied(applied);
    const since = this.#port.memberSince();
    const foreign = decoded
      .filter(({ index }) => since === null || index <= since)
      .reduce((sum, { requests }) => sum + requests.length, 0);
    this.#port.answered(answers, foreign);
    waiters.applied(applied);
    this.#port.applied();
    this.#flushLater();
    consistency.reached();
    // What this made room for is sealed in the same turn.
    if (raft.applicable > applied) core.schedulePump();
  }

  #stopApplying(error: unknown): void {
    this.#stuck = true;
    this.#port.log.warn("the state, which is wrong, applies nothing more until it is replaced", {
      error: String(error),
    });
  }

  // ------------------------------------------------------------------ the state's file

  #flushLater(): void {
    this.#flushTimer ??= this.#port.clock.after(FLUSH_MS, () => this.flush());
  }

  /** Commits what was applied to the state's file. */
  flush(): void {
    this.#flushTimer?.cancel();
    this.#flushTimer = null;
    const { core, room } = this.#port;
    if (core.isStopped) return;
    // Under an install the state is being replaced: what it has not committed goes with it.
    if (core.isHalted) this.#flushLater();
    else if (room.mayApply) this.#commit();
  }

  /** For the last time. */
  stop(): void {
    this.#flushTimer?.cancel();
    if (this.#port.room.mayApply) this.#commit();
  }

  #commit(): void {
    if (this.#stuck) return;
    const { core, machine, room, staleness } = this.#port;
    core.guard(() => {
      try {
        machine.flush();
      } catch (error) {
        room.failed(error);
        return;
      }
      staleness.committed();
      room.committed();
    });
  }
}
