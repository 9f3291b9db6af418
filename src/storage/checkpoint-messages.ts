/** What the checkpointer and its thread say to each other. */

/**
 * Asks for one PASSIVE checkpoint of the database at `path`, for one step of giving its free pages back to the
 * file system, or for the end.
 */
export type CheckpointRequest =
  | { readonly kind: "checkpoint"; readonly path: string }
  | { readonly kind: "vacuum"; readonly path: string }
  | { readonly kind: "close" };

export type CheckpointReply =
  | {
      readonly kind: "checkpointed";
      readonly busy: number;
      /** Frames in the WAL, and how many of them are in the database file now. */
      readonly log: number;
      readonly checkpointed: number;
      /** Pages that the vacuum would give back. */
      readonly spare: number;
    }
  /** Whether there are more pages to give back. */
  | { readonly kind: "vacuumed"; readonly more: boolean }
  /** `fatal`: the disk failed, and what it took before is in doubt. */
  | { readonly kind: "failed"; readonly message: string; readonly fatal: boolean };
