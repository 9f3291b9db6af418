/** What is known of a cluster that begins out of another one's state, and the disk of its first member. */
import type { LeaseRef } from "../../src/queue/types.ts";
import { asIndex, asTerm, type Entry } from "../../src/raft/types.ts";
import type { NewBeginning } from "../../src/rescue/new-beginning.ts";
import type { Disk } from "./disk.ts";
import type { Simulation } from "./simulation.ts";

const EMPTY = new Uint8Array();

/** What a new cluster begins with, and what is known of the old one. */
export interface Reborn {
  readonly kind: "restore" | "rescue";
  /** The simulation before; over. */
  readonly of: Simulation;
  readonly clusterId: string;
  /** Number of the member that it begins with. */
  readonly first: number;
  readonly incarnation: string;
  readonly boot: number;
  readonly beginning: NewBeginning;
  readonly state: Uint8Array;
  /** Leases of workers outside that the old cluster granted behind that state. */
  readonly stale: readonly OldLease[];
  readonly stranger: Stranger | null;
}

/** A member of the cluster before that knows nothing of the new one, and starts on the folder that it had. */
export interface Stranger {
  readonly number: number;
  readonly disk: Disk;
  readonly state: Uint8Array;
}

export interface OldLease extends LeaseRef {
  readonly worker: string;
}

/** The disk of the new cluster's first member: its log begins behind the jump. */
export function diskOf({ clusterId, beginning, boot }: Reborn, disk: Disk): void {
  const { index, term, foundations } = beginning;
  const [first, membership] = foundations;
  disk.entries = Array.from({ length: index }, (_, i): Entry => ({
    index: asIndex(i + 1),
    term: asTerm(1),
    kind: "noop",
    data: EMPTY,
  }));
  disk.entries[0] = first;
  disk.entries[index - 1] = membership;
  disk.foundations = foundations;
  disk.compacted = { index, term };
  disk.hardState = { term, vote: null };
  disk.clusterId = clusterId;
  disk.boot = boot;
}
