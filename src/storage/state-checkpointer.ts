/**
 * Keeps the state database's WAL short, without stopping the writer for long (S3): two PASSIVE checkpoints
 * run beside it, then the owner holds its applies for a third, short one, so that the WAL starts over.
 * Never TRUNCATE or RESTART beside a live writer: they take its lock.
 */
import type { CheckpointResult } from "./checkpoint-thread.ts";

export interface Checkpoint {
  /** The applied index that is durable in the state database now, or null: not all of the WAL was moved. */
  readonly durableApplied: number | null;
  readonly heldMs: number;
}

export interface CheckpointerOptions {
  readonly path: string;
  /** Read BEFORE a checkpoint: what it made durable is at least that. */
  readonly appliedIndex: () => number;
  /** Holds applies until what it returns is called. */
  readonly hold: () => () => void;
}

export class StateCheckpointer {
  readonly #o: CheckpointerOptions;
  readonly #worker = new Worker(new URL("./checkpoint-thread.ts", import.meta.url).href);
  #answer: PromiseWithResolvers<CheckpointResult> | null = null;
  #running: Promise<Checkpoint> | null = null;
  #closed = false;

  constructor(options: CheckpointerOptions) {
    this.#o = options;
    this.#worker.addEventListener("message", ({ data }: MessageEvent<CheckpointResult>) =>
      this.#answer?.resolve(data),
    );
    this.#worker.addEventListener("error", ({ message }) =>
      this.#answer?.reject(new Error(message)),
    );
    this.#worker.addEventListener("close", () =>
      this.#answer?.reject(new Error("the checkpoint thread ended")),
    );
  }

  /** One checkpoint; a call while one runs shares it. @throws Error when the thread fails */
  run(): Promise<Checkpoint> {
    this.#running ??= this.#run().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#running?.catch(() => undefined);
    this.#worker.terminate();
  }

  async #run(): Promise<Checkpoint> {
    await this.#passive();
    await this.#passive();
    const release = this.#o.hold();
    const heldAt = performance.now();
    try {
      const applied = this.#o.appliedIndex();
      const result = await this.#passive();
      return {
        durableApplied: isComplete(result) ? applied : null,
        heldMs: performance.now() - heldAt,
      };
    } finally {
      release();
    }
  }

  #passive(): Promise<CheckpointResult> {
    if (this.#closed) return Promise.reject(new Error("the checkpointer is closed"));
    this.#answer = Promise.withResolvers<CheckpointResult>();
    this.#worker.postMessage(this.#o.path);
    return this.#answer.promise;
  }
}

/** One that moved almost nothing also reports busy = 0: only "all of the WAL is in the file" counts. */
export function isComplete({ busy, log, checkpointed }: CheckpointResult): boolean {
  return busy === 0 && log === checkpointed;
}
