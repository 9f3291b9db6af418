/** What the reader thread and its owner tell each other. */
import type { TaskFilter, TaskPage } from "./service.ts";

export interface ReaderSetup {
  /** File of the state database. */
  readonly path: string;
  /** First 32-bit word: 1 while a checkpoint asks readers to wait. Null: never. */
  readonly pause: SharedArrayBuffer | null;
}

export type ReaderRequest =
  | { readonly kind: "open"; readonly setup: ReaderSetup }
  | {
      readonly kind: "list";
      readonly id: number;
      readonly filter: TaskFilter;
      readonly limit: number;
      readonly cursor: string | null;
    }
  | { readonly kind: "close" };

export type ReaderReply =
  | { readonly kind: "page"; readonly id: number; readonly page: TaskPage }
  /** `bad`: the filter or cursor is at fault, not the thread. */
  | {
      readonly kind: "failed";
      readonly id: number;
      readonly bad: boolean;
      readonly message: string;
    };
