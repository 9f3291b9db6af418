/** What the member's main thread and its log thread say to each other. */
import type { Entry, LogIndex, NodeId, PersistOp, Term } from "../raft/types.ts";
import type { RecoveredLog } from "../replica/ports.ts";

export type LogRequest =
  | {
      readonly type: "open";
      readonly path: string;
      readonly id: NodeId;
      readonly incarnation: string;
      readonly tailBytes: number;
    }
  | { readonly type: "append"; readonly ops: readonly PersistOp[] }
  | {
      readonly type: "read";
      readonly call: number;
      readonly from: LogIndex;
      readonly to: LogIndex;
      readonly maxBytes: number;
    }
  | {
      readonly type: "compact";
      readonly call: number;
      readonly index: LogIndex;
      readonly term: Term;
    }
  | { readonly type: "bind"; readonly call: number; readonly clusterId: string }
  | { readonly type: "close" };

export type LogReply =
  | { readonly type: "opened"; readonly recovered: RecoveredLog }
  /** The oldest `count` appends that were not answered yet are durable, in one transaction of `ms`. */
  | { readonly type: "appended"; readonly count: number; readonly ms: number }
  | { readonly type: "read"; readonly call: number; readonly entries: readonly Entry[] }
  | { readonly type: "done"; readonly call: number }
  | { readonly type: "closed" }
  /** The thread does nothing more: an error of the disk, or a file that is not what it must be. */
  | { readonly type: "failed"; readonly message: string; readonly fatal: boolean };
