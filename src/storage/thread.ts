/** A thread of the storage, as its owner and as it itself see it. It ends by `process.exit()`, which in a Worker ends that alone. */
import { type AnswerPort, Answers, type Transferable } from "../system/answers.ts";

export interface ThreadEvents<Answer> {
  readonly answered: (answer: Answer) => void;
  /** It threw what it did not catch. */
  readonly failed: (message: string) => void;
  /** It is gone, after the last of its answers. */
  readonly ended: () => void;
}

/** The first message of each. */
interface AnswerTo {
  readonly answerTo: AnswerPort;
}

export class Thread<Request, Answer> {
  readonly #worker: Worker;
  /** Resolves after {@link ThreadEvents.ended}; whatever the thread held is free then. */
  readonly ended: Promise<void>;

  /** `entry`: a module that calls {@link answering} before anything else. */
  constructor(entry: URL, { answered, failed, ended }: ThreadEvents<Answer>) {
    const answers = new Answers(answered);
    this.#worker = new Worker(entry.href);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      failed(event.message);
    };
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    this.#worker.addEventListener("close", () => {
      answers.end();
      ended();
      resolve();
    });
    const first: AnswerTo = { answerTo: answers.port };
    this.#worker.postMessage(first, [answers.port]);
  }

  post(request: Request, transfer: Transferable[] = []): void {
    this.#worker.postMessage(request, transfer);
  }
}

/** In the thread: each request to `handle`. Answers what sends an answer. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- named by the caller, as there is nothing to infer them from
export function answering<Request, Answer>(
  self: Worker,
  handle: (request: Request) => void,
): (answer: Answer, transfer?: Transferable[]) => void {
  let port: AnswerPort | null = null;
  self.onmessage = (first: MessageEvent<AnswerTo>): void => {
    port = first.data.answerTo;
    self.onmessage = ({ data }: MessageEvent<Request>) => handle(data);
  };
  return (answer, transfer = []) => port?.postMessage(answer, transfer);
}
