/**
 * Keeps the state database's WAL short, and says what of the state is durable (S3): two PASSIVE checkpoints
 * run beside the writer, then the owner holds its applies for a third, short one. Without that hold new frames
 * always arrive before a checkpoint ends, and the WAL never starts over.
 *
 * The same thread gives free pages back to the file system, in steps for which applies are held too: SQLite has
 * one writer at a time.
 */
import { FatalError } from "../replica/ports.ts";
import type { CheckpointReply, CheckpointRequest } from "./checkpoint-messages.ts";
import { Thread } from "./thread.ts";

export interface Checkpoint {
  /** The applied index that is durable in the database file now, or null: not all of the WAL was moved. */
  readonly durableApplied: number | null;
  /** How long applies were held. */
  readonly heldMs: number;
  /** Free pages that {@link StateCheckpointer.vacuumStep} would give back. */
  readonly sparePages: number;
}

export interface CheckpointerOptions {
  /** The database's path; asked anew for each run, since an install changes it. */
  readonly path: string | (() => string);
  /** Of the newest committed transaction. */
  readonly appliedIndex: () => number;
  /** Resolves when the readers of now are done: what they read keeps a checkpoint from its end, and the WAL from starting over. */
  readonly settle?: () => Promise<unknown>;
  /** Holds applies until what it returns is called; at once, or when it resolves. */
  readonly hold: () => (() => void) | Promise<() => void>;
}

export class StateCheckpointer {
  readonly #o: CheckpointerOptions;
  readonly #thread: Thread<CheckpointRequest, CheckpointReply>;
  #answer: PromiseWithResolvers<CheckpointReply> | null = null;
  #running: Promise<unknown> | null = null;
  #checkpoint: Promise<Checkpoint> | null = null;
  /** Why there will be no more checkpoints. */
  #over: Error | null = null;

  constructor(options: CheckpointerOptions) {
    this.#o = options;
    this.#thread = new Thread(new URL("./checkpoint-thread.ts", import.meta.url), {
      answered: (reply) => this.#answer?.resolve(reply),
      failed: (message) => this.#end(new Error(`the checkpoint thread failed: ${message}`)),
      ended: () => this.#end(new Error("the checkpoint thread ended")),
    });
  }

  /**
   * One checkpoint, on the caller's own clock; a call while one runs shares it. Applies go on again whatever
   * happens. @throws Error when the thread or the disk fails: then nothing became durable
   */
  run(): Promise<Checkpoint> {
    this.#checkpoint ??= this.#alone(() => this.#run()).finally(() => {
      this.#checkpoint = null;
    });
    return this.#checkpoint;
  }

  /**
   * One step of giving free pages back; the file is shorter after the next checkpoint. Answers whether there is
   * more. @throws Error when the thread or the disk fails
   */
  vacuumStep(): Promise<boolean> {
    return this.#alone(async () => {
      const release = await this.#o.hold();
      try {
        const reply = await this.#ask("vacuum");
        if (reply.kind !== "vacuumed") throw new Error(`unexpected ${reply.kind}`);
        return reply.more;
      } finally {
        release();
      }
    });
  }

  /** The thread does one thing at a time. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#running ?? Promise.resolve();
    const mine = before.then(work, work);
    this.#running = mine.catch(() => undefined);
    return mine;
  }

  /** Ends the thread, after the checkpoint that runs. */
  async close(): Promise<void> {
    await this.#running;
    if (this.#over === null) {
      this.#over = new Error("the checkpointer is closed");
      this.#thread.post({ kind: "close" });
    }
    await this.#thread.ended;
  }

  async #run(): Promise<Checkpoint> {
    await this.#passive();
    await this.#o.settle?.();
    await this.#passive();
    const release = await this.#o.hold();
    const heldAt = performance.now();
    let durableApplied: number | null;
    let sparePages: number;
    try {
      // Read before: whatever commits during the checkpoint may or may not be in it.
      const applied = this.#o.appliedIndex();
      const done = await this.#passive();
      durableApplied = isComplete(done) ? applied : null;
      sparePages = done.spare;
    } finally {
      release();
    }
    return { durableApplied, sparePages, heldMs: performance.now() - heldAt };
  }

  async #passive(): Promise<Extract<CheckpointReply, { kind: "checkpointed" }>> {
    const reply = await this.#ask("checkpoint");
    if (reply.kind !== "checkpointed") throw new Error(`unexpected ${reply.kind}`);
    return reply;
  }

  async #ask(kind: "checkpoint" | "vacuum"): Promise<Exclude<CheckpointReply, { kind: "failed" }>> {
    if (this.#over !== null) throw this.#over;
    this.#answer = Promise.withResolvers<CheckpointReply>();
    const path = typeof this.#o.path === "string" ? this.#o.path : this.#o.path();
    this.#thread.post({ kind, path });
    const reply = await this.#answer.promise;
    if (reply.kind === "failed") {
      const what = `the state ${kind} failed: ${reply.message}`;
      throw reply.fatal ? new FatalError(what) : new Error(what);
    }
    return reply;
  }

  #end(error: Error): void {
    this.#over ??= error;
    this.#answer?.reject(this.#over);
  }
}

/** One that moved almost nothing also reports busy = 0: only "all of the WAL is in the file" counts. */
export function isComplete({
  busy,
  log,
  checkpointed,
}: {
  readonly busy: number;
  readonly log: number;
  readonly checkpointed: number;
}): boolean {
  return busy === 0 && log >= 0 && log === checkpointed;
}
