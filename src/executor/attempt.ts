/**
 * One attempt inside its Worker: what its handler sees of it, made when it is asked for. Most handlers look at
 * neither signal nor log, and the making of both costs more than a short handler does.
 */
import { AttemptJournal } from "./attempt-journal.ts";
import type { HandlerContext } from "./handler.ts";
import type { PostedTask, ReportPart } from "./protocol.ts";

/** Why a handler's signal fired. */
class TaskAborted extends Error {
  override name = "AbortError";
}

export class Attempt {
  readonly task: PostedTask;
  readonly context: HandlerContext;
  readonly #report: (part: ReportPart) => void;
  #controller: AbortController | null = null;
  #journal: AttemptJournal | null = null;
  #aborted: TaskAborted | null = null;
  #closed = false;

  /** `report` gets each gathered part of what the handler says before its end. */
  constructor(task: PostedTask, report: (part: ReportPart) => void) {
    this.task = task;
    this.#report = report;
    const signal = (): AbortSignal => this.#signal();
    this.context = {
      // Its own property, so that a copy of the context has it, too.
      get signal() {
        return signal();
      },
      attempt: task.attempt,
      fence: task.fence,
      taskId: task.taskId,
      name: task.name,
      progress: (percent, message) => this.#journalled().progress(percent, message),
      log: (line) => this.#journalled().log(line),
    };
  }

  abort(reason: string): void {
    this.#aborted = new TaskAborted(reason);
    this.#controller?.abort(this.#aborted);
  }

  /** The handler has ended: what it said and was not reported; null: nothing. Nothing is reported afterwards. */
  close(): ReportPart | null {
    this.#closed = true;
    if (this.#journal === null) return null;
    const rest = this.#journal.close();
    return rest.progress === null && rest.lines.length === 0 ? null : rest;
  }

  #signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#aborted !== null) this.#controller.abort(this.#aborted);
    }
    return this.#controller.signal;
  }

  #journalled(): AttemptJournal {
    if (this.#journal === null) {
      this.#journal = new AttemptJournal(() => performance.now(), this.#report);
      if (this.#closed) this.#journal.close();
    }
    return this.#journal;
  }
}
