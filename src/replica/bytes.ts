/**
 * Writing and reading the bytes of log entries: whole numbers by their size, texts as UTF-8, nothing escaped.
 *
 *     count   unsigned LEB128, up to 2^53 - 1
 *     number  IEEE 754 double, little-endian
 *     text    count(2 × bytes + 1 if it is all ASCII), then its UTF-8
 *     option  count(tag), count(bytes), then as many bytes; a list of them is closed by tag 0
 *
 * Options are how a format grows: a build that does not know an even tag passes over it, one that does not know
 * an odd tag stops, because it would apply the entry otherwise than others do.
 */
import { FatalError } from "./ports.ts";

const SCRATCH_BYTES = 64 * 1024;
/** A larger scratch buffer is not kept for the next entry. */
const SCRATCH_KEPT_MAX = 1024 * 1024;
const TWO_POW_28 = 2 ** 28;

export class ByteWriter {
  #bytes: Buffer<ArrayBuffer> = Buffer.allocUnsafe(SCRATCH_BYTES);
  #at = 0;

  /** What was written, as bytes of their own; the next write begins anew. */
  take(): Uint8Array<ArrayBuffer> {
    const taken = new Uint8Array(this.#at);
    taken.set(this.#bytes.subarray(0, this.#at));
    this.#at = 0;
    if (this.#bytes.length > SCRATCH_KEPT_MAX) this.#bytes = Buffer.allocUnsafe(SCRATCH_BYTES);
    return taken;
  }

  /** Forgets what was written: whoever wrote before may have failed half-way. */
  begin(): void {
    this.#at = 0;
  }

  byte(value: number): void {
    this.#reserve(1);
    this.#bytes[this.#at++] = value;
  }

  /** @throws RangeError for anything but a whole number from 0 to 2^53 - 1 */
  count(value: number): void {
    this.#reserve(8);
    if (value >= 0 && value < 0x80 && Number.isInteger(value)) {
      this.#bytes[this.#at++] = value;
      return;
    }
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new RangeError(`${value} is not a whole number that a log entry can hold`);
    }
    let left = value;
    while (left >= TWO_POW_28) {
      this.#bytes[this.#at++] = (left % 0x80) | 0x80;
      left = Math.floor(left / 0x80);
    }
    while (left >= 0x80) {
      this.#bytes[this.#at++] = (left & 0x7f) | 0x80;
      left >>>= 7;
    }
    this.#bytes[this.#at++] = left;
  }

  number(value: number): void {
    this.#reserve(8);
    this.#bytes.writeDoubleLE(value, this.#at);
    this.#at += 8;
  }

  /** Halves of a surrogate pair become U+FFFD: UTF-8 has none. */
  text(value: string): void {
    const { length } = value;
    this.#reserve(3 * length + 8);
    // As if it were all ASCII: most are, and nothing has to be moved then.
    const start = this.#at;
    this.count(2 * length + 1);
    const body = this.#at;
    const written = this.#bytes.write(value, body, "utf8");
    if (written === length) {
      this.#at = body + written;
      return;
    }
    const moved = start + bytesOfCount(2 * written);
    if (moved !== body) this.#bytes.copyWithin(moved, body, body + written);
    this.#at = start;
    this.count(2 * written);
    this.#at += written;
  }

  /** Without its length. */
  bytes(value: Uint8Array): void {
    this.#reserve(value.length);
    this.#bytes.set(value, this.#at);
    this.#at += value.length;
  }

  /** @throws RangeError for tag 0, which closes a list of options */
  option(tag: number, value: Uint8Array): void {
    if (tag === 0) throw new RangeError("an option has no tag");
    this.count(tag);
    this.count(value.length);
    this.bytes(value);
  }

  endOptions(): void {
    this.byte(0);
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafe(Math.max(2 * this.#bytes.length, this.#at + bytes));
    larger.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = larger;
  }
}

function bytesOfCount(value: number): number {
  let bytes = 1;
  for (let left = value; left >= 0x80; left = Math.floor(left / 0x80)) bytes++;
  return bytes;
}

/** Entries passed their checksum: what cannot be read here was written by a defect. */
const cut = (): FatalError => new FatalError("a log entry ends in the middle of a value");

export class ByteReader {
  readonly #bytes: Buffer;
  readonly #end: number;
  #at = 0;

  constructor(bytes: Uint8Array) {
    // A view of another reader is one already, and asking for `buffer` costs as much as reading a short command.
    this.#bytes = Buffer.isBuffer(bytes)
      ? bytes
      : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#end = bytes.byteLength;
  }

  get left(): number {
    return this.#end - this.#at;
  }

  byte(): number {
    const value = this.#bytes[this.#at++];
    if (value === undefined) throw cut();
    return value;
  }

  count(): number {
    const first = this.byte();
    if (first < 0x80) return first;
    let value = first & 0x7f;
    let scale = 0x80;
    for (;;) {
      const next = this.byte();
      value += (next & 0x7f) * scale;
      if (next < 0x80) break;
      scale *= 0x80;
    }
    if (!Number.isSafeInteger(value)) throw new FatalError("a log entry holds an impossible count");
    return value;
  }

  number(): number {
    const from = this.#advance(8);
    return this.#bytes.readDoubleLE(from);
  }

  text(): string {
    const head = this.count();
    const bytes = Math.floor(head / 2);
    const from = this.#advance(bytes);
    return this.#bytes.toString(head % 2 === 1 ? "latin1" : "utf8", from, from + bytes);
  }

  /** A view into the entry's own bytes. */
  view(bytes: number): Uint8Array {
    const from = this.#advance(bytes);
    return this.#bytes.subarray(from, from + bytes);
  }

  /**
   * Reads options up to their end; `known` answers whether it knows a tag.
   * @throws FatalError for an odd tag that is not known
   */
  options(known: (tag: number, value: ByteReader) => boolean): void {
    for (let tag = this.count(); tag !== 0; tag = this.count()) {
      const value = new ByteReader(this.view(this.count()));
      if (!known(tag, value) && tag % 2 === 1) {
        throw new FatalError(
          `a log entry holds something (option ${tag}) that this build does not know and may not pass over: start a newer build`,
        );
      }
    }
  }

  #advance(bytes: number): number {
    const from = this.#at;
    this.#at += bytes;
    if (this.#at > this.#end) throw cut();
    return from;
  }
}
