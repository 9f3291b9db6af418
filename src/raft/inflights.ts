/**
 * The window of appends that were sent to one follower and are not answered yet, bounded in messages and in
 * bytes. Appends are answered in order or not at all, so an answer frees everything up to it.
 */
import { invariant } from "./invariant.ts";
import type { LogIndex } from "./types.ts";

export class Inflights {
  readonly #maxMessages: number;
  readonly #maxBytes: number;
  /** Ascending by `last`; at most maxMessages long. */
  #sent: { readonly last: LogIndex; readonly bytes: number }[] = [];
  #bytes = 0;

  /** Both limits ≥ 1. */
  constructor(maxMessages: number, maxBytes: number) {
    invariant(maxMessages >= 1 && maxBytes >= 1, "an empty window would never send");
    this.#maxMessages = maxMessages;
    this.#maxBytes = maxBytes;
  }

  get count(): number {
    return this.#sent.length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The byte limit is a threshold: the message that crosses it still went out, so one large entry passes. */
  get full(): boolean {
    return this.#sent.length >= this.#maxMessages || this.#bytes >= this.#maxBytes;
  }

  /** @throws InvariantViolation when full, or when `last` does not grow. */
  add(last: LogIndex, bytes: number): void {
    invariant(!this.full, "nothing is sent into a full window");
    const previous = this.#sent.at(-1);
    invariant(previous === undefined || previous.last < last, "appends in flight ascend");
    this.#sent.push({ last, bytes });
    this.#bytes += bytes;
  }

  /** Everything up to `index` has arrived. */
  freeTo(index: LogIndex): void {
    let freed = 0;
    for (const { last, bytes } of this.#sent) {
      if (last > index) break;
      this.#bytes -= bytes;
      freed += 1;
    }
    if (freed > 0) this.#sent.splice(0, freed);
  }

  reset(): void {
    this.#sent = [];
    this.#bytes = 0;
  }
}
