/**
 * What a pool and a Worker thread say to each other. Every message is one string of JSON: strings are
 * shared between threads where objects are cloned. Payload and result stay JSON text inside it.
 */
import type { Progress, TaskError } from "../queue/types.ts";
import type { HandlersSource } from "./handler.ts";

/** Set as `workerData`-like first message: all that a thread needs before its first task. */
export interface ThreadSetup {
  readonly type: "setup";
  readonly handlers: HandlersSource;
  readonly ioRoots: readonly string[];
  readonly allowNet: readonly string[];
}

export type ToThread =
  | ThreadSetup
  | {
      readonly type: "run";
      readonly taskId: string;
      readonly name: string;
      readonly attempt: number;
      readonly fence: number;
      /** JSON text; null: none was given. */
      readonly payload: string | null;
      /** UTF-8 bytes that the result may have. */
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

export const CONSOLE_LEVELS = ["debug", "info", "warn", "error"] as const;
export type ConsoleLevel = (typeof CONSOLE_LEVELS)[number];

export type FromThread =
  | { readonly type: "ready"; readonly names: readonly string[] }
  | { readonly type: "load-failed"; readonly error: TaskError }
  | ({ readonly type: "report"; readonly fence: number } & ReportPart)
  | {
      readonly type: "end";
      readonly fence: number;
      readonly outcome: RunOutcome;
      readonly rest: ReportPart;
      /** How long the handler took. */
      readonly ran_ms: number;
    }
  | { readonly type: "console"; readonly level: ConsoleLevel; readonly text: string }
  /** The thread is about to die of something thrown outside a handler. */
  | { readonly type: "dying"; readonly error: TaskError };
