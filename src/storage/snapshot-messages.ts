/** What the snapshot store and its thread say to each other. Every request is answered once, under its id. */

/** Where a copy stands in the log, as its own tables say. */
export interface Position {
  readonly index: number;
  readonly term: number;
  readonly machineVersion: number;
}

export type SnapshotWork =
  /** VACUUM INTO; `query` answers one row (index, term, machineVersion). */
  | {
      readonly kind: "copy";
      readonly source: string;
      readonly target: string;
      readonly query: string;
    }
  | {
      readonly kind: "read";
      readonly path: string;
      readonly offset: number;
      readonly bytes: number;
    }
  | {
      readonly kind: "write";
      readonly path: string;
      readonly offset: number;
      readonly data: Uint8Array<ArrayBuffer>;
      readonly crc: number;
    }
  /** Checks what was received against what was promised, and makes it a database to open: WAL, synced. */
  | {
      readonly kind: "verify";
      readonly path: string;
      readonly bytes: number;
      readonly checksum: string;
      readonly position: Position;
      readonly query: string;
    }
  /** Renames within the folder, durably. */
  | { readonly kind: "rename"; readonly folder: string; readonly from: string; readonly to: string }
  | { readonly kind: "switch"; readonly folder: string; readonly name: string }
  /** Keeps what was the state, with what SQLite keeps beside it, as the only one of its kind in the folder. */
  | { readonly kind: "aside"; readonly folder: string; readonly name: string }
  /** Removes files of the folder as far as they are there, with what SQLite keeps beside them; durably. */
  | { readonly kind: "remove"; readonly folder: string; readonly names: readonly string[] };

export type SnapshotRequest =
  | { readonly kind: "work"; readonly id: number; readonly work: SnapshotWork }
  | { readonly kind: "close" };

export type SnapshotResult =
  | { readonly kind: "done" }
  /** What was to be written is not what was sent. */
  | { readonly kind: "damaged" }
  | { readonly kind: "bytes"; readonly data: Uint8Array<ArrayBuffer>; readonly crc: number }
  | {
      readonly kind: "copied";
      readonly position: Position;
      readonly bytes: number;
      readonly checksum: string;
    };

export type SnapshotReply =
  | { readonly kind: "result"; readonly id: number; readonly result: SnapshotResult }
  | { readonly kind: "failed"; readonly id: number; readonly message: string };
