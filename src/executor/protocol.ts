/**
 * What a pool and a Worker thread say to each other. Every message is one string of JSON: strings are
 * shared between threads where objects are cloned. Payload and result stay JSON text inside it.
 */
import type { Progress, TaskError } from "../queue/types.ts";
import type { AnswerPort } from "../system/answers.ts";
import type { HandlersSource } from "./handler.ts";

/** All that a thread needs before its first task. */
export interface ThreadSetup {
  readonly handlers: HandlersSource;
  readonly ioRoots: readonly string[];
  readonly allowNet: readonly string[];
}

/** The first message to a thread, and the only one that is not text: memory is shared with it. */
export interface ThreadStart {
  readonly setup: ThreadSetup;
  /** For all that it says; transferred. */
  readonly answers: AnswerPort;
  /** See entry-counter.ts. */
  readonly entries: SharedArrayBuffer;
}

/** One attempt, as its thread is told of it. */
export interface PostedTask {
  readonly taskId: string;
  readonly name: string;
  readonly attempt: number;
  readonly fence: number;
  /** JSON text; null: none was given. */
  readonly payload: string | null;
}

export type ToThread =
  | {
      readonly type: "run";
      /** One after another; those whose number was taken back meanwhile are left out. */
      readonly tasks: readonly PostedTask[];
      /** Number of the first one. */
      readonly first: number;
      /** UTF-8 bytes that a result may have. */
      readonly resultMaxBytes: number;
    }
  | { readonly type: "abort"; readonly fence: number; readonly reason: string };

/** How the handler of one attempt ended. */
export type RunOutcome =
  | { readonly kind: "result"; readonly result: string | null }
  | {
      readonly kind: "error";
      readonly error: TaskError;
      readonly retryAfterMs: number | null;
    }
  | { readonly kind: "snooze"; readonly delayMs: number };

/** Progress and log lines since the last report. */
export interface ReportPart {
  readonly progress: Progress | null;
  readonly lines: readonly string[];
}

/** How one attempt ended. */
export interface RunEnd {
  readonly fence: number;
  readonly outcome: RunOutcome;
  /** What was not reported before; null: nothing. */
  readonly rest: ReportPart | null;
  /** How long the handler took. */
  readonly ran_ms: number;
}

export const CONSOLE_LEVELS = ["debug", "info", "warn", "error"] as const;
export type ConsoleLevel = (typeof CONSOLE_LEVELS)[number];

export type FromThread =
  | { readonly type: "ready"; readonly names: readonly string[] }
  | { readonly type: "load-failed"; readonly error: TaskError }
  | ({ readonly type: "report"; readonly fence: number } & ReportPart)
  /** In the order in which they were entered. */
  | { readonly type: "ends"; readonly ends: readonly RunEnd[] }
  | { readonly type: "console"; readonly level: ConsoleLevel; readonly text: string }
  /** The thread is about to die of something thrown outside a handler. */
  | { readonly type: "dying"; readonly error: TaskError };
