/**
 * UUIDv7 (RFC 9562, 5.7) made by the client: what makes a submit repeatable. Ids of one process grow, also
 * within a millisecond, so that they are inserted in order.
 */

/** Random bytes drawn at once: one call for 512 ids. */
const POOL_BYTES = 4_096;
/** Of an id's random part, as text. */
const RANDOM_LENGTH = 16;
/** The variant's two bits above two random ones. */
const VARIANTS = "89ab";

export class IdMinter {
  readonly #bytes = Buffer.alloc(POOL_BYTES);
  /** The bytes as text, for an id is put together of few pieces; and how many of its characters were used. */
  #pool = "";
  #used = 0;
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
      this.#counter = Number.parseInt(this.#random(3), 16) & 0x7ff;
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
    const random = this.#random(RANDOM_LENGTH);
    const variant = VARIANTS.charAt(Number.parseInt(random.charAt(0), 16) & 3);
    return `${this.#prefix}${counter}-${variant}${random.slice(1, 4)}-${random.slice(4)}`;
  }

  /** The clock was found to be ahead: ids may be earlier than those before. */
  rewind(): void {
    this.#lastMs = 0;
  }

  /** So many hexadecimal digits, each used once. */
  #random(length: number): string {
    if (this.#used + length > this.#pool.length) {
      this.#pool = crypto.getRandomValues(this.#bytes).toString("hex");
      this.#used = 0;
    }
    this.#used += length;
    return this.#pool.slice(this.#used - length, this.#used);
  }
}
