/** What `io` makes of what it reads: a size and a hash, never the bytes. */
import { NonRetryableError } from "../errors.ts";

/** Of a file or an answer, at most. */
const READ_MAX_BYTES = 64 * 1024 * 1024;

/** Result of `io`. */
export interface IoResult {
  readonly size: number;
  readonly sha256: string;
}

export class Hasher {
  readonly #sha256 = new Bun.CryptoHasher("sha256");
  #size = 0;

  add(chunk: Uint8Array): void {
    this.#size += chunk.length;
    if (this.#size > READ_MAX_BYTES)
      throw new NonRetryableError(`io: reads ${READ_MAX_BYTES / 1024 / 1024} MiB at most`);
    this.#sha256.update(chunk);
  }

  finish(): IoResult {
    return { size: this.#size, sha256: this.#sha256.digest("hex") };
  }
}
