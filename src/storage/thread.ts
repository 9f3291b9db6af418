/**
 * A thread of the storage, and how its owner hears of what it did. Messages of a Worker arrive at the end of a turn of the event loop,
 * and with thousands of busy connections a turn lasts for seconds (system/clock.ts). What a thread sends over a port can be looked
 * at in the middle of one. It costs the same.
 */
import {
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  type Transferable,
} from "node:worker_threads";

export interface ThreadEvents<Answer> {
  readonly answered: (answer: Answer) => void;
  /** It threw what it did not catch. */
  readonly failed: (message: string) => void;
  /** It is gone, after the last of its answers. */
  readonly ended: () => void;
}

/** The first message of each. */
interface AnswerTo {
  readonly answerTo: MessagePort;
}

export class Thread<Request, Answer> {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #events: ThreadEvents<Answer>;
  /** Resolves after {@link ThreadEvents.ended}; whatever the thread held is free then. */
  readonly ended: Promise<void>;

  /** `entry`: a module that calls {@link answering} before anything else. */
  constructor(entry: URL, events: ThreadEvents<Answer>) {
    const { port1, port2 } = new MessageChannel();
    this.#events = events;
    this.#port = port1;
    this.#port.on("message", (answer: Answer) => events.answered(answer));
    this.#worker = new Worker(entry.href);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      events.failed(event.message);
    };
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    this.#worker.addEventListener("close", () => {
      this.look();
      this.#port.close();
      events.ended();
      resolve();
    });
    const first: AnswerTo = { answerTo: port2 };
    this.#worker.postMessage(first, [port2]);
  }

  post(request: Request, transfer: Transferable[] = []): void {
    this.#worker.postMessage(request, transfer);
  }

  /** Takes the answers that are there, as the end of the turn would. */
  look(): void {
    for (;;) {
      const received = receiveMessageOnPort(this.#port);
      if (received === undefined) return;
      this.#events.answered(received.message as Answer);
    }
  }
}

/** In the thread: each request to `handle`. Answers what sends an answer. `process.exit()` ends the thread alone. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- named by the caller, as there is nothing to infer them from
export function answering<Request, Answer>(
  self: Worker,
  handle: (request: Request) => void,
): (answer: Answer, transfer?: Transferable[]) => void {
  let port: MessagePort | null = null;
  self.onmessage = (first: MessageEvent<AnswerTo>): void => {
    port = first.data.answerTo;
    self.onmessage = ({ data }: MessageEvent<Request>) => handle(data);
  };
  return (answer, transfer = []) => port?.postMessage(answer, transfer);
}
