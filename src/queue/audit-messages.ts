/** What the audit thread and its owner tell each other. */
export type AuditRequest =
  /** File of the state database. */
  | { readonly kind: "open"; readonly path: string }
  | { readonly kind: "read"; readonly id: number; readonly cursor: string | null }
  | { readonly kind: "close" };

export type AuditReply =
  /** The rows are read as of this index, whatever is written from now on. */
  | { readonly kind: "begun"; readonly id: number; readonly index: number }
  | {
      readonly kind: "slice";
      readonly id: number;
      readonly digest: string;
      readonly next: string | null;
      readonly rows: number;
    }
  /** `damaged`: because SQLite finds the file malformed. */
  | {
      readonly kind: "failed";
      readonly id: number;
      readonly message: string;
      readonly damaged: boolean;
    };
