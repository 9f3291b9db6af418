/** Seeded pseudo-random numbers (a 32-bit mixing counter), so that a failing seed replays. */
export class Prng {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  uint32(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  }

  /** Integer in [low, high]. */
  between(low: number, high: number): number {
    return low + (this.uint32() % (high - low + 1));
  }

  chance(probability: number): boolean {
    return this.uint32() / 2 ** 32 < probability;
  }

  pick<T>(from: readonly T[]): T {
    const picked = from[this.uint32() % from.length];
    if (picked === undefined) throw new Error("nothing to pick from");
    return picked;
  }
}
