/**
 * The rolling hash of what apply decided (T9). Every change of a row, every answer and, at the end of each
 * entry, every counter goes into it, so that two members whose states differ because one of them applied the
 * log differently have different chains from that entry on: comparing one value compares the whole history.
 *
 * It is made for the hot path: some nanoseconds a number, no allocation. It guards against accidents
 * (a defect, a broken memory, another outcome of another build), not against an enemy. What rots on the disk
 * after it was written is not seen by it: that is what the audit reads rows for (audit.ts).
 */

/** Characters of a text that count from each of its ends; its length always does. */
const TEXT_END = 32;
/** Stands for null: no value that apply writes. */
const NULL = -0x5eed_0001;

export const CHAIN_START = "0000000000000000";

export class Chain {
  #a: number;
  #b: number;

  /** `value`: what {@link value} gave. */
  constructor(value: string) {
    this.#a = Number.parseInt(value.slice(0, 8), 16) | 0;
    this.#b = Number.parseInt(value.slice(8, 16), 16) | 0;
  }

  /** An integer up to 2^53, or null. */
  mix(value: number | null): void {
    const n = value ?? NULL;
    let k = Math.imul(n | 0, 0xcc9e_2d51);
    k = (k << 15) | (k >>> 17);
    let a = this.#a ^ Math.imul(k, 0x1b87_3593);
    a = (a << 13) | (a >>> 19);
    a = (Math.imul(a, 5) + 0xe654_6b64) | 0;
    const b = Math.imul(this.#b ^ a, 0x85eb_ca6b) + Math.floor(n / 0x1_0000_0000);
    this.#a = a;
    this.#b = (b << 11) | (b >>> 21);
  }

  /** Length, beginning and end: what lies between came with the entry and is checked where it is read. */
  mixText(text: string): void {
    const { length } = text;
    // Multiplied, so that a length and a first character cannot make up for each other.
    let h = Math.imul(length ^ 0x811c_9dc5, 0x0100_0193);
    const head = length < TEXT_END ? length : TEXT_END;
    for (let i = 0; i < head; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x0100_0193);
    const tail = length - TEXT_END < head ? head : length - TEXT_END;
    for (let i = tail; i < length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x0100_0193);
    this.mix(h);
  }

  /** 16 hex digits. */
  value(): string {
    return hex(this.#a) + hex(this.#b);
  }
}

/** The chain's value after each of the newest entries. */
export class ChainHistory {
  readonly #max: number;
  readonly #kept: { readonly index: number; readonly value: string }[] = [];

  /** `max`: entries that are remembered. */
  constructor(max: number) {
    this.#max = max;
  }

  keep(index: number, value: string): void {
    this.#kept[index % this.#max] = { index, value };
  }

  /** Null: too old, or not reached. */
  at(index: number): string | null {
    const kept = this.#kept[index % this.#max];
    return kept?.index === index ? kept.value : null;
  }
}

function hex(word: number): string {
  return (word >>> 0).toString(16).padStart(8, "0");
}
