/** What the checkpointer and its thread say to each other. */

/** Asks for one PASSIVE checkpoint of the database at `path`, or for the end. */
export type CheckpointRequest =
  { readonly kind: "checkpoint"; readonly path: string } | { readonly kind: "close" };

export type CheckpointReply =
  | {
      readonly kind: "checkpointed";
      readonly busy: number;
      /** Frames in the WAL, and how many of them are in the database file now. */
      readonly log: number;
      readonly checkpointed: number;
    }
  | { readonly kind: "failed"; readonly message: string };
