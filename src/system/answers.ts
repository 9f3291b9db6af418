/**
 * What a thread says to its owner. Messages of a Worker arrive at the end of a turn of the event loop, and with thousands of busy
 * connections a turn lasts for seconds (clock.ts). What comes over a port can be taken in the middle of one, and costs the same.
 */
import {
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  type Transferable,
} from "node:worker_threads";
import { lookInBetween } from "./clock.ts";

/** The thread's end of it: to be transferred with a message to it. */
export type AnswerPort = MessagePort;
export type { Transferable };

export class Answers<Answer> {
  readonly #own: MessagePort;
  readonly #answered: (answer: Answer) => void;
  readonly #lookNoMore: () => void;
  readonly port: AnswerPort;

  constructor(answered: (answer: Answer) => void) {
    const { port1, port2 } = new MessageChannel();
    this.#own = port1;
    this.port = port2;
    this.#answered = answered;
    this.#own.on("message", answered);
    this.#lookNoMore = lookInBetween(() => this.#look());
  }

  /** When the thread has ended: hears the last of it. */
  end(): void {
    this.#look();
    this.#lookNoMore();
    this.#own.close();
  }

  #look(): void {
    for (;;) {
      const received = receiveMessageOnPort(this.#own);
      if (received === undefined) return;
      this.#answered(received.message as Answer);
    }
  }
}
