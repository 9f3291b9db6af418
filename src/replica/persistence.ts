/**
 * Hands the core's writes to storage and holds back the messages that promise something about them, until they
 * and all writes before them are durable.
 */
import { type Message, type PersistAck, type PersistOp, TERM_0 } from "../raft/types.ts";
import type { LogStore } from "./ports.ts";

/**
 * Gathered messages that may wait for a disk. A disk that hangs for hours must not fill the memory with promises; what is
 * not kept was as good as lost on the wire, and the leader asks again.
 */
const HELD_MAX = 8_192;

export class Persistence {
  readonly #store: LogStore;
  readonly #send: (message: Message) => void;
  /** Writes handed over, and acknowledged: storage answers in order, so counts tell which. */
  #issued = 0;
  #durable = 0;
  /** Newest term that was handed over. */
  #term = TERM_0;
  readonly #held: { readonly after: number; readonly messages: readonly Message[] }[] = [];

  constructor(store: LogStore, send: (message: Message) => void) {
    this.#store = store;
    this.#send = send;
  }

  /** `done` runs when the write is durable, before the messages that waited for it leave. */
  write(op: PersistOp, done: (ack: PersistAck) => void): void {
    this.#issued += 1;
    if (op.hardState !== null) this.#term = op.hardState.term;
    this.#store.append(op, (ack) => {
      this.#durable += 1;
      done(ack);
      this.#release();
    });
  }

  /**
   * Sends when everything that was handed over so far is durable; unless the member has gone to a later term
   * meanwhile, whose leader may have replaced in the same write what the message would vouch for.
   */
  sendAfter(messages: readonly Message[]): void {
    if (messages.length === 0) return;
    if (this.#durable < this.#issued) {
      if (this.#held.length < HELD_MAX) this.#held.push({ after: this.#issued, messages });
    } else for (const message of messages) this.#send(message);
  }

  #release(): void {
    for (let [next] = this.#held; next !== undefined; [next] = this.#held) {
      if (next.after > this.#durable) return;
      this.#held.shift();
      for (const message of next.messages) if (message.term >= this.#term) this.#send(message);
    }
  }
}
