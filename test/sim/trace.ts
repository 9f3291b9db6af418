/** What happened in a run, as one number, and for people as lines. */
import type { Message, NodeId } from "../../src/raft/types.ts";
import type { PeerFrame } from "../../src/replica/ports.ts";
import type { World } from "./world.ts";

/** Newest lines kept without `--trace`, printed with a failure. */
const LINES_KEPT = 400;

export class Trace {
  #a = 0x811c9dc5;
  #b = 0x1000193;
  #lines: string[] = [];
  readonly #world: World;
  readonly #print: ((line: string) => void) | null;

  constructor(world: World, print: ((line: string) => void) | null = null) {
    this.#world = world;
    this.#print = print;
  }

  /** Equal for equal runs; 64 bits in hex. */
  get hash(): string {
    return (
      (this.#a >>> 0).toString(16).padStart(8, "0") + (this.#b >>> 0).toString(16).padStart(8, "0")
    );
  }

  get lines(): readonly string[] {
    return this.#lines;
  }

  /** Goes into the hash, and not into the story: what happens thousands of times. */
  mark(text: string): void {
    let a = this.#a;
    let b = this.#b;
    const now = Math.round(this.#world.now * 1_000);
    a = Math.imul(a ^ now, 0x01000193);
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      a = Math.imul(a ^ code, 0x01000193);
      b = Math.imul(b ^ (code + (a >>> 13)), 0x85ebca6b);
    }
    this.#a = a;
    this.#b = b;
  }

  /** A frame that `from` sends to, or hears of, `to`: what there are most of, so it costs little. */
  frame(from: NodeId, to: NodeId, frame: PeerFrame): void {
    const { kind } = frame;
    const now = Math.round(this.#world.now * 1_000);
    let a = Math.imul(this.#a ^ now, 0x01000193);
    a = Math.imul(a ^ number(from), 0x01000193);
    a = Math.imul(a ^ number(to), 0x01000193);
    a = Math.imul(a ^ kind.length, 0x01000193);
    if (frame.kind === "raft") {
      const { message } = frame;
      // No two types have both in common.
      const type = (message.type.length << 8) | message.type.charCodeAt(0);
      a = Math.imul(a ^ message.term ^ (type << 16), 0x01000193);
      a = Math.imul(a ^ position(message), 0x01000193);
      a = Math.imul(a ^ size(message), 0x01000193);
    }
    this.#a = a;
    this.#b = Math.imul(this.#b ^ (a >>> 13), 0x85ebca6b);
  }

  /** A line of the story. */
  say(who: string, what: string): void {
    this.mark(`${who} ${what}`);
    this.note(who, what);
  }

  /** A line of the story that is not of the run itself: what a member logs. */
  note(who: string, what: string): void {
    const line = `${(this.#world.now / 1_000).toFixed(4).padStart(9)} s  ${who.padEnd(4)} ${what}`;
    this.#print?.(line);
    this.#lines.push(line);
    if (this.#lines.length > 2 * LINES_KEPT) this.#lines = this.#lines.slice(-LINES_KEPT);
  }
}

/** Where in the log, or which round or read, it is about. */
function position(message: Message): number {
  switch (message.type) {
    case "append":
    case "append-reply":
    case "commit":
      return message.prevIndex;
    case "heartbeat":
    case "heartbeat-reply":
      return message.round;
    case "vote":
      return message.lastIndex;
    case "snapshot":
      return message.snapshot.index;
    case "snapshot-reply":
      return message.index;
    case "read-index":
    case "read-index-reply":
      return message.id;
    case "vote-reply":
    case "timeout-now":
      return 0;
  }
}

/** How much it holds, or grants. */
function size(message: Message): number {
  switch (message.type) {
    case "append":
      return (message.entries.length << 20) ^ message.commit;
    case "append-reply":
      return message.match ?? -1 - (message.hint?.index ?? 0);
    case "commit":
    case "heartbeat":
      return message.commit;
    case "vote":
      return 2 * message.lastTerm + (message.pre ? 1 : 0);
    case "vote-reply":
      return (message.pre ? 2 : 0) + (message.granted ? 1 : 0);
    case "read-index-reply":
      return message.index ?? -1;
    case "snapshot":
      return message.snapshot.term;
    case "snapshot-reply":
      return message.ok ? 1 : 0;
    case "heartbeat-reply":
    case "read-index":
    case "timeout-now":
      return 0;
  }
}

/** Of `n12`, 12, without a text: of frames there are most. */
function number(id: NodeId): number {
  let value = 0;
  for (let i = 1; i < id.length; i++) value = 10 * value + id.charCodeAt(i) - 48;
  return value;
}
