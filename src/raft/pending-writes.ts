/**
 * Writes that were handed to storage and are not acknowledged yet, oldest first.
 *
 * Storage answers in order. An answer is matched with the write it belongs to, never with the log as it
 * is now: between the two, the entries of that write may have been overwritten, and even overwritten back
 * (append A-B-A). So a truncation cuts what each write on its way may still vouch for.
 */
import { must } from "./invariant.ts";
import {
  asIndex,
  type HardState,
  INDEX_0,
  type LogIndex,
  type PersistAck,
  type PersistOp,
} from "./types.ts";

/** What storage says when this write is durable. */
export function ackOf({ hardState, entries }: PersistOp): PersistAck {
  const last = entries.at(-1);
  return { hardState, last: last === undefined ? null : { index: last.index, term: last.term } };
}

interface Write {
  readonly hardState: HardState | null;
  readonly last: PersistAck["last"];
  /** Highest index that this write makes durable; lowered by truncation. 0: none. */
  vouches: LogIndex;
  /** When it was handed over, in the ticks of its owner. */
  readonly at: number;
}

export class PendingWrites {
  readonly #writes: Write[] = [];

  get count(): number {
    return this.#writes.length;
  }

  /** When the oldest one was handed over, or null. */
  get oldestAt(): number | null {
    return this.#writes[0]?.at ?? null;
  }

  add(op: PersistOp, at: number): void {
    const { hardState, last } = ackOf(op);
    this.#writes.push({ hardState, last, vouches: last?.index ?? INDEX_0, at });
  }

  /** Entries from `from` on are no longer the log's. */
  truncated(from: LogIndex): void {
    for (const write of this.#writes) {
      if (write.vouches >= from) write.vouches = asIndex(from - 1);
    }
  }

  /**
   * What is durable by this answer: the write it belongs to and all before it. Null when no write on its
   * way is like it: it counts for nothing.
   */
  acknowledged(
    ack: PersistAck,
  ): { durable: LogIndex; hardState: HardState | null; at: number } | null {
    const at = this.#writes.findIndex((write) => isAnsweredBy(write, ack));
    if (at < 0) return null;
    let durable = INDEX_0;
    let hardState: HardState | null = null;
    const { at: handedAt } = must(this.#writes[at], "it was found");
    for (const write of this.#writes.splice(0, at + 1)) {
      if (write.vouches > durable) durable = write.vouches;
      hardState = write.hardState ?? hardState;
    }
    return { durable, hardState, at: handedAt };
  }
}

function isAnsweredBy(write: Write, ack: PersistAck): boolean {
  return (
    write.last?.index === ack.last?.index &&
    write.last?.term === ack.last?.term &&
    write.hardState?.term === ack.hardState?.term &&
    write.hardState?.vote === ack.hardState?.vote
  );
}
