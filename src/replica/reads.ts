/**
 * Linearizable reads (Raft 6.4, ReadIndex), batched: everyone who asks in one turn of the event loop, and
 * everyone who comes while enough rounds are on their way, shares one round with a fresh id. A round that
 * is refused or lost is tried again under a new id, never the old one.
 */
import type { LogIndex } from "../raft/types.ts";
import { ConsensusError } from "./consensus.ts";
import type { Clock, Millis } from "./ports.ts";

/** Rounds on their way at once. */
const ROUNDS_MAX = 4;
/** A round without an answer for this long was lost on the wire; its waiters join a new one, which has twice the time. */
const ROUND_TIMEOUT_MS: Millis = 250;
const ROUND_TIMEOUT_MAX_MS: Millis = 4_000;
/** Waiting readers of this member; beyond it a read is refused early. */
const READERS_MAX = 20_000;

export interface Reader {
  readonly deadline: Millis;
  /** The quorum answered: the read is safe once `index` is applied. */
  readonly safe: (index: LogIndex) => void;
  readonly reject: (error: ConsensusError) => void;
}

export class Reads {
  readonly #clock: Clock;
  readonly #start: (id: number) => void;
  readonly #rounds = new Map<number, { readers: Reader[]; startedAt: Millis }>();
  #waiting: Reader[] = [];
  #count = 0;
  #nextId: number;
  #scheduled = false;
  /** Where links are slow every round takes longer than the least: who is given no more time is never answered. */
  #timeoutMs = ROUND_TIMEOUT_MS;
  /** No new round before this: a refusal means that there is no leader to ask just now. */
  #notBefore = 0;

  /** `start` asks the core for a read index under the given id; the first one is `first`. */
  constructor(clock: Clock, first: number, start: (id: number) => void) {
    this.#clock = clock;
    this.#nextId = first;
    this.#start = start;
  }

  get size(): number {
    return this.#count;
  }

  add(reader: Reader): void {
    if (this.#count >= READERS_MAX) {
      reader.reject(
        new ConsensusError("overloaded", `${this.#count} reads wait for a quorum already`),
      );
      return;
    }
    this.#count += 1;
    this.#waiting.push(reader);
    this.#schedule();
  }

  /** The core's answer to a round. */
  answered(id: number, index: LogIndex | null): void {
    const round = this.#rounds.get(id);
    if (round === undefined) return;
    this.#rounds.delete(id);
    if (index === null) {
      this.#timeoutMs = ROUND_TIMEOUT_MS;
      this.#waiting.unshift(...round.readers);
      this.#notBefore = this.#clock.monotonic() + 10;
      return;
    }
    const took = this.#clock.monotonic() - round.startedAt;
    this.#timeoutMs = Math.min(ROUND_TIMEOUT_MAX_MS, Math.max(ROUND_TIMEOUT_MS, 2 * took));
    this.#count -= round.readers.length;
    for (const reader of round.readers) reader.safe(index);
    this.#schedule();
  }

  /** Called regularly: gives up what is past its deadline, retries what was lost. `late` words the refusal. */
  sweep(now: Millis, late: () => ConsensusError): void {
    // As in most ticks.
    if (this.#count === 0) return;
    let isLate = false;
    for (const [id, round] of this.#rounds) {
      if (now - round.startedAt < this.#timeoutMs) continue;
      isLate = true;
      this.#rounds.delete(id);
      this.#waiting.unshift(...round.readers);
    }
    if (isLate) this.#timeoutMs = Math.min(ROUND_TIMEOUT_MAX_MS, 2 * this.#timeoutMs);
    if (this.#waiting.some((reader) => reader.deadline <= now)) {
      const due = this.#waiting.filter((reader) => reader.deadline <= now);
      this.#waiting = this.#waiting.filter((reader) => reader.deadline > now);
      this.#count -= due.length;
      for (const reader of due) reader.reject(late());
    }
    if (this.#waiting.length > 0) this.#schedule();
  }

  /** Refuses everyone, when the quorum is lost or the member stops. */
  failAll(error: () => ConsensusError): void {
    const readers = [
      ...this.#waiting,
      ...[...this.#rounds.values()].flatMap((round) => round.readers),
    ];
    this.#waiting = [];
    this.#timeoutMs = ROUND_TIMEOUT_MS;
    this.#rounds.clear();
    this.#count = 0;
    for (const reader of readers) reader.reject(error());
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#clock.soon(() => {
      this.#scheduled = false;
      if (this.#waiting.length === 0 || this.#rounds.size >= ROUNDS_MAX) return;
      if (this.#clock.monotonic() < this.#notBefore) return;
      const id = this.#nextId++;
      this.#rounds.set(id, { readers: this.#waiting, startedAt: this.#clock.monotonic() });
      this.#waiting = [];
      this.#start(id);
    });
  }
}
