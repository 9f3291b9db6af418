/**
 * UUIDv7 (RFC 9562, 5.7) made by the client: what makes a submit repeatable. Ids of one process grow, also
 * within a millisecond, so that they are inserted in order.
 */

/** Random bytes drawn at once: one call for 512 ids. */
const POOL_BYTES = 4_096;
const RANDOM_BYTES = 8;
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

export class IdMinter {
  readonly #pool = new Uint8Array(POOL_BYTES);
  #used = POOL_BYTES;
  /** The time's part as text, which many ids share. */
  #prefix = "";
  #prefixMs = -1;
  #lastMs = 0;
  /** The 12 bits after the time, as a counter within it. */
  #counter = 0;

  /** `nowMs`: epoch milliseconds. A clock that steps back does not make ids step back. */
  mint(nowMs: number): string {
    if (nowMs > this.#lastMs) {
      this.#lastMs = nowMs;
      // Half of the counter's range is left for more ids of this millisecond.
      this.#counter = (this.#byte() << 3) | (this.#byte() & 7);
    } else if (++this.#counter > 0xfff) {
      this.#lastMs += 1;
      this.#counter = 0;
    }
    if (this.#lastMs !== this.#prefixMs) {
      const time = this.#lastMs.toString(16).padStart(12, "0");
      this.#prefix = `${time.slice(0, 8)}-${time.slice(8)}-7`;
      this.#prefixMs = this.#lastMs;
    }
    const counter = (0x1000 | this.#counter).toString(16).slice(1);
    if (this.#used + RANDOM_BYTES > POOL_BYTES) this.#refill();
    let random = HEX[0x80 | ((this.#pool[this.#used] ?? 0) & 0x3f)] ?? "";
    for (let at = 1; at < RANDOM_BYTES; at++) {
      if (at === 2) random += "-";
      random += HEX[this.#pool[this.#used + at] ?? 0] ?? "";
    }
    this.#used += RANDOM_BYTES;
    return `${this.#prefix}${counter}-${random}`;
  }

  /** The clock was found to be ahead: ids may be earlier than those before. */
  rewind(): void {
    this.#lastMs = 0;
  }

  #byte(): number {
    if (this.#used >= POOL_BYTES) this.#refill();
    return this.#pool[this.#used++] ?? 0;
  }

  #refill(): void {
    crypto.getRandomValues(this.#pool);
    this.#used = 0;
  }
}
